//! Calls that hold many events: each becomes one of its own, with the bytes
//! that the call has for it.

use bytes::Bytes;

use super::{
    Event, Rejection,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
};
use crate::domain::{MappedEvent, PermanentFailure, ReasonCode};

/// No platform puts more events into one call. Each costs a publish before
/// the call is answered.
const MAX_EVENTS: usize = 1000;

/// Why a call is not divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SplitError {
    /// It holds more events than any platform sends.
    TooManyEvents,
    /// What it holds cannot be told.
    Unreadable(PermanentFailure),
}

impl From<PermanentFailure> for SplitError {
    fn from(failure: PermanentFailure) -> Self {
        Self::Unreadable(failure)
    }
}

/// The elements of a list that holds events.
///
/// # Errors
/// [`SplitError`].
pub(super) fn elements<'a>(
    whole: &JsonFields<'a>,
    pointer: &str,
    within: &'a JsonPointers,
) -> Result<Vec<JsonFields<'a>>, SplitError> {
    if whole.count(pointer)? > MAX_EVENTS {
        return Err(SplitError::TooManyEvents);
    }
    Ok(whole.list(pointer, within)?)
}

/// Refuses to gather more events than a call may hold.
///
/// # Errors
/// [`SplitError::TooManyEvents`].
pub(super) fn check_count(events: &[Event]) -> Result<(), SplitError> {
    if events.len() > MAX_EVENTS { Err(SplitError::TooManyEvents) } else { Ok(()) }
}

/// A document's own bytes within the body it was read from: no copy.
pub(super) fn body_slice(body: &Bytes, document: &JsonFields<'_>) -> Bytes {
    body.slice_ref(document.raw_json().as_bytes())
}

/// What cannot be told apart, as one event without a topic: the worker finds
/// what is wrong with it, or that there is nothing in it.
pub(super) fn whole_body_event(body: Bytes) -> Event {
    Event {
        event_id: sha256_hex(&body),
        tenant: String::new(),
        topic: String::new(),
        version: None,
        body,
    }
}

/// The events that a call is taken for.
///
/// # Errors
/// [`RejectedField::Unreadable`] if it holds too many.
pub(super) fn split_or_whole(
    body: &Bytes,
    divided: Result<Vec<Event>, SplitError>,
) -> Result<Vec<Event>, Rejection> {
    match divided {
        Ok(events) if !events.is_empty() => Ok(events),
        Ok(_) | Err(SplitError::Unreadable(_)) => Ok(vec![whole_body_event(body.clone())]),
        Err(SplitError::TooManyEvents) => Err(Rejection::Malformed(too_many_events())),
    }
}

/// What becomes of a body that should have been divided and came whole.
///
/// # Errors
/// [`PermanentFailure`], unless there is nothing in it.
pub(super) fn map_unsplit(
    divided: Result<Vec<Event>, SplitError>,
) -> Result<MappedEvent, PermanentFailure> {
    match divided {
        Ok(events) if events.is_empty() => Ok(MappedEvent::Ignored),
        // Our receiver would have divided it: another AMQP producer's.
        Ok(_) => Err(unsplit_failure()),
        Err(SplitError::Unreadable(failure)) => Err(failure),
        Err(SplitError::TooManyEvents) => {
            Err(PermanentFailure::new(ReasonCode::InvalidValue, too_many_events()))
        }
    }
}

/// A message that holds more than the one event it is for.
pub(super) fn unsplit_failure() -> PermanentFailure {
    let detail = "the message holds a whole call: each of its events must be one of its own";
    PermanentFailure::new(ReasonCode::InvalidValue, detail)
}

fn too_many_events() -> String {
    format!("the call holds more than {MAX_EVENTS} events")
}
