//! What the receiver answers: an empty 200, or a problem that says what to do.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::json;
use uuid::Uuid;

/// Names the delivery on every answer, for both sides' logs.
pub(super) const RECEIPT_HEADER: &str = "x-tallyhook-receipt";

/// An answer other than 2xx (RFC 9457).
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) detail: String,
    /// Seconds after which to try again, where that makes sense.
    pub(super) retry_after_s: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), retry_after_s: None }
    }

    /// Our own trouble: the sender shall come again. Never a 4xx, which a
    /// shop reads as its own fault.
    pub(super) fn unavailable(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Not now", detail)
        }
    }

    pub(super) fn answer(self, receipt_id: Uuid) -> Response<Body> {
        let problem = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "receipt": receipt_id,
        });
        let mut response = plain(self.status, receipt_id, Body::from(problem.to_string()));
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// The answer to what is durable: 200, and nothing else. Some platforms
/// demand an empty body, none wants another.
pub(super) fn accepted(receipt_id: Uuid) -> Response<Body> {
    plain(StatusCode::OK, receipt_id, Body::empty())
}

fn plain(status: StatusCode, receipt_id: Uuid, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    name(&mut response, receipt_id);
    response
}

fn name(response: &mut Response<Body>, receipt_id: Uuid) {
    // A UUID is always a legal header value.
    if let Ok(value) = HeaderValue::from_str(&receipt_id.to_string()) {
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
}

/// Every answer names a receipt, also those of the probes.
pub(super) async fn name_receipt(mut response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(RECEIPT_HEADER) {
        name(&mut response, Uuid::now_v7());
    }
    response
}

/// Any other path.
pub(super) async fn no_such_place() -> Response<Body> {
    let detail = "webhooks are taken at /hooks/{source}";
    Problem::new(StatusCode::NOT_FOUND, "No such place", detail).answer(Uuid::now_v7())
}

/// Any other method.
pub(super) async fn method_not_allowed() -> Response<Body> {
    let detail = "webhooks are sent with POST";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail).answer(Uuid::now_v7())
}
