//! Splits requests with several events. Each event gets the bytes that the request has for
//! it.

use bytes::Bytes;

use super::{
    Event, Rejection,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
};
use crate::domain::{MappedEvent, PermanentFailure, ReasonCode};

/// Maximum number of events in a request. No platform sends more, and each costs a publish
/// before the response.
const MAX_EVENTS: usize = 1000;

/// Why a request cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SplitError {
    /// It holds more than [`MAX_EVENTS`] events.
    TooManyEvents,
    /// Its events cannot be read.
    Unreadable(PermanentFailure),
}

impl From<PermanentFailure> for SplitError {
    fn from(failure: PermanentFailure) -> Self {
        Self::Unreadable(failure)
    }
}

/// The elements of a list of events.
///
/// # Errors
/// [`SplitError`] if the list is unreadable or too long.
pub(super) fn elements<'a>(
    fields: &JsonFields<'a>,
    pointer: &str,
    within: &'a JsonPointers,
) -> Result<Vec<JsonFields<'a>>, SplitError> {
    if fields.count(pointer)? > MAX_EVENTS {
        return Err(SplitError::TooManyEvents);
    }
    Ok(fields.list(pointer, within)?)
}

/// Fails if there are more events than a request may hold.
///
/// # Errors
/// [`SplitError`] if the list is unreadable or too long.
pub(super) fn check_count(events: &[Event]) -> Result<(), SplitError> {
    if events.len() > MAX_EVENTS { Err(SplitError::TooManyEvents) } else { Ok(()) }
}

/// The bytes of a document within the body it was read from; no copy.
pub(super) fn body_slice(body: &Bytes, document: &JsonFields<'_>) -> Bytes {
    body.slice_ref(document.raw_json().as_bytes())
}

/// The whole body as one event without a topic. The worker reports what is wrong with it,
/// or ignores it if it holds nothing.
pub(super) fn whole_body_event(body: Bytes) -> Event {
    Event {
        event_id: sha256_hex(&body),
        tenant: String::new(),
        topic: String::new(),
        version: None,
        body,
    }
}

/// The events of a request; the whole body as one event if it cannot be split.
///
/// # Errors
/// [`Rejection::Malformed`] if there are too many.
pub(super) fn split_or_whole(
    body: &Bytes,
    split: Result<Vec<Event>, SplitError>,
) -> Result<Vec<Event>, Rejection> {
    match split {
        Ok(events) if !events.is_empty() => Ok(events),
        Ok(_) | Err(SplitError::Unreadable(_)) => Ok(vec![whole_body_event(body.clone())]),
        Err(SplitError::TooManyEvents) => Err(Rejection::Malformed(too_many_events())),
    }
}

/// Maps a message that holds a whole request.
///
/// # Errors
/// [`PermanentFailure`], unless the request holds no events.
pub(super) fn map_unsplit(
    split: Result<Vec<Event>, SplitError>,
) -> Result<MappedEvent, PermanentFailure> {
    match split {
        Ok(events) if events.is_empty() => Ok(MappedEvent::Ignored),
        // Our receiver would have split it, so another AMQP producer sent it.
        Ok(_) => Err(unsplit_failure()),
        Err(SplitError::Unreadable(failure)) => Err(failure),
        Err(SplitError::TooManyEvents) => {
            Err(PermanentFailure::new(ReasonCode::InvalidValue, too_many_events()))
        }
    }
}

/// The failure of a message that holds a whole request instead of one event.
pub(super) fn unsplit_failure() -> PermanentFailure {
    let detail = "the message holds a whole request; each event must be a separate message";
    PermanentFailure::new(ReasonCode::InvalidValue, detail)
}

fn too_many_events() -> String {
    format!("the request holds more than {MAX_EVENTS} events")
}
