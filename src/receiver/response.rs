//! What the receiver answers: yes, or what to do instead. In the style that
//! the source's callers read.

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

/// Names the delivery on every answer, for both sides' logs.
pub(super) const RECEIPT_HEADER: &str = "x-tallyhook-receipt";

/// Why the answer is not a 2xx.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) detail: String,
    /// The fields at fault, where the caller can mend them.
    pub(super) failures: Vec<PermanentFailure>,
    /// Seconds after which to try again, where that makes sense.
    pub(super) retry_after_s: Option<u64>,
    /// The method to use instead, where another was.
    pub(super) allow: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { status, title, detail, failures: Vec::new(), retry_after_s: None, allow: None }
    }

    /// Our own trouble: the sender shall come again. Never a 4xx, which a
    /// shop reads as its own fault.
    pub(super) fn unavailable(detail: impl Into<String>, retry_after_s: u64) -> Self {
        Self {
            retry_after_s: Some(retry_after_s),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "Not now", detail)
        }
    }

    /// Webhooks are sent with POST.
    pub(super) fn method_not_allowed() -> Self {
        let detail = "webhooks are sent with POST";
        Self {
            allow: Some("POST"),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail)
        }
    }

    /// Whether the same call may well be taken later.
    fn is_retryable(&self) -> bool {
        matches!(
            self.status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_MANY_REQUESTS
                | StatusCode::SERVICE_UNAVAILABLE
        )
    }

    /// The answer, in the style of the source's callers.
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

    /// A problem (RFC 9457).
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

    /// What a robot reads. Nothing in it differs from call to call, as the
    /// receipt would.
    fn callback_body(&self) -> String {
        let refused = CallbackError {
            status: "error",
            message: &self.detail,
            retryable: self.is_retryable(),
            errors: FieldError::list(&self.failures),
        };
        // Texts in a struct: there is nothing that JSON could not say.
        serde_json::to_string(&refused).unwrap_or_default()
    }
}

/// The body that tells a robot why not; in this order.
#[derive(Serialize)]
struct CallbackError<'a> {
    status: &'static str,
    message: &'a str,
    retryable: bool,
    errors: Vec<FieldError<'a>>,
}

/// A field at fault: a JSON pointer (of the whole body, if it is empty), a
/// header, or a column as the source's settings call it.
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

/// The answer to what is durable: 200, with the body that the caller wants,
/// else with none. Some platforms demand an empty one.
pub(super) fn accepted_response(receipt_id: Uuid, acceptance: Option<Bytes>) -> Response<Body> {
    let Some(body) = acceptance else {
        return build_response(StatusCode::OK, receipt_id, Body::empty());
    };
    let mut response = build_response(StatusCode::OK, receipt_id, Body::from(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// What can be told as JSON.
pub(super) fn json_response(
    status: StatusCode,
    receipt_id: Uuid,
    told: &impl Serialize,
) -> Response<Body> {
    // Names, numbers and times: there is nothing that JSON could not say.
    let body = serde_json::to_string(told).unwrap_or_default();
    let mut response = build_response(status, receipt_id, Body::from(body));
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

/// The leave to send that a platform asked for.
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
    // A UUID is always a legal header value.
    if let Ok(value) = HeaderValue::from_str(&receipt_id.to_string()) {
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
}

/// Every answer names a receipt, also those of the probes.
pub(super) async fn set_receipt_header(mut response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(RECEIPT_HEADER) {
        insert_receipt_header(&mut response, Uuid::now_v7());
    }
    response
}

/// Any other path.
pub(super) async fn not_found() -> Response<Body> {
    let detail = "webhooks are taken at /hooks/{source}, files at /imports/{source}";
    let problem = Problem::new(StatusCode::NOT_FOUND, "No such place", detail);
    problem.to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}

/// Any other method of a probe.
pub(super) async fn probe_method_not_allowed() -> Response<Body> {
    let detail = "probes are asked with GET";
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    problem.to_response(ResponseStyle::ProblemJson, Uuid::now_v7())
}
