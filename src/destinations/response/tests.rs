use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::net::http_client::FetchErrorKind;

fn answer(status: u16, body: &str) -> http_client::HttpResponse {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let status = http::StatusCode::from_u16(status).unwrap();
    http_client::HttpResponse { status, retry_after: None, body, truncated_by: None }
}

fn expected(id: Option<&str>) -> ResponseRules {
    ResponseRules {
        id_pointer: id.map(str::to_owned),
        already_exists: vec!["Already exists".to_owned()],
    }
}

fn has(id: Option<&str>) -> ResponseClass {
    ResponseClass::Final(AttemptResult::Delivered {
        remote_id: id.map(str::to_owned),
        warning: None,
    })
}

fn unknown(error: &str) -> ResponseClass {
    ResponseClass::Final(AttemptResult::Unknown(error.to_owned()))
}

fn refused(status: u16) -> ResponseClass {
    let error = format!("answered {status}");
    ResponseClass::Final(AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, error })
}

fn not_now(status: u16, counts: bool) -> ResponseClass {
    let error = format!("answered {status}");
    ResponseClass::Final(AttemptResult::RetryLater {
        error,
        retry_after: None,
        counts_as_attempt: counts,
    })
}

fn exists(status: u16, id: Option<&str>) -> ResponseClass {
    ResponseClass::AlreadyExists { status, remote_id: id.map(str::to_owned) }
}

#[test]
fn each_status_means_this() {
    for (status, body, meaning) in [
        (200, r#"{"id": "INV-1"}"#, has(Some("INV-1"))),
        (201, r#"{"id": 42}"#, has(Some("42"))),
        (201, r#"{"id": 18446744073709551615}"#, has(Some("18446744073709551615"))),
        (200, r#"{"id": 1.5}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": 123456789012345678901}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": ""}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": null}"#, unknown("answered 200 without an id at /id")),
        (200, r#"{"id": "a\u0000"}"#, unknown("answered 200 without an id at /id")),
        (202, "accepted", unknown("answered 202 without an id at /id")),
        (204, "", unknown("answered 204 without an id at /id")),
        (301, "", refused(301)),
        (400, "", refused(400)),
        (400, r#"{"error": "invoice ALREADY EXISTS", "id": "7"}"#, exists(400, Some("7"))),
        (401, "already exists", not_now(401, false)),
        (403, "", refused(403)),
        (404, "", refused(404)),
        (407, "", not_now(407, false)),
        (408, "", not_now(408, true)),
        (409, "", exists(409, None)),
        (409, r#"{"id": 7}"#, exists(409, Some("7"))),
        (422, "no such vendor", refused(422)),
        (422, "It already exists.", exists(422, None)),
        (425, "", not_now(425, true)),
        (429, "already exists", not_now(429, true)),
        (500, "already exists", unknown("answered 500")),
        (502, "", unknown("answered 502")),
        (503, "", not_now(503, true)),
        (504, "", unknown("answered 504")),
        (599, "", unknown("answered 599")),
    ] {
        let read = expected(Some("/id")).classify(&answer(status, body));
        assert_eq!(read, meaning, "{status} {body}");
    }
}

#[test]
fn without_a_place_for_the_id_a_success_is_enough() {
    assert_eq!(expected(None).classify(&answer(204, "")), has(None));
    assert_eq!(expected(None).classify(&answer(409, r#"{"id": 7}"#)), exists(409, None));
}

#[test]
fn a_body_that_breaks_off_leaves_the_status() {
    let cut = |status, body| http_client::HttpResponse {
        truncated_by: Some(FetchErrorKind::Interrupted),
        ..answer(status, body)
    };
    let read = expected(Some("/id")).classify(&cut(201, r#"{"id": "#));
    assert_eq!(
        read,
        unknown(
            "answered 201, but of its body: the connection was lost before the end of the response"
        )
    );
    assert_eq!(expected(None).classify(&cut(201, "")), has(None));
    assert_eq!(expected(Some("/id")).classify(&cut(422, "no")), refused(422));
}

#[test]
fn what_a_target_asks_to_wait_is_told() {
    let wait = Some(Duration::from_secs(7));
    for (status, told) in [(429, wait), (503, wait)] {
        let busy = http_client::HttpResponse { retry_after: wait, ..answer(status, "") };
        let ResponseClass::Final(AttemptResult::RetryLater { retry_after, .. }) =
            expected(None).classify(&busy)
        else {
            panic!("{status}");
        };
        assert_eq!(retry_after, told);
    }
}

#[test]
fn an_answer_is_kept_as_far_as_it_can_be() {
    let long = format!("{}é{}", "x".repeat(MAX_STORED_BODY_BYTES - 1), "y".repeat(100));
    for (body, kept_body) in [
        (b"a\0b".as_slice(), "a\u{fffd}b".to_owned()),
        (b"a\xffb", "a\u{fffd}b".to_owned()),
        (long.as_bytes(), "x".repeat(MAX_STORED_BODY_BYTES - 1)),
        (b"", String::new()),
    ] {
        let answer =
            http_client::HttpResponse { body: Bytes::copy_from_slice(body), ..answer(418, "") };
        assert_eq!(
            stored_response(&answer),
            DestinationResponse { status: Some(418), body: kept_body }
        );
    }
}
