//! What a target's answer to a call means.

use serde_json::Value;

use super::{AttemptResult, DestinationResponse};
use crate::{
    domain::ReasonCode,
    net::{http_client, http_client::FetchError},
};

/// How much of an answer is kept, in bytes.
const MAX_STORED_BODY_BYTES: usize = 16 * 1024;

/// What an answer is looked through for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRules {
    /// The JSON pointer at which the target tells its own id of what it made.
    pub id_pointer: Option<String>,
    /// A 4xx with one of these texts says that it has it already.
    pub already_exists: Vec<String>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResponseClass {
    /// This.
    Final(AttemptResult),
    /// It has one already; whether it is ours is to be seen.
    AlreadyExists {
        /// The status that says so.
        status: u16,
        /// The id of it, if it was told.
        remote_id: Option<String>,
    },
}

impl ResponseRules {
    /// What an answer says.
    pub(super) fn classify(&self, answer: &http_client::HttpResponse) -> ResponseClass {
        let status = answer.status.as_u16();
        let error = format!("answered {status}");
        let not_now = |counts| AttemptResult::RetryLater {
            error: error.clone(),
            retry_after: answer.retry_after,
            counts_as_attempt: counts,
        };
        ResponseClass::Final(match status {
            200..=299 => self.classify_success(answer, &error),
            // Our credentials: nothing that this delivery could help.
            401 | 407 => not_now(false),
            408 | 425 | 429 | 503 => not_now(true),
            500.. => AttemptResult::Unknown(error),
            409 => return self.existing_document(answer),
            400..=499 if self.reports_existing(answer) => return self.existing_document(answer),
            _ => AttemptResult::Rejected { reason: ReasonCode::DeliveryRefused, error },
        })
    }

    fn classify_success(&self, answer: &http_client::HttpResponse, error: &str) -> AttemptResult {
        let Some(pointer) = &self.id_pointer else {
            return AttemptResult::Delivered { remote_id: None, warning: None };
        };
        match (remote_id_at(answer, pointer), &answer.truncated_by) {
            (Some(id), _) => AttemptResult::Delivered { remote_id: Some(id), warning: None },
            (None, Some(cause)) => {
                AttemptResult::Unknown(format!("{error}, but of its body: {cause}"))
            }
            (None, None) => AttemptResult::Unknown(format!("{error} without an id at {pointer}")),
        }
    }

    fn existing_document(&self, answer: &http_client::HttpResponse) -> ResponseClass {
        let remote_id = self.id_pointer.as_ref().and_then(|pointer| remote_id_at(answer, pointer));
        ResponseClass::AlreadyExists { status: answer.status.as_u16(), remote_id }
    }

    fn reports_existing(&self, answer: &http_client::HttpResponse) -> bool {
        let body = String::from_utf8_lossy(&answer.body).to_lowercase();
        self.already_exists.iter().any(|text| body.contains(&text.to_lowercase()))
    }
}

/// What it means that no answer came.
pub(super) fn classify_transport_error(error: FetchError) -> AttemptResult {
    let may_have_arrived = error.may_have_arrived();
    let error = format!("{:#}", anyhow::Error::from(error));
    if may_have_arrived {
        AttemptResult::Unknown(error)
    } else {
        AttemptResult::RetryLater { error, retry_after: None, counts_as_attempt: false }
    }
}

/// An answer as it is kept.
pub(super) fn stored_response(answer: &http_client::HttpResponse) -> DestinationResponse {
    let mut body = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
    body.truncate(body.floor_char_boundary(MAX_STORED_BODY_BYTES));
    DestinationResponse { status: Some(answer.status.as_u16()), body }
}

fn remote_id_at(answer: &http_client::HttpResponse, pointer: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    parse_remote_id(body.pointer(pointer)?)
}

/// An id: a text, or a whole number.
pub(super) fn parse_remote_id(value: &Value) -> Option<String> {
    let id = match value {
        Value::String(text) => text.clone(),
        // A fraction is no id, nor is a number that was rounded.
        Value::Number(number) if !number.is_f64() => number.to_string(),
        _ => return None,
    };
    // What cannot be stored or shown is none.
    Some(id).filter(|id| !id.is_empty() && id.len() <= 2048 && !id.contains('\0'))
}

#[cfg(test)]
mod tests;
