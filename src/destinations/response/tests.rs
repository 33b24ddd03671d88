use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::net::http_client::{FetchErrorKind, HttpResponse};

fn response(status: u16, body: &str) -> HttpResponse {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let status = http::StatusCode::from_u16(status).unwrap();
    HttpResponse { status, retry_after: None, body, truncated_by: None }
}

fn rules(id: Option<&str>) -> ResponseRules {
    ResponseRules {
        id_pointer: id.map(str::to_owned),
        already_exists: vec!["Already exists".to_owned()],
    }
}

fn delivered(id: Option<&str>) -> ResponseClass {
    ResponseClass::Final(AttemptResult::Delivered {
        remote_id: id.map(str::to_owned),
        warning: None,
    })
}

fn unknown(error: &str) -> ResponseClass {
    ResponseClass::Final(AttemptResult::Unknown(error.to_owned()))
}

fn rejected(status: u16) -> ResponseClass {
    let error = format!("answered {status}");
    ResponseClass::Final(AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, error })
}

fn retry_later(status: u16, counts_as_attempt: bool) -> ResponseClass {
    let error = format!("answered {status}");
    ResponseClass::Final(AttemptResult::RetryLater { error, retry_after: None, counts_as_attempt })
}

fn already_exists(status: u16, id: Option<&str>) -> ResponseClass {
    ResponseClass::AlreadyExists { status, remote_id: id.map(str::to_owned) }
}

#[test]
fn classify_follows_table() {
    for (status, body, meaning) in [
        (200, r#"{"id": "INV-1"}"#, delivered(Some("INV-1"))),
        (201, r#"{"id": 42}"#, delivered(Some("42"))),
        (201, r#"{"id": 18446744073709551615}"#, delivered(Some("18446744073709551615"))),
        (200, r#"{"id": 1.5}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": 123456789012345678901}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": ""}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": null}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": "a\u0000"}"#, unknown("answered 200 without an id at /id")),
        (202, "accepted", unknown("answered 202 without an id at /id")),
        (204, "", unknown("answered 204 without an id at /id")),
        (301, "", rejected(301)),
        (400, "", rejected(400)),
        (400, r#"{"error": "invoice ALREADY EXISTS", "id": "7"}"#, already_exists(400, Some("7"))),
        (401, "already exists", retry_later(401, false)),
        (403, "", rejected(403)),
        (404, "", rejected(404)),
        (407, "", retry_later(407, false)),
        (408, "", retry_later(408, true)),
        (409, "", already_exists(409, None)),
        (409, r#"{"id": 7}"#, already_exists(409, Some("7"))),
        (422, "no such vendor", rejected(422)),
        (422, "It already exists.", already_exists(422, None)),
        (425, "", retry_later(425, true)),
        (429, "already exists", retry_later(429, true)),
        (500, "already exists", unknown("answered 500")),
        (502, "", unknown("answered 502")),
        (503, "", retry_later(503, true)),
        (504, "", unknown("answered 504")),
        (599, "", unknown("answered 599")),
    ] {
        let class = rules(Some("/id")).classify(&response(status, body));
        assert_eq!(class, meaning, "{status} {body}");
    }
}

#[test]
fn classify_without_id_pointer_accepts_any_success() {
    assert_eq!(rules(None).classify(&response(204, "")), delivered(None));
    assert_eq!(rules(None).classify(&response(409, r#"{"id": 7}"#)), already_exists(409, None));
}

#[test]
fn classify_truncated_body_uses_status() {
    let truncated = |status, body| HttpResponse {
        truncated_by: Some(FetchErrorKind::Interrupted),
        ..response(status, body)
    };
    let class = rules(Some("/id")).classify(&truncated(201, r#"{"id": "#));
    assert_eq!(
        class,
        unknown(
            "answered 201, but its body is incomplete: the connection was lost before the end of the response"
        )
    );
    assert_eq!(rules(None).classify(&truncated(201, "")), delivered(None));
    assert_eq!(rules(Some("/id")).classify(&truncated(422, "no")), rejected(422));
}

#[test]
fn classify_keeps_retry_after() {
    let wait = Some(Duration::from_secs(7));
    for (status, expected) in [(429, wait), (503, wait)] {
        let busy = HttpResponse { retry_after: wait, ..response(status, "") };
        let ResponseClass::Final(AttemptResult::RetryLater { retry_after, .. }) =
            rules(None).classify(&busy)
        else {
            panic!("{status}");
        };
        assert_eq!(retry_after, expected);
    }
}

#[test]
fn stored_response_is_truncated_and_cleaned() {
    let long = format!("{}é{}", "x".repeat(MAX_STORED_BODY_BYTES - 1), "y".repeat(100));
    for (body, stored_body) in [
        (b"a\0b".as_slice(), "a\u{fffd}b".to_owned()),
        (b"a\xffb", "a\u{fffd}b".to_owned()),
        (long.as_bytes(), "x".repeat(MAX_STORED_BODY_BYTES - 1)),
        (b"", String::new()),
    ] {
        let response = HttpResponse { body: Bytes::copy_from_slice(body), ..response(418, "") };
        assert_eq!(
            stored_response(&response),
            DestinationResponse { status: Some(418), body: stored_body }
        );
    }
}
