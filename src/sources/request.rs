//! HTTP requests of senders, the events in them, and the reasons to reject them.

use bytes::Bytes;
use http::{HeaderMap, header};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Envelope, EventKey, PermanentFailure, SourceName};

/// One HTTP request to a source.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRequest<'a> {
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The query string without the `?`; may be empty.
    pub query: &'a str,
    /// The raw body.
    pub body: &'a Bytes,
    /// When the body had been read completely.
    pub received_at: OffsetDateTime,
}

impl<'a> WebhookRequest<'a> {
    /// The trimmed value of a header; `None` if it is missing, empty or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        // Not `to_str`, which accepts only ASCII: a company may be called Müller.
        let value = std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The media type in lower case, without parameters; empty if there is none.
    pub(super) fn media_type(&self) -> String {
        let value = self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// One event of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The platform's event id if it is stable across redeliveries, else a composite that
    /// is.
    pub event_id: String,
    /// The tenant: a shop or a company. Empty if the source has only one.
    pub tenant: String,
    /// The platform's event type.
    pub topic: String,
    /// The version for the stale check, if the headers contain one.
    pub version: Option<OffsetDateTime>,
    /// The bytes to store and to map.
    pub body: Bytes,
}

impl Event {
    /// Maximum length of a topic in bytes: it becomes an AMQP short string.
    pub(super) const MAX_TOPIC_BYTES: usize = 255;
    /// Maximum length of a tenant in bytes.
    const MAX_TENANT_BYTES: usize = 2048;

    /// The envelope of the event, to be published to the source's queue.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] if the tenant or topic cannot be an AMQP property or an SQL
    /// text.
    pub fn envelope(
        self,
        source: &SourceName,
        receipt_id: Uuid,
        received_at: OffsetDateTime,
        secret: &str,
    ) -> Result<Envelope, Rejection> {
        let Self { event_id, tenant, topic, version, body } = self;
        let is_valid = |text: &str, max_bytes| text.len() <= max_bytes && !text.contains('\0');
        if !is_valid(&tenant, Self::MAX_TENANT_BYTES) || !is_valid(&topic, Self::MAX_TOPIC_BYTES) {
            return Err(Rejection::Malformed(
                "the tenant or topic is too long or contains a NUL character".to_owned(),
            ));
        }
        Ok(Envelope {
            receipt_id,
            source: source.clone(),
            key: EventKey::new(source, &tenant, &event_id, 0),
            tenant,
            topic,
            version,
            received_at,
            failed_attempts: 0,
            generation: 0,
            replay_id: None,
            received_over_http: true,
            secret_label: Some(secret.to_owned()),
            import: None,
            body,
        })
    }
}

/// The content of an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Authentic events; each must be published before the response is sent.
    Events {
        /// At least one.
        events: Vec<Event>,
        /// The label of the secret that verified the request.
        secret_label: String,
    },
    /// A platform's unsigned test of the URL; it contains no event.
    Ping,
}

/// Why a request is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The signature is missing, or no configured secret verifies it. 401.
    #[error("{0}")]
    InvalidSignature(String),
    /// The tenant is not on the allow-list: where it is named, and its name, which the
    /// response does not repeat. 401.
    #[error("the tenant that {0} names is not configured for this source")]
    UnknownTenant(&'static str, String),
    /// Something that every request must contain is missing or unreadable. 400.
    #[error("{0}")]
    Malformed(String),
    /// The source does not accept the media type of the body. 415.
    #[error("content type {0:?} is not supported; send application/json")]
    UnsupportedMediaType(String),
    /// Fields are invalid, and the sender is one that reads the response and can correct
    /// them. 422.
    #[error("{}", join_details(.0))]
    InvalidFields(Vec<PermanentFailure>),
}

fn join_details(failures: &[PermanentFailure]) -> String {
    failures.iter().map(PermanentFailure::to_string).collect::<Vec<_>>().join("; ")
}

impl Rejection {
    /// No configured secret verifies the signature.
    pub fn invalid_signature() -> Self {
        Self::InvalidSignature("no configured secret verifies this signature".to_owned())
    }

    /// Whether the request was authentic nevertheless.
    pub fn is_authentic(&self) -> bool {
        !matches!(self, Self::InvalidSignature(_))
    }
}
