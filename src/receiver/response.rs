//! HTTP responses of the receiver, in the style that the callers of a source expect.

#[cfg(test)]
mod tests;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{domain::PermanentFailure, sources::ResponseStyle};

/// Every response has this header, so that logs of both sides can be matched.
pub(super) const RECEIPT_HEADER: &str = "x-tallyhook-receipt";

/// An error response.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) detail: String,
    /// The invalid fields, where the caller can correct them.
    pub(super) failures: Vec<PermanentFailure>,
    /// The `Retry-After` header, in seconds.
    pub(super) retry_after_s: Option<u64>,
    /// The `Allow` header.
    pub(super) allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, title, detail, failures: Vec::new(), retry_after_s: None, allow: None }
    }

    /// 503: the sender should retry. Platforms treat a 4xx as permanent.
    pub(super) fn unavailable(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable", detail)
        }
    }

    /// 405 for webhooks.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "webhooks are sent with POST";
        Self {
            allow: Some("POST"),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail)
        }
    }

    /// Whether the same request may succeed later.
    fn is_retryable(&self) -> bool {
        matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        )
    }

    pub(super) fn to_response(&self, style: ResponseStyle, receipt_id: Uuid) -> Response<Body> {
        let (media_type, body) = match style {
            ResponseStyle::ProblemJson => {
                ("application/problem+json", self.problem_body(receipt_id))
            }
            ResponseStyle::Callback => ("application/json", self.callback_body()),
            ResponseStyle::StatusOnly => ("", String::new()),
        };
        let mut response = build_response(self.status, receipt_id, Body::from(body));
        let headers = response.headers_mut();
        if !media_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(method) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(method));
        }
        response
    }

    /// Problem details (RFC 9457).
    fn problem_body(&self, receipt_id: Uuid) -> String {
        let mut problem = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "receipt": receipt_id,
        });
        if !self.failures.is_empty() {
            problem["errors"] = json!(FieldError::list(&self.failures));
        }
        problem.to_string()
    }

    /// The same bytes for the same request: without the receipt id.
    fn callback_body(&self) -> String {
        let error = CallbackError {
            status: "error",
            message: &self.detail,
            retryable: self.is_retryable(),
            errors: FieldError::list(&self.failures),
        };
        // A struct of texts always serializes.
        serde_json::to_string(&error).unwrap_or_default()
    }
}

/// The error body of a callback source. The order of the fields is part of the contract.
#[derive(Serialize)]
struct CallbackError<'a> {
    status: &'static str,
    message: &'a str,
    retryable: bool,
    errors: Vec<FieldError<'a>>,
}

/// An invalid field: a JSON pointer (empty for the whole body), a header, or a column.
#[derive(Serialize)]
struct FieldError<'a> {
    field: &'a str,
    message: &'a str,
}

impl<'a> FieldError<'a> {
    fn list(failures: &'a [PermanentFailure]) -> Vec<Self> {
        failures
            .iter()
            .map(|failure| Self { field: &failure.field, message: &failure.detail })
            .collect()
    }
}

/// 200 for a durable request. Without `success_body` the body is empty, which some platforms
/// require.
pub(super) fn accepted_response(receipt_id: Uuid, success_body: Option<Bytes>) -> Response<Body> {
    let Some(body) = success_body else {
        return build_response(StatusCode::OK, receipt_id, Body::empty());
    };
    let mut response = build_response(StatusCode::OK, receipt_id, Body::from(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// A response with a JSON body.
pub(super) fn json_response(
    status: StatusCode,
    receipt_id: Uuid,
    body: &impl Serialize,
) -> Response<Body> {
    // Structs of texts, numbers and times always serialize.
    let body = serde_json::to_string(body).unwrap_or_default();
    let mut response = build_response(status, receipt_id, Body::from(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// 200 for a platform that asks for permission to send, with these headers.
pub(super) fn handshake_response(receipt_id: Uuid, headers: HeaderMap) -> Response<Body> {
    let mut response = build_response(StatusCode::OK, receipt_id, Body::empty());
    response.headers_mut().extend(headers);
    response
}

fn build_response(status: StatusCode, receipt_id: Uuid, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    insert_receipt_header(&mut response, receipt_id);
    response
}

fn insert_receipt_header(response: &mut Response<Body>, receipt_id: Uuid) {
    // A UUID is always a valid header value.
    if let Ok(value) = HeaderValue::from_str(&receipt_id.to_string()) {
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
}

/// Adds a receipt id to a response without one, such as those of health checks.
pub(super) async fn set_receipt_header(mut response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(RECEIPT_HEADER) {
        insert_receipt_header(&mut response, Uuid::now_v7());
    }
    response
}

/// 404 for any other path.
pub(super) async fn not_found() -> Response<Body> {
    let detail = "webhooks are sent to /hooks/{source}, files to /imports/{source}";
    let problem = Problem::new(StatusCode::NOT_FOUND, "Not found", detail);
    problem.to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}

/// 405 for health checks.
pub(super) async fn probe_method_not_allowed() -> Response<Body> {
    let detail = "health checks are requested with GET";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed", detail);
    problem.to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}
