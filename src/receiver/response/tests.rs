//! The answers, byte for byte.

use http_body_util::BodyExt as _;

use super::*;
use crate::domain::ReasonCode;

const RECEIPT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// Status, headers as far as we set them, and body.
async fn told(response: Response<Body>) -> (u16, Vec<(String, String)>, String) {
    let (parts, body) = response.into_parts();
    let mut headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), headers, String::from_utf8(body.to_vec()).unwrap())
}

fn headers(more: &[(&str, &str)]) -> Vec<(String, String)> {
    let receipt = RECEIPT.to_string();
    let mut headers: Vec<_> = [(RECEIPT_HEADER, receipt.as_str())]
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    headers.sort();
    headers
}

fn invalid() -> Problem {
    Problem {
        failures: vec![
            PermanentFailure::missing("/invoiceNumber"),
            PermanentFailure::invalid("/amount", "is \"x\""),
            PermanentFailure::new(ReasonCode::InvalidJson, "no"),
        ],
        ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "three")
    }
}

#[tokio::test]
async fn a_robot_is_told_what_it_reads() {
    let answer = told(invalid().to_response(ResponseStyle::Callback, RECEIPT)).await;
    let body = r#"{"status":"error","message":"three","retryable":false,"errors":[{"field":"/invoiceNumber","message":"is missing or null"},{"field":"/amount","message":"is \"x\""},{"field":"","message":"no"}]}"#;
    assert_eq!(answer, (422, headers(&[("content-type", "application/json")]), body.to_owned()));

    let answer =
        told(Problem::unavailable("later", 5).to_response(ResponseStyle::Callback, RECEIPT)).await;
    let body = r#"{"status":"error","message":"later","retryable":true,"errors":[]}"#;
    let expected = headers(&[("content-type", "application/json"), ("retry-after", "5")]);
    assert_eq!(answer, (503, expected, body.to_owned()));
}

#[tokio::test]
async fn only_what_may_be_taken_later_is_retryable() {
    for (status, retryable) in [
        (400, false),
        (401, false),
        (405, false),
        (408, true),
        (413, false),
        (415, false),
        (422, false),
        (429, true),
        (503, true),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let problem = Problem::new(status, "", "x");
        let (_, _, body) = told(problem.to_response(ResponseStyle::Callback, RECEIPT)).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["retryable"], retryable, "{status}");
    }
}

#[tokio::test]
async fn a_bare_answer_is_a_status_and_nothing_else() {
    for (problem, status, more) in [
        (invalid(), 422, &[][..]),
        (Problem::unavailable("later", 7), 503, &[("retry-after", "7")]),
        (Problem::method_not_allowed(), 405, &[("allow", "POST")]),
    ] {
        let answer = told(problem.to_response(ResponseStyle::StatusOnly, RECEIPT)).await;
        assert_eq!(answer, (status, headers(more), String::new()));
    }
    let answer = told(accepted_response(RECEIPT, None)).await;
    assert_eq!(answer, (200, headers(&[]), String::new()));
}

#[tokio::test]
async fn a_problem_lists_fields_only_where_there_are_some() {
    let (status, told_headers, body) =
        told(invalid().to_response(ResponseStyle::ProblemJson, RECEIPT)).await;
    assert_eq!(status, 422);
    assert_eq!(told_headers, headers(&[("content-type", "application/problem+json")]));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["receipt"], RECEIPT.to_string());
    let first = json!({"field": "/invoiceNumber", "message": "is missing or null"});
    assert_eq!(body["errors"][0], first);
    let plain = Problem::new(StatusCode::BAD_REQUEST, "Unreadable", "x");
    let (_, _, body) = told(plain.to_response(ResponseStyle::ProblemJson, RECEIPT)).await;
    assert!(!body.contains("errors"), "{body}");
}

#[tokio::test]
async fn what_is_accepted_is_answered_with_the_callers_body() {
    let answer = told(accepted_response(RECEIPT, Some(Bytes::from_static(b"{}")))).await;
    let expected = headers(&[("content-type", "application/json")]);
    assert_eq!(answer, (200, expected, "{}".to_owned()));
    let given = HeaderMap::from_iter([(header::ALLOW, HeaderValue::from_static("POST"))]);
    let answer = told(handshake_response(RECEIPT, given)).await;
    assert_eq!(answer, (200, headers(&[("allow", "POST")]), String::new()));
}
