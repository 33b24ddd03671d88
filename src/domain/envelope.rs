//! A received event, as the receiver publishes it and the worker applies it.

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EventKey, ImportPosition, SourceName};

/// The AMQP header that names the tenant. Sources name it in the failure of a
/// message that lacks it.
pub const TENANT_HEADER: &str = "x-tallyhook-tenant";

/// One received event, as an AMQP message carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Id of this receipt, in every table and log; a UUID v7 from the receiver.
    pub receipt_id: Uuid,
    /// The source that received it.
    pub source: SourceName,
    /// Tenant within the source: a shop or a company. Empty if the source has only one.
    pub tenant: String,
    /// Idempotency key of the event.
    pub key: EventKey,
    /// The platform's event type, such as `orders/updated`.
    pub topic: String,
    /// Version from the headers, for the stale check; a version in the body takes
    /// precedence.
    pub version: Option<OffsetDateTime>,
    /// When the receiver had read the whole request.
    pub received_at: OffsetDateTime,
    /// Number of failed attempts so far.
    pub failed_attempts: u32,
    /// Issue number: 0, raised by each re-issue.
    pub generation: u32,
    /// The replay that published it again, if any.
    pub replay_id: Option<Uuid>,
    /// True if our receiver accepted it over HTTP, false for messages of other AMQP
    /// producers.
    pub received_over_http: bool,
    /// Label of the secret that verified the request, if any.
    pub secret_label: Option<String>,
    /// Its position in an imported file, if it came with an import.
    pub import: Option<ImportPosition>,
    /// The raw body.
    pub body: Bytes,
}
