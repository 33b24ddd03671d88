//! The meaning of a destination's response to a delivery.

use serde_json::Value;

use super::{AttemptResult, DestinationResponse};
use crate::{
    domain::ReasonCode,
    net::http_client::{FetchError, HttpResponse},
};

/// How much of a response body is stored, in bytes.
const MAX_STORED_BODY_BYTES: usize = 16 * 1024;

/// How responses are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// JSON pointer to the destination's id of the document.
    pub id_pointer: Option<String>,
    /// A 4xx whose body contains one of these texts means that the document
    /// exists already. Case is ignored.
    pub already_exists: Vec<String>,
}

/// The meaning of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponseClass {
    /// The result of the attempt.
    Final(AttemptResult),
    /// The document exists already; a look-up decides whether it is ours.
    AlreadyExists { status: u16, remote_id: Option<String> },
}

impl ResponseRules {
    /// Classifies a response by its status, its body and these rules.
    pub(super) fn classify(&self, response: &HttpResponse) -> ResponseClass {
        let status = response.status.as_u16();
        let error = format!("answered {status}");
        let retry_later = |counts_as_attempt| AttemptResult::RetryLater {
            error: error.clone(),
            retry_after: response.retry_after,
            counts_as_attempt,
        };
        ResponseClass::Final(match status {
            200..=299 => self.classify_success(response, &error),
            // Wrong credentials are not this delivery's fault.
            401 | 407 => retry_later(false),
            408 | 425 | 429 | 503 => retry_later(true),
            500.. => AttemptResult::Unknown(error),
            409 => return self.existing_document(response),
            400..=499 if self.reports_existing(response) => {
                return self.existing_document(response);
            }
            _ => AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, error },
        })
    }

    fn classify_success(&self, response: &HttpResponse, error: &str) -> AttemptResult {
        let Some(pointer) = &self.id_pointer else {
            return AttemptResult::Delivered { remote_id: None, warning: None };
        };
        match (remote_id_at(response, pointer), &response.truncated_by) {
            (Some(id), _) => AttemptResult::Delivered { remote_id: Some(id), warning: None },
            (None, Some(cause)) => {
                AttemptResult::Unknown(format!("{error}, but its body is incomplete: {cause}"))
            }
            (None, None) => AttemptResult::Unknown(format!("{error} without an id at {pointer}")),
        }
    }

    fn existing_document(&self, response: &HttpResponse) -> ResponseClass {
        let remote_id =
            self.id_pointer.as_ref().and_then(|pointer| remote_id_at(response, pointer));
        ResponseClass::AlreadyExists { status: response.status.as_u16(), remote_id }
    }

    fn reports_existing(&self, response: &HttpResponse) -> bool {
        let body = String::from_utf8_lossy(&response.body).to_lowercase();
        self.already_exists.iter().any(|text| body.contains(&text.to_lowercase()))
    }
}

/// The result of a request without a response.
pub(super) fn classify_transport_error(error: FetchError) -> AttemptResult {
    let may_have_arrived = error.may_have_arrived();
    let error = format!("{:#}", anyhow::Error::from(error));
    if may_have_arrived {
        AttemptResult::Unknown(error)
    } else {
        AttemptResult::RetryLater { error, retry_after: None, counts_as_attempt: false }
    }
}

/// A response as it is stored.
pub(super) fn stored_response(response: &HttpResponse) -> DestinationResponse {
    let mut body = String::from_utf8_lossy(&response.body).replace('\0', "\u{fffd}");
    body.truncate(body.floor_char_boundary(MAX_STORED_BODY_BYTES));
    DestinationResponse { status: Some(response.status.as_u16()), body }
}

fn remote_id_at(response: &HttpResponse, pointer: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    parse_remote_id(body.pointer(pointer)?)
}

/// An id: a text or an integer.
pub(super) fn parse_remote_id(value: &Value) -> Option<String> {
    let id = match value {
        Value::String(text) => text.clone(),
        // Floats are no ids: they may be rounded.
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    // Ids that cannot be stored or shown are left out.
    Some(id).filter(|id| !id.is_empty() && id.len() <= 2048 && !id.contains('\0'))
}

#[cfg(test)]
mod tests;
