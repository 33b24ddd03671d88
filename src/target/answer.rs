//! What a target's answer to a call means.

use serde_json::Value;

use super::{Answer, Told};
use crate::{
    domain::Reason,
    fetch::{self, FetchError},
};

/// How much of an answer is kept, in bytes.
const KEPT: usize = 16 * 1024;

/// What an answer is looked through for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The JSON pointer at which the target tells its own id of what it made.
    pub id: Option<String>,
    /// A 4xx with one of these texts says that it has it already.
    pub already_exists: Vec<String>,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This.
    Plainly(Told),
    /// It has one already; whether it is ours is to be seen.
    Exists {
        /// The status that says so.
        status: u16,
        /// The id of it, if it was told.
        remote_id: Option<String>,
    },
}

impl Expected {
    /// What an answer says.
    pub(super) fn read(&self, answer: &fetch::Answer) -> Said {
        let status = answer.status.as_u16();
        let error = format!("answered {status}");
        let not_now =
            |counts| Told::NotNow { error: error.clone(), retry_after: answer.retry_after, counts };
        Said::Plainly(match status {
            200..=299 => self.success(answer, &error),
            // Our credentials: nothing that this delivery could help.
            401 | 407 => not_now(false),
            408 | 425 | 429 | 503 => not_now(true),
            500.. => Told::Unknown(error),
            409 => return self.exists(answer),
            400..=499 if self.says_that_it_exists(answer) => return self.exists(answer),
            _ => Told::Refused { reason: Reason::DeliveryRefused, error },
        })
    }

    fn success(&self, answer: &fetch::Answer, error: &str) -> Told {
        let Some(pointer) = &self.id else {
            return Told::Has { remote_id: None, warning: None };
        };
        match (id_at(answer, pointer), &answer.cut) {
            (Some(id), _) => Told::Has { remote_id: Some(id), warning: None },
            (None, Some(cause)) => Told::Unknown(format!("{error}, but of its body: {cause}")),
            (None, None) => Told::Unknown(format!("{error} without an id at {pointer}")),
        }
    }

    fn exists(&self, answer: &fetch::Answer) -> Said {
        let remote_id = self.id.as_ref().and_then(|pointer| id_at(answer, pointer));
        Said::Exists { status: answer.status.as_u16(), remote_id }
    }

    fn says_that_it_exists(&self, answer: &fetch::Answer) -> bool {
        let body = String::from_utf8_lossy(&answer.body).to_lowercase();
        self.already_exists.iter().any(|text| body.contains(&text.to_lowercase()))
    }
}

/// What it means that no answer came.
pub(super) fn lost(error: FetchError) -> Told {
    let may_have_arrived = error.may_have_arrived();
    let error = format!("{:#}", anyhow::Error::from(error));
    if may_have_arrived {
        Told::Unknown(error)
    } else {
        Told::NotNow { error, retry_after: None, counts: false }
    }
}

/// An answer as it is kept.
pub(super) fn kept(answer: &fetch::Answer) -> Answer {
    let mut body = String::from_utf8_lossy(&answer.body).replace('\0', "\u{fffd}");
    body.truncate(body.floor_char_boundary(KEPT));
    Answer { status: Some(answer.status.as_u16()), body }
}

fn id_at(answer: &fetch::Answer, pointer: &str) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    id(body.pointer(pointer)?)
}

/// An id: a text, or a whole number.
pub(super) fn id(value: &Value) -> Option<String> {
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
