//! Calls that hold many events: each becomes one of its own, with the bytes
//! that the call has for it.

use bytes::Bytes;

use super::{
    Event, Rejection, digest_of,
    fields::{Fields, Pointers},
};
use crate::domain::{Failure, Mapped, Reason};

/// No platform puts more events into one call. Each costs a publish before
/// the call is answered.
const MOST_EVENTS: usize = 1000;

/// Why a call is not divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undivided {
    /// It holds more events than any platform sends.
    TooMany,
    /// What it holds cannot be told.
    Unclear(Failure),
}

impl From<Failure> for Undivided {
    fn from(failure: Failure) -> Self {
        Self::Unclear(failure)
    }
}

/// The elements of a list that holds events.
///
/// # Errors
/// [`Undivided`].
pub(super) fn elements<'a>(
    whole: &Fields<'a>,
    pointer: &str,
    within: &'a Pointers,
) -> Result<Vec<Fields<'a>>, Undivided> {
    if whole.count(pointer)? > MOST_EVENTS {
        return Err(Undivided::TooMany);
    }
    Ok(whole.list(pointer, within)?)
}

/// Refuses to gather more events than a call may hold.
///
/// # Errors
/// [`Undivided::TooMany`].
pub(super) fn check_count(events: &[Event]) -> Result<(), Undivided> {
    if events.len() > MOST_EVENTS { Err(Undivided::TooMany) } else { Ok(()) }
}

/// A document's own bytes within the body it was read from: no copy.
pub(super) fn part(body: &Bytes, document: &Fields<'_>) -> Bytes {
    body.slice_ref(document.literal().as_bytes())
}

/// What cannot be told apart, as one event without a topic: the worker finds
/// what is wrong with it, or that there is nothing in it.
pub(super) fn undivided(body: Bytes) -> Event {
    Event {
        event_id: digest_of(&body),
        tenant: String::new(),
        topic: String::new(),
        version: None,
        body,
    }
}

/// The events that a call is taken for.
///
/// # Errors
/// [`Rejection::Unreadable`] if it holds too many.
pub(super) fn taken(
    body: &Bytes,
    divided: Result<Vec<Event>, Undivided>,
) -> Result<Vec<Event>, Rejection> {
    match divided {
        Ok(events) if !events.is_empty() => Ok(events),
        Ok(_) | Err(Undivided::Unclear(_)) => Ok(vec![undivided(body.clone())]),
        Err(Undivided::TooMany) => Err(Rejection::Unreadable(too_many())),
    }
}

/// What becomes of a body that should have been divided and came whole.
///
/// # Errors
/// [`Failure`], unless there is nothing in it.
pub(super) fn settled(divided: Result<Vec<Event>, Undivided>) -> Result<Mapped, Failure> {
    match divided {
        Ok(events) if events.is_empty() => Ok(Mapped::Ignored),
        // Our receiver would have divided it: another AMQP producer's.
        Ok(_) => Err(several()),
        Err(Undivided::Unclear(failure)) => Err(failure),
        Err(Undivided::TooMany) => Err(Failure::new(Reason::InvalidValue, too_many())),
    }
}

/// A message that holds more than the one event it is for.
pub(super) fn several() -> Failure {
    let detail = "the message holds a whole call: each of its events must be one of its own";
    Failure::new(Reason::InvalidValue, detail)
}

fn too_many() -> String {
    format!("the call holds more than {MOST_EVENTS} events")
}
