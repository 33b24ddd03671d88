//! Adapters: what each platform's webhooks look like, one file a platform.
//!
//! An adapter is asked twice. In the receiver it turns an HTTP call into
//! verified events ([`Adapter::receive`]); in the worker it maps an event to
//! a change of the books ([`Adapter::map`]). It does no input or output and
//! reads no clock.

pub mod authentication;
mod batch;
pub mod callback;
pub mod cloudevents;
pub mod fields;
pub mod generic;
pub mod identity;
pub mod kept;
pub mod mapping;
pub mod moment;
pub mod quickbooks;
pub mod selector;
pub mod shopify;
pub mod signature;
pub mod square;
pub mod standard_webhooks;
pub mod stripe;
pub mod woocommerce;
pub mod xero;

#[cfg(test)]
mod conformance;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    Change, DeletedInvoice, Envelope, EventKey, Failure, InvoiceConflict, Mapped, Reference,
    SourceName,
};
use signature::{Key, Secret, Verified};

/// Stands before the topic and the id of an event whose tenant is not on the
/// source's allow-list, in a call that also holds others.
pub const FOREIGN: &str = "foreign:";

/// One HTTP call as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// All its headers.
    pub headers: &'a HeaderMap,
    /// What stands behind the `?` of its address; empty if nothing does.
    pub query: &'a str,
    /// The raw bytes of its body.
    pub body: &'a Bytes,
    /// When the body had been read whole.
    pub received_at: OffsetDateTime,
}

impl<'a> Call<'a> {
    /// A header's value, if it is there, readable and not empty.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        // Not `to_str`, which knows ASCII only: a company may be called Müller.
        let value = std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()?.trim();
        (!value.is_empty()).then_some(value)
    }

    /// The media type without its parameters, lower case; empty if none is given.
    fn media_type(&self) -> String {
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
    const LONGEST_TOPIC: usize = 255;
    /// The longest tenant, in bytes.
    const LONGEST_TENANT: usize = 2048;

    /// The event as it goes to its source's queue.
    ///
    /// # Errors
    /// [`Rejection::Unreadable`] if its tenant or topic can be neither an AMQP
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
        if !legal(&tenant, Self::LONGEST_TENANT) || !legal(&topic, Self::LONGEST_TOPIC) {
            return Err(Rejection::Unreadable(
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
            attempt: 0,
            generation: 0,
            replay: None,
            over_http: true,
            secret: Some(secret.to_owned()),
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
        secret: String,
    },
    /// A platform's test of the address: answered, kept nowhere.
    Ping,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No configured secret made the signature, or there is none. 401.
    #[error("{0}")]
    Signature(String),
    /// The tenant it claims is not one of the source's: what names it, and
    /// its name, which the answer does not repeat. 401.
    #[error("the tenant that {0} names is not configured for this source")]
    Tenant(&'static str, String),
    /// Something that every call must carry is missing or unreadable. 400.
    #[error("{0}")]
    Unreadable(String),
    /// The body is of a media type that the source does not take. 415.
    #[error("content type {0:?} is not taken here; send application/json")]
    ContentType(String),
    /// Fields that must be right for the caller to get its answer are not.
    /// 422, for sources that answer callers who can mend it.
    #[error("{}", told(.0))]
    Invalid(Vec<Failure>),
}

fn told(failures: &[Failure]) -> String {
    failures.iter().map(Failure::to_string).collect::<Vec<_>>().join("; ")
}

impl Rejection {
    /// A signature that none of the secrets made.
    pub fn forged() -> Self {
        Self::Signature("no configured secret made this signature".to_owned())
    }

    /// Whether the call was authentic all the same.
    pub fn is_authentic(&self) -> bool {
        !matches!(self, Self::Signature(_))
    }
}

/// How a source's calls are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    /// 200 with an empty body; what is refused gets a problem (RFC 9457).
    #[default]
    Problems,
    /// Nothing but status codes: the platform takes any body for a mistake.
    Bare,
    /// JSON for a caller that reads its answer; see [`Platform::acceptance`].
    Callback,
}

/// The rules of one platform.
pub trait Platform: Send + Sync {
    /// The word after `kind =` in the configuration.
    fn kind(&self) -> &'static str;

    /// Whether a redelivery carries the same bytes, so that other bytes under
    /// a known key are a conflict that a person must see.
    fn repeats_same_bytes(&self) -> bool;

    /// Whether this unsigned call is the platform's test of the address.
    fn is_ping(&self, _call: &Call<'_>) -> bool {
        false
    }

    /// The key that a secret's text stands for; its bytes if nothing is said.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    fn key(&self, text: &str) -> Result<Key, String> {
        Ok(Key::Shared(text.as_bytes().to_vec()))
    }

    /// Whether bodies of this media type (lower case, without parameters;
    /// empty if none was given) are taken.
    fn takes(&self, media_type: &str) -> bool {
        matches!(media_type, "" | "application/json") || media_type.ends_with("+json")
    }

    /// How calls are answered.
    fn answers(&self) -> Answers {
        Answers::Problems
    }

    /// What to do with an invoice number that comes again with another
    /// transaction.
    fn invoice_conflict(&self) -> InvoiceConflict {
        InvoiceConflict::Update
    }

    /// The body of the 200 that accepts an event, where the caller wants one.
    /// The same bytes for the same event, each time.
    fn acceptance(&self, _source: &SourceName, _event: &Event) -> Option<Bytes> {
        None
    }

    /// The headers that answer an OPTIONS request with which the platform
    /// asks for leave to send, if it is one that does.
    fn handshake(&self, _headers: &HeaderMap) -> Option<HeaderMap> {
        None
    }

    /// Finds the secret that signed the call; its index.
    ///
    /// # Errors
    /// [`Rejection::Signature`] if there is none, or no signature at all.
    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection>;

    /// Takes the events out of an authentic call.
    ///
    /// A body that cannot be understood is no reason to refuse: a shop would
    /// give up on a 4xx. It becomes an event that the worker will bury.
    ///
    /// # Errors
    /// [`Rejection`] if a header that every call carries is not there.
    fn events(&self, call: &Verified<'_>) -> Result<Vec<Event>, Rejection>;

    /// What an event changes in the books.
    ///
    /// # Errors
    /// [`Failure`] if it can never be applied; it names the field.
    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure>;

    /// Under which [document id](crate::domain::Invoice::document_id) the thing
    /// that a reference names stands among the invoices, if it ever does.
    fn document_id(&self, _reference: &Reference) -> Option<String> {
        None
    }

    /// What a fetched resource changes in the books: what a thin event only
    /// named. `None` if the kind of resource is not mapped.
    ///
    /// # Errors
    /// [`Failure`] if it can never be applied; it names the field.
    fn map_resource(
        &self,
        _reference: &Reference,
        _envelope: &Envelope,
        _resource: &[u8],
    ) -> Result<Option<Change>, Failure> {
        Ok(None)
    }

    /// The number that people know the document by, where it can be read even
    /// though the event cannot be mapped: dead letters are searched by it.
    fn number(&self, envelope: &Envelope) -> Option<String>;

    /// The header that names the tenant, for messages to people.
    fn tenant_header(&self) -> &'static str;

    /// The headers with which the platform would send this: for
    /// `tallyhook send` and for tests.
    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)>;
}

/// What is a conflict of two events, and what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether other bytes under a known key are a conflict.
    pub repeats_same_bytes: bool,
    /// What to do with an invoice number that comes again with another
    /// transaction.
    pub invoice_conflict: InvoiceConflict,
}

/// A webhook to be sent as the platform would send it.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// What it is about.
    pub topic: &'a str,
    /// The shop that sends it.
    pub tenant: &'a str,
    /// The id of the event; the same on each redelivery.
    pub event_id: &'a str,
    /// When it happened.
    pub triggered_at: OffsetDateTime,
    /// When this attempt is made: what a platform that signs the time signs.
    pub sent_at: OffsetDateTime,
    /// The body.
    pub body: &'a [u8],
}

/// A configured source's adapter: the platform's rules with the source's own
/// secrets and tenants.
pub struct Adapter {
    platform: Box<dyn Platform>,
    secrets: Vec<Secret>,
    tenants: Vec<String>,
    quarantine: u32,
}

impl Adapter {
    /// Binds the platform's rules to a source.
    ///
    /// `tenants` is the allow-list; empty lets every tenant in.
    pub fn new(platform: Box<dyn Platform>, secrets: Vec<Secret>, tenants: Vec<String>) -> Self {
        Self { platform, secrets, tenants, quarantine: 0 }
    }

    /// Has the newest so many forged calls kept, for a secret to be mended.
    #[must_use]
    pub fn with_quarantine(self, calls: u32) -> Self {
        Self { quarantine: calls, ..self }
    }

    /// How many forged calls are kept; 0 if none is.
    pub fn quarantine(&self) -> u32 {
        self.quarantine
    }

    /// The word after `kind =` in the configuration.
    pub fn kind(&self) -> &'static str {
        self.platform.kind()
    }

    /// The tenants that are let in; empty if all are.
    pub fn tenants(&self) -> &[String] {
        &self.tenants
    }

    /// Authenticates a call and takes its events out.
    ///
    /// A call is refused if all its events are of tenants that the allow-list
    /// does not know. If only some are, those come as `foreign:` topics,
    /// which change nothing.
    ///
    /// Nothing of the body is parsed before a secret has verified it, but for
    /// the platform's own unsigned ping.
    ///
    /// # Errors
    /// [`Rejection`]: what to answer instead.
    pub fn receive(&self, call: &Call<'_>) -> Result<Received, Rejection> {
        if self.platform.is_ping(call) {
            return Ok(Received::Ping);
        }
        let verified = Verified::check(self.platform.as_ref(), call, &self.secrets)?;
        let media_type = call.media_type();
        if !self.platform.takes(&media_type) {
            return Err(Rejection::ContentType(media_type));
        }
        let mut events = self.platform.events(&verified)?;
        let allowed = |event: &Event| {
            self.tenants.is_empty()
                // One that cannot be read goes before a person, not away.
                || event.tenant.is_empty()
                || self.tenants.contains(&event.tenant)
        };
        if let Some(event) = events.first().filter(|_| !events.iter().any(allowed)) {
            return Err(Rejection::Tenant(self.platform.tenant_header(), event.tenant.clone()));
        }
        // A call may span companies. To refuse it for one would hold up the
        // others, whose sender repeats it whole: the foreign are kept on
        // record and out of the books.
        for event in events.iter_mut().filter(|event| !allowed(event)) {
            // Another event than the one it is once its tenant is let in.
            event.event_id.insert_str(0, FOREIGN);
            event.topic.insert_str(0, FOREIGN);
            // It changes nothing, so its topic may lose its end: a long one
            // must not have the whole call refused.
            let end = event.topic.floor_char_boundary(Event::LONGEST_TOPIC);
            event.topic.truncate(end);
        }
        Ok(Received::Events { events, secret: verified.secret().label().to_owned() })
    }

    /// What an event changes in the books.
    ///
    /// # Errors
    /// [`Failure`] if it can never be applied.
    pub fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        if envelope.topic.starts_with(FOREIGN) {
            return Ok(Mapped::Ignored);
        }
        self.platform.map(envelope)
    }

    /// The number that people know the document by, if it can be read.
    pub fn number(&self, envelope: &Envelope) -> Option<String> {
        self.platform.number(envelope)
    }

    /// What a reference changes beside itself: a document that is gone at the
    /// platform leaves a tombstone.
    pub fn deletion(&self, reference: &Reference) -> Option<Change> {
        let document_id = self.platform.document_id(reference).filter(|_| reference.is_gone())?;
        let deleted = DeletedInvoice { document_id, deleted_at: reference.changed_at };
        Some(Change::InvoiceDeleted(Box::new(deleted)))
    }

    /// What a fetched resource changes in the books, if its kind is mapped.
    ///
    /// # Errors
    /// [`Failure`] if it can never be applied.
    pub fn map_resource(
        &self,
        reference: &Reference,
        envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, Failure> {
        self.platform.map_resource(reference, envelope, resource)
    }

    /// What is a conflict, and what is not.
    pub fn rules(&self) -> Rules {
        Rules {
            repeats_same_bytes: self.platform.repeats_same_bytes(),
            invoice_conflict: self.platform.invoice_conflict(),
        }
    }

    /// How calls are answered.
    pub fn answers(&self) -> Answers {
        self.platform.answers()
    }

    /// The body of the 200 that accepts an event, where the caller wants one.
    pub fn acceptance(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        self.platform.acceptance(source, event)
    }

    /// The headers that answer a platform's request for leave to send.
    pub fn handshake(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.platform.handshake(headers)
    }

    /// The labels of the secrets, in the order in which they are configured.
    pub fn secret_labels(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(Secret::label)
    }

    /// The headers with which the platform would send this, signed with the
    /// first secret.
    pub fn dress(&self, delivery: &Delivery<'_>) -> Vec<(HeaderName, HeaderValue)> {
        self.secrets.first().map_or_else(Vec::new, |secret| self.platform.dress(delivery, secret))
    }
}

/// The first of these pointers that holds a text.
fn first_text(body: &[u8], among: &fields::Pointers, pointers: &[&str]) -> Option<String> {
    let fields = fields::Fields::read(body, among).ok()?;
    pointers.iter().find_map(|pointer| fields.text(pointer).ok().flatten())
}

/// A topic that stays within what AMQP carries, also behind [`FOREIGN`]; one
/// that does not is none, and the body tells the worker.
fn topic(told: Option<String>) -> String {
    told.filter(|topic| topic.len() <= 200).unwrap_or_default()
}

/// Refuses an event of a platform whose calls all name their tenant, if this
/// one's could not be read: it must not be taken for that of a company
/// without a name.
fn check_tenant(
    envelope: &Envelope,
    fields: &fields::Fields<'_>,
    pointer: &str,
) -> Result<(), Failure> {
    if !envelope.tenant.is_empty() {
        return Ok(());
    }
    fields.required_text(pointer)?;
    // Another AMQP producer left it out.
    Err(Failure::missing("x-tallyhook-tenant"))
}

/// The SHA-256 of a body in hex: the last resort for an event id.
fn digest_of(body: &[u8]) -> String {
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body))
}
