//! One received event on its way from the receiver to the books.

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EventKey, ImportPosition, SourceName};

/// One received event: what AMQP carries, in our words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Names this one delivery, everywhere; a UUID v7 that the receiver gave.
    pub receipt_id: Uuid,
    /// Where it came in.
    pub source: SourceName,
    /// The shop or company within the source; empty where there is only one.
    pub tenant: String,
    /// What makes two deliveries the same event.
    pub key: EventKey,
    /// What the platform says it is about, such as `orders/updated`.
    pub topic: String,
    /// The version for the stale guard as far as the headers tell it; the
    /// body's own goes before it.
    pub version: Option<OffsetDateTime>,
    /// When the receiver had read it whole.
    pub received_at: OffsetDateTime,
    /// How many attempts have failed so far.
    pub failed_attempts: u32,
    /// Raised by a re-issue; 0 for whatever comes in by itself.
    pub generation: u32,
    /// The replay run that sent it again, if one did.
    pub replay_id: Option<Uuid>,
    /// True if our receiver took it over HTTP, false for any other producer.
    pub received_over_http: bool,
    /// The label of the secret that verified the call, if one did.
    pub secret_label: Option<String>,
    /// The file that it stood in, if it came in with an import.
    pub import: Option<ImportPosition>,
    /// The raw bytes received.
    pub body: Bytes,
}
