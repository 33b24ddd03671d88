//! The rules of one platform: what every adapter must be able to tell.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use super::{
    Event, Rejection, WebhookRequest,
    signature::{Key, Secret, Verified},
};
use crate::domain::{
    Change, CsvDialect, Envelope, ImportFormat, InvoiceConflict, MappedEvent, PermanentFailure,
    ReasonCode, ResourceChange, SourceName,
};

/// How a source's calls are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseStyle {
    /// 200 with an empty body; what is refused gets a problem (RFC 9457).
    #[default]
    ProblemJson,
    /// Nothing but status codes: the platform takes any body for a mistake.
    StatusOnly,
    /// JSON for a caller that reads its answer; see [`Platform::success_body`].
    Callback,
}

/// How long events may be sent again by whoever does not say: a month, which is
/// as long as the most patient platform that does.
pub const DEFAULT_REDELIVERY_WINDOW: Duration = Duration::from_hours(30 * 24);

/// The rules of one platform.
pub trait Platform: Send + Sync {
    /// The word after `kind =` in the configuration.
    fn kind(&self) -> &'static str;

    /// Whether a redelivery carries the same bytes, so that other bytes under
    /// a known key are a conflict that a person must see.
    fn redelivers_identical_body(&self) -> bool;

    /// How long after an event it may be sent again under the same key, by the
    /// platform itself or by a person there. Keys are remembered for longer.
    fn redelivery_window(&self) -> Duration;

    /// Whether this unsigned call is the platform's test of the address.
    fn is_ping(&self, _call: &WebhookRequest<'_>) -> bool {
        false
    }

    /// The key that a secret's text stands for; its bytes if nothing is said.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    fn parse_key(&self, text: &str) -> Result<Key, String> {
        Ok(Key::Shared(text.as_bytes().to_vec()))
    }

    /// Whether bodies of this media type (lower case, without parameters;
    /// empty if none was given) are taken.
    fn accepts_media_type(&self, media_type: &str) -> bool {
        matches!(media_type, "" | "application/json") || media_type.ends_with("+json")
    }

    /// How calls are answered.
    fn response_style(&self) -> ResponseStyle {
        ResponseStyle::ProblemJson
    }

    /// What to do with an invoice number that comes again with another
    /// transaction.
    fn invoice_conflict(&self) -> InvoiceConflict {
        InvoiceConflict::Update
    }

    /// The body of the 200 that accepts an event, where the caller wants one.
    /// The same bytes for the same event, each time.
    fn success_body(&self, _source: &SourceName, _event: &Event) -> Option<Bytes> {
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
    /// [`RejectedField::Signature`] if there is none, or no signature at all.
    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection>;

    /// Takes the events out of an authentic call.
    ///
    /// A body that cannot be understood is no reason to refuse: a shop would
    /// give up on a 4xx. It becomes an event that the worker will bury.
    ///
    /// # Errors
    /// [`RejectedField`] if a header that every call carries is not there.
    fn extract_events(&self, call: &Verified<'_>) -> Result<Vec<Event>, Rejection>;

    /// How its CSV files are written, if it takes files of events.
    fn csv_dialect(&self) -> Option<&CsvDialect> {
        None
    }

    /// The event that an item of a file is. `call` is the one that brings the
    /// file, with the item for its body, received when the import began; `line`
    /// tells which of two items is the later.
    ///
    /// # Errors
    /// What is wrong with it, field by field.
    fn import_event(
        &self,
        _call: &WebhookRequest<'_>,
        _format: ImportFormat,
        _line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        Err(vec![PermanentFailure::new(ReasonCode::InvalidValue, "this source takes no files")])
    }

    /// What an event changes in the books.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it can never be applied; it names the field.
    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure>;

    /// Under which [document id](crate::domain::Invoice::document_id) the thing
    /// that a reference names stands among the invoices, if it ever does.
    fn document_id(&self, _reference: &ResourceChange) -> Option<String> {
        None
    }

    /// What a fetched resource changes in the books: what a thin event only
    /// named. `None` if the kind of resource is not mapped.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it can never be applied; it names the field.
    fn map_resource(
        &self,
        _reference: &ResourceChange,
        _envelope: &Envelope,
        _resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        Ok(None)
    }

    /// The number that people know the document by, where it can be read even
    /// though the event cannot be mapped: dead letters are searched by it.
    fn business_key(&self, envelope: &Envelope) -> Option<String>;

    /// The header that names the tenant, for messages to people.
    fn tenant_location(&self) -> &'static str;

    /// What names the tenant of a file's item, for messages to people.
    fn import_tenant_location(&self) -> String {
        self.tenant_location().to_owned()
    }

    /// The headers with which the platform would send this: for
    /// `tallyhook send` and for tests.
    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)>;
}

/// What is a conflict of two events, and what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictPolicy {
    /// Whether other bytes under a known key are a conflict.
    pub redelivers_identical_body: bool,
    /// What to do with an invoice number that comes again with another
    /// transaction.
    pub invoice_conflict: InvoiceConflict,
}

/// A webhook to be sent as the platform would send it.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingWebhook<'a> {
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
