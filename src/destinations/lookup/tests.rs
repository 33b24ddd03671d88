use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{
    destinations::http::{IDENTIFYING_PLACEHOLDERS, URL_PLACEHOLDERS},
    net::http_client::FetchErrorKind,
};

fn rules(id: &str, matches: &[(&str, &str)]) -> LookupRules {
    let owned = |(pointer, field): &(&str, &str)| ((*pointer).to_owned(), (*field).to_owned());
    LookupRules {
        url: UrlTemplate::parse(
            "https://a.example/i?n={number}",
            URL_PLACEHOLDERS,
            IDENTIFYING_PLACEHOLDERS,
        )
        .unwrap(),
        id_pointer: id.to_owned(),
        matches: matches.iter().map(owned).collect(),
    }
}

fn response(status: u16, body: &str) -> HttpResponse {
    let status = http::StatusCode::from_u16(status).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    HttpResponse { status, retry_after: None, body, truncated_by: None }
}

/// The id, `not found`, or the error.
fn evaluate(rules: &LookupRules, status: u16, body: &str) -> String {
    let document = json!({"vendor": "Ann", "number": 7, "total": "12.50", "due_on": null});
    match rules.evaluate(&response(status, body), &document) {
        Ok(LookupResult::Found { remote_id }) => remote_id.unwrap_or_default(),
        Ok(LookupResult::NotFound) => "not found".to_owned(),
        Err(error) => error,
    }
}

#[test]
fn evaluate_follows_table() {
    let list = rules("/invoices/0/id", &[]);
    let unconditional = rules("/id", &[]);
    let bare = rules("/0/id", &[]);
    let path = "https://a.example/i/{number}?full=1";
    let by_path = LookupRules {
        url: UrlTemplate::parse(path, URL_PLACEHOLDERS, IDENTIFYING_PLACEHOLDERS).unwrap(),
        ..rules("/id", &[])
    };
    for (rules, status, body, expected) in [
        (&list, 200, r#"{"invoices": [{"id": "I-1"}]}"#, "I-1"),
        (&list, 200, r#"{"invoices": [{"id": 5}, {"id": 6}]}"#, "5"),
        (&list, 200, r#"{"invoices": []}"#, "not found"),
        (&list, 200, r#"{"invoices": null}"#, "not found"),
        (&list, 200, "{}", "not found"),
        (&list, 200, "null", "not found"),
        (&list, 200, r#"{"error": "no"}"#, "nothing at /invoices"),
        (&list, 200, "[]", "nothing at /invoices"),
        (&list, 200, r#"{"invoices": [{"number": 7}]}"#, "no id at /invoices/0/id"),
        (&list, 200, r#"{"invoices": "many"}"#, "nothing at /invoices/0"),
        (&list, 200, "<html>", "not JSON"),
        (&list, 200, "", "not JSON"),
        (&list, 204, "", "not found"),
        (&by_path, 404, "", "not found"),
        (&by_path, 410, "", "not found"),
        // A missing list is a wrong URL, not an empty list.
        (&list, 404, "", "nothing is at lookup.url"),
        (&list, 410, "", "nothing is at lookup.url"),
        (&list, 302, "", "answered 302"),
        (&list, 401, "", "answered 401"),
        (&list, 429, "", "answered 429"),
        (&list, 500, "", "answered 500"),
        (&unconditional, 200, r#"{"id": "x"}"#, "x"),
        (&unconditional, 200, r#"{"id": null}"#, "not found"),
        (&unconditional, 200, r#"{"id": {}}"#, "no id at /id"),
        (&unconditional, 200, r#"{"error": "no"}"#, "nothing at /id"),
        (&bare, 200, r#"[{"id": "x"}]"#, "x"),
        (&bare, 200, "[]", "not found"),
    ] {
        let result = evaluate(rules, status, body);
        assert!(
            result.contains(expected),
            "{status} {body} must say {expected:?}, says {result:?}"
        );
    }
    let truncated =
        HttpResponse { truncated_by: Some(FetchErrorKind::TooLarge(1)), ..response(200, "[]") };
    assert!(bare.evaluate(&truncated, &Value::Null).unwrap_err().contains("more than 1 bytes"));
}

#[test]
fn evaluate_finds_only_matching_document() {
    let ours = rules(
        "/invoices/0/id",
        &[("/invoices/0/vendor", "vendor"), ("/invoices/0/number", "number"), ("/ok", "due_on")],
    );
    for (body, expected) in [
        (r#"{"invoices": [{"id": "1", "vendor": "Ann", "number": "7"}]}"#, "1"),
        (r#"{"invoices": [{"id": "1", "vendor": "Bob", "number": 7}]}"#, "not found"),
        (
            r#"{"invoices": [{"id": "1", "vendor": "Bob", "number": 7}, {"id": "2", "vendor": "Ann", "number": 7}]}"#,
            "2",
        ),
        (r#"{"invoices": [{"id": "1", "number": 7}]}"#, "not found"),
        (r#"{"invoices": [{"id": "1", "vendor": "Ann", "number": 7}], "ok": 1}"#, "not found"),
        (r#"{"invoices": [{"id": "1", "vendor": ["Ann"], "number": 7}]}"#, "not found"),
        (r#"{"invoices": []}"#, "not found"),
    ] {
        assert_eq!(evaluate(&ours, 200, body), expected, "{body}");
    }
    let vendor_rule = rules("/id", &[("/vendor", "vendor")]);
    assert_eq!(evaluate(&vendor_rule, 200, r#"{"id": 1, "vendor": "Ann"}"#), "1");
    assert_eq!(evaluate(&vendor_rule, 200, r#"{"id": 1, "vendor": "Bob"}"#), "not found");
}
