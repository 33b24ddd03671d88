use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::{
    destinations::http::{IDENTIFYING_PLACEHOLDERS, URL_PLACEHOLDERS},
    net::http_client::FetchErrorKind,
};

fn look_up(id: &str, matches: &[(&str, &str)]) -> LookupRules {
    let own = |(pointer, field): &(&str, &str)| ((*pointer).to_owned(), (*field).to_owned());
    LookupRules {
        url: UrlTemplate::parse(
            "https://a.example/i?n={number}",
            URL_PLACEHOLDERS,
            IDENTIFYING_PLACEHOLDERS,
        )
        .unwrap(),
        id_pointer: id.to_owned(),
        matches: matches.iter().map(own).collect(),
    }
}

fn answer(status: u16, body: &str) -> http_client::HttpResponse {
    let status = http::StatusCode::from_u16(status).unwrap();
    let body = Bytes::copy_from_slice(body.as_bytes());
    http_client::HttpResponse { status, retry_after: None, body, truncated_by: None }
}

/// The id, `nowhere`, or the error.
fn told(look_up: &LookupRules, status: u16, body: &str) -> String {
    let document = json!({"vendor": "Ann", "number": 7, "total": "12.50", "due_on": null});
    match look_up.evaluate(&answer(status, body), &document) {
        Ok(LookupResult::Found { remote_id }) => remote_id.unwrap_or_default(),
        Ok(LookupResult::NotFound) => "nowhere".to_owned(),
        Err(error) => error,
    }
}

#[test]
fn each_answer_says_this() {
    let list = look_up("/invoices/0/id", &[]);
    let one = look_up("/id", &[]);
    let bare = look_up("/0/id", &[]);
    let path = "https://a.example/i/{number}?full=1";
    let by_path = LookupRules {
        url: UrlTemplate::parse(path, URL_PLACEHOLDERS, IDENTIFYING_PLACEHOLDERS).unwrap(),
        ..look_up("/id", &[])
    };
    for (look_up, status, body, expected) in [
        (&list, 200, r#"{"invoices": [{"id": "I-1"}]}"#, "I-1"),
        (&list, 200, r#"{"invoices": [{"id": 5}, {"id": 6}]}"#, "5"),
        (&list, 200, r#"{"invoices": []}"#, "nowhere"),
        (&list, 200, r#"{"invoices": null}"#, "nowhere"),
        (&list, 200, "{}", "nowhere"),
        (&list, 200, "null", "nowhere"),
        (&list, 200, r#"{"error": "no"}"#, "nothing at /invoices"),
        (&list, 200, "[]", "nothing at /invoices"),
        (&list, 200, r#"{"invoices": [{"number": 7}]}"#, "no id at /invoices/0/id"),
        (&list, 200, r#"{"invoices": "many"}"#, "nothing at /invoices/0"),
        (&list, 200, "<html>", "not JSON"),
        (&list, 200, "", "not JSON"),
        (&list, 204, "", "nowhere"),
        (&by_path, 404, "", "nowhere"),
        (&by_path, 410, "", "nowhere"),
        // A list that is not there is a mistake of ours, and no empty one.
        (&list, 404, "", "nothing is at lookup.url"),
        (&list, 410, "", "nothing is at lookup.url"),
        (&list, 302, "", "answered 302"),
        (&list, 401, "", "answered 401"),
        (&list, 429, "", "answered 429"),
        (&list, 500, "", "answered 500"),
        (&one, 200, r#"{"id": "x"}"#, "x"),
        (&one, 200, r#"{"id": null}"#, "nowhere"),
        (&one, 200, r#"{"id": {}}"#, "no id at /id"),
        (&one, 200, r#"{"error": "no"}"#, "nothing at /id"),
        (&bare, 200, r#"[{"id": "x"}]"#, "x"),
        (&bare, 200, "[]", "nowhere"),
    ] {
        let said = told(look_up, status, body);
        assert!(said.contains(expected), "{status} {body} must say {expected:?}, says {said:?}");
    }
    let cut = http_client::HttpResponse {
        truncated_by: Some(FetchErrorKind::TooLarge(1)),
        ..answer(200, "[]")
    };
    assert!(bare.evaluate(&cut, &Value::Null).unwrap_err().contains("more than 1 bytes"));
}

#[test]
fn only_what_is_ours_is_found() {
    let ours = look_up(
        "/invoices/0/id",
        &[("/invoices/0/vendor", "vendor"), ("/invoices/0/number", "number"), ("/ok", "due_on")],
    );
    for (body, expected) in [
        (r#"{"invoices": [{"id": "1", "vendor": "Ann", "number": "7"}]}"#, "1"),
        (r#"{"invoices": [{"id": "1", "vendor": "Bob", "number": 7}]}"#, "nowhere"),
        (
            r#"{"invoices": [{"id": "1", "vendor": "Bob", "number": 7}, {"id": "2", "vendor": "Ann", "number": 7}]}"#,
            "2",
        ),
        (r#"{"invoices": [{"id": "1", "number": 7}]}"#, "nowhere"),
        (r#"{"invoices": [{"id": "1", "vendor": "Ann", "number": 7}], "ok": 1}"#, "nowhere"),
        (r#"{"invoices": [{"id": "1", "vendor": ["Ann"], "number": 7}]}"#, "nowhere"),
        (r#"{"invoices": []}"#, "nowhere"),
    ] {
        assert_eq!(told(&ours, 200, body), expected, "{body}");
    }
    let one = look_up("/id", &[("/vendor", "vendor")]);
    assert_eq!(told(&one, 200, r#"{"id": 1, "vendor": "Ann"}"#), "1");
    assert_eq!(told(&one, 200, r#"{"id": 1, "vendor": "Bob"}"#), "nowhere");
}
