//! Thin events: events that name a changed resource without its new state, which must be fetched.

use bytes::Bytes;
use time::OffsetDateTime;

use super::{
    Event, bounded_topic, json_fields::JsonFields, sha256_hex, timestamp::parse_timestamp,
};
use crate::domain::{Envelope, PermanentFailure};

/// The readable properties of an event. Mapping reports the unreadable ones.
#[derive(Default)]
pub(super) struct EventProperties {
    /// Default: the SHA-256 of the body.
    pub(super) id: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) time: Option<String>,
}

impl EventProperties {
    /// The event with these properties and this body.
    pub(super) fn into_event(self, body: Bytes) -> Event {
        Event {
            event_id: self.id.unwrap_or_else(|| sha256_hex(&body)),
            tenant: self.tenant.unwrap_or_default(),
            topic: bounded_topic(self.topic),
            version: self.time.as_deref().and_then(parse_timestamp),
            body,
        }
    }
}

/// An event id that consists of several texts; `None` if one of them is missing.
pub(super) fn composite_id<const N: usize>(parts: [Option<&str>; N]) -> Option<String> {
    let parts: Vec<_> = parts.into_iter().collect::<Option<_>>()?;
    Some(parts.join(":"))
}

/// The topic `kind.action` in lower case.
pub(super) fn composite_topic(kind: Option<&str>, action: Option<&str>) -> String {
    [kind, action].map(Option::unwrap_or_default).join(".").to_lowercase()
}

/// An action in lower case and in the past, as newer formats have it: `Create` is `created`.
pub(super) fn past_action(action: &str) -> String {
    let action = action.to_lowercase();
    match action.as_str() {
        "create" => "created".to_owned(),
        "update" => "updated".to_owned(),
        "delete" => "deleted".to_owned(),
        "merge" => "merged".to_owned(),
        "void" => "voided".to_owned(),
        _ => action,
    }
}

/// The time of an event: from the body, else from the headers, else the time of receipt.
///
/// # Errors
/// [`PermanentFailure`] if the body has an invalid timestamp.
pub(super) fn event_time(
    fields: &JsonFields<'_>,
    pointer: &str,
    envelope: &Envelope,
) -> Result<OffsetDateTime, PermanentFailure> {
    Ok(fields.timestamp(pointer)?.or(envelope.version).unwrap_or(envelope.received_at))
}
