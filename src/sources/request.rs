//! One HTTP call, what it turns out to be, and why it is refused.

use bytes::Bytes;
use http::{HeaderMap, header};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Envelope, EventKey, PermanentFailure, SourceName};

/// One HTTP call as it came in.
#[derive(Clone, Copy, Debug)]
pub struct WebhookRequest<'a> {
    /// All its headers.
    pub headers: &'a HeaderMap,
    /// What stands behind the `?` of its address; empty if nothing does.
    pub query: &'a str,
    /// The raw bytes of its body.
    pub body: &'a Bytes,
    /// When the body had been read whole.
    pub received_at: OffsetDateTime,
}

impl<'a> WebhookRequest<'a> {
    /// A header's value, if it is there, readable and not empty.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        // Not `to_str`, which knows ASCII only: a company may be called Müller.
        let value = std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The media type without its parameters, lower case; empty if none is given.
    pub(super) fn media_type(&self) -> String {
        let value = self.header(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }
}

/// One event within a call: what the envelope needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The platform's id where it is stable across redeliveries, else a
    /// composite that is.
    pub event_id: String,
    /// The shop or company; empty where there is only one.
    pub tenant: String,
    /// What the platform says it is about.
    pub topic: String,
    /// The version for the stale guard, where the headers tell one.
    pub version: Option<OffsetDateTime>,
    /// The bytes to keep and to map.
    pub body: Bytes,
}

impl Event {
    /// The longest topic, in bytes: it becomes an AMQP short string.
    pub(super) const MAX_TOPIC_BYTES: usize = 255;
    /// The longest tenant, in bytes.
    const MAX_TENANT_BYTES: usize = 2048;

    /// The event as it goes to its source's queue.
    ///
    /// # Errors
    /// [`RejectedField::Unreadable`] if its tenant or topic can be neither an AMQP
    /// property nor an SQL text.
    pub fn envelope(
        self,
        source: &SourceName,
        receipt_id: Uuid,
        received_at: OffsetDateTime,
        secret: &str,
    ) -> Result<Envelope, Rejection> {
        let Self { event_id, tenant, topic, version, body } = self;
        let legal = |text: &str, longest| text.len() <= longest && !text.contains('\0');
        if !legal(&tenant, Self::MAX_TENANT_BYTES) || !legal(&topic, Self::MAX_TOPIC_BYTES) {
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

/// What a call turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// Authentic events, each to be made durable before the answer.
    Events {
        /// At least one.
        events: Vec<Event>,
        /// The label of the secret that verified the call.
        secret_label: String,
    },
    /// A platform's unsigned test of the address: answered, and no event.
    Ping,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No configured secret made the signature, or there is none. 401.
    #[error("{0}")]
    InvalidSignature(String),
    /// The tenant it claims is not one of the source's: what names it, and
    /// its name, which the answer does not repeat. 401.
    #[error("the tenant that {0} names is not configured for this source")]
    UnknownTenant(&'static str, String),
    /// Something that every call must carry is missing or unreadable. 400.
    #[error("{0}")]
    Malformed(String),
    /// The body is of a media type that the source does not take. 415.
    #[error("content type {0:?} is not taken here; send application/json")]
    UnsupportedMediaType(String),
    /// Fields that must be right for the caller to get its answer are not.
    /// 422, for sources that answer callers who can mend it.
    #[error("{}", join_details(.0))]
    InvalidFields(Vec<PermanentFailure>),
}

fn join_details(failures: &[PermanentFailure]) -> String {
    failures.iter().map(PermanentFailure::to_string).collect::<Vec<_>>().join("; ")
}

impl Rejection {
    /// A signature that none of the secrets made.
    pub fn invalid_signature() -> Self {
        Self::InvalidSignature("no configured secret made this signature".to_owned())
    }

    /// Whether the call was authentic all the same.
    pub fn is_authentic(&self) -> bool {
        !matches!(self, Self::InvalidSignature(_))
    }
}
