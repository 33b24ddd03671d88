//! The exact bytes of responses.

use http_body_util::BodyExt as _;

use super::*;
use crate::domain::ReasonCode;

const RECEIPT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);

/// Status, headers and body.
async fn parts_of(response: Response<Body>) -> (u16, Vec<(String, String)>, String) {
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
async fn response_callback_error_has_exact_body() {
    let response = parts_of(invalid().to_response(ResponseStyle::Callback, RECEIPT)).await;
    let body = r#"{"status":"error","message":"three","retryable":false,"errors":[{"field":"/invoiceNumber","message":"is missing or null"},{"field":"/amount","message":"is \"x\""},{"field":"","message":"no"}]}"#;
    assert_eq!(response, (422, headers(&[("content-type", "application/json")]), body.to_owned()));

    let response =
        parts_of(Problem::unavailable("later", 5).to_response(ResponseStyle::Callback, RECEIPT))
            .await;
    let body = r#"{"status":"error","message":"later","retryable":true,"errors":[]}"#;
    let expected = headers(&[("content-type", "application/json"), ("retry-after", "5")]);
    assert_eq!(response, (503, expected, body.to_owned()));
}

#[tokio::test]
async fn response_retryable_depends_on_status() {
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
        let (_, _, body) = parts_of(problem.to_response(ResponseStyle::Callback, RECEIPT)).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["retryable"], retryable, "{status}");
    }
}

#[tokio::test]
async fn response_status_only_has_no_body() {
    for (problem, status, more) in [
        (invalid(), 422, &[][..]),
        (Problem::unavailable("later", 7), 503, &[("retry-after", "7")]),
        (Problem::method_not_allowed(), 405, &[("allow", "POST")]),
    ] {
        let response = parts_of(problem.to_response(ResponseStyle::StatusOnly, RECEIPT)).await;
        assert_eq!(response, (status, headers(more), String::new()));
    }
    let response = parts_of(accepted_response(RECEIPT, None)).await;
    assert_eq!(response, (200, headers(&[]), String::new()));
}

#[tokio::test]
async fn response_problem_lists_invalid_fields() {
    let (status, response_headers, body) =
        parts_of(invalid().to_response(ResponseStyle::ProblemJson, RECEIPT)).await;
    assert_eq!(status, 422);
    assert_eq!(response_headers, headers(&[("content-type", "application/problem+json")]));
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["receipt"], RECEIPT.to_string());
    let first = json!({"field": "/invoiceNumber", "message": "is missing or null"});
    assert_eq!(body["errors"][0], first);
    let plain = Problem::new(StatusCode::BAD_REQUEST, "Bad request", "x");
    let (_, _, body) = parts_of(plain.to_response(ResponseStyle::ProblemJson, RECEIPT)).await;
    assert!(!body.contains("errors"), "{body}");
}

#[tokio::test]
async fn response_accepted_has_success_body() {
    let response = parts_of(accepted_response(RECEIPT, Some(Bytes::from_static(b"{}")))).await;
    let expected = headers(&[("content-type", "application/json")]);
    assert_eq!(response, (200, expected, "{}".to_owned()));
    let granted = HeaderMap::from_iter([(header::ALLOW, HeaderValue::from_static("POST"))]);
    let response = parts_of(handshake_response(RECEIPT, granted)).await;
    assert_eq!(response, (200, headers(&[("allow", "POST")]), String::new()));
}
