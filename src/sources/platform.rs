//! The interface of a platform.

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

/// How the requests of a source are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseStyle {
    /// 200 with an empty body; rejections as problem documents (RFC 9457).
    #[default]
    ProblemJson,
    /// Status codes without a body: the platform treats any body as an error.
    StatusOnly,
    /// JSON, for senders that read the response; see [`Platform::success_body`].
    Callback,
}

/// The redelivery window of senders that do not document one: 30 days, as long as the
/// longest documented one.
pub const DEFAULT_REDELIVERY_WINDOW: Duration = Duration::from_hours(30 * 24);

/// The rules of one platform.
pub trait Platform: Send + Sync {
    /// The value of `kind` in the configuration.
    fn kind(&self) -> &'static str;

    /// Whether a redelivery repeats the same bytes. If so, other bytes under a known key
    /// are a conflict that an operator must review.
    fn redelivers_identical_body(&self) -> bool;

    /// How long after an event it may be redelivered under the same key, by the platform or
    /// by a person there. The inbox remembers keys for longer.
    fn redelivery_window(&self) -> Duration;

    /// Whether this unsigned request is the platform's test of the URL.
    fn is_ping(&self, _call: &WebhookRequest<'_>) -> bool {
        false
    }

    /// Decodes the text of a secret; by default the bytes of the text.
    ///
    /// # Errors
    /// What is wrong with the text, without repeating it.
    fn parse_key(&self, text: &str) -> Result<Key, String> {
        Ok(Key::shared(text))
    }

    /// Whether bodies of this media type are accepted. It is in lower case, without
    /// parameters, and empty if the request has none.
    fn accepts_media_type(&self, media_type: &str) -> bool {
        matches!(media_type, "" | "application/json") || media_type.ends_with("+json")
    }

    /// How requests are answered.
    fn response_style(&self) -> ResponseStyle {
        ResponseStyle::ProblemJson
    }

    /// What to do if an invoice number arrives again with another transaction.
    fn invoice_conflict(&self) -> InvoiceConflict {
        InvoiceConflict::Update
    }

    /// The body of the 200 response to an event, if the sender expects one; always the same
    /// bytes for the same event.
    fn success_body(&self, _source: &SourceName, _event: &Event) -> Option<Bytes> {
        None
    }

    /// The response headers to an OPTIONS request with which the platform asks for
    /// permission to send.
    fn handshake(&self, _headers: &HeaderMap) -> Option<HeaderMap> {
        None
    }

    /// The index of the secret that signed the request.
    ///
    /// # Errors
    /// [`Rejection::InvalidSignature`] if there is none, or no signature.
    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection>;

    /// Extracts the events of an authentic request.
    ///
    /// An unreadable body is not rejected, because a shop gives up after a 4xx. It becomes
    /// an event that the worker dead-letters.
    ///
    /// # Errors
    /// [`Rejection`] if a header is missing that every request has.
    fn extract_events(&self, request: &Verified<'_>) -> Result<Vec<Event>, Rejection>;

    /// The CSV dialect, if the platform accepts imports.
    fn csv_dialect(&self) -> Option<&CsvDialect> {
        None
    }

    /// Extracts the event of one item of a file. `request` is the upload with the item as
    /// its body and the start of the import as its time; `line` orders the items.
    ///
    /// # Errors
    /// One failure per invalid field.
    fn import_event(
        &self,
        _call: &WebhookRequest<'_>,
        _format: ImportFormat,
        _line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        Err(vec![PermanentFailure::new(ReasonCode::InvalidValue, "this source accepts no files")])
    }

    /// Maps an event to the change that it makes.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the invalid field if the event can never be applied.
    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure>;

    /// The [document id](crate::domain::Invoice::document_id) under which a resource is
    /// stored as an invoice, if it is one.
    fn document_id(&self, _reference: &ResourceChange) -> Option<String> {
        None
    }

    /// Maps a fetched resource of a thin event to the change that it makes. `None` if its
    /// kind is not mapped.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the invalid field if the event can never be applied.
    fn map_resource(
        &self,
        _reference: &ResourceChange,
        _envelope: &Envelope,
        _resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        Ok(None)
    }

    /// The document's business number, if it can be read even if the event cannot be
    /// mapped: dead letters are searched by it.
    fn business_key(&self, envelope: &Envelope) -> Option<String>;

    /// Where the tenant is named, for error messages.
    fn tenant_location(&self) -> &'static str;

    /// Where the tenant of an imported item is named, for error messages.
    fn import_tenant_location(&self) -> String {
        self.tenant_location().to_owned()
    }

    /// The headers with which the platform would send this webhook, for `tallyhook send`
    /// and tests.
    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)>;
}

/// When two events conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConflictPolicy {
    /// Whether other bytes under a known event key are a conflict.
    pub redelivers_identical_body: bool,
    /// What to do if an invoice number arrives again with another transaction.
    pub invoice_conflict: InvoiceConflict,
}

/// A webhook to be sent as the platform would send it.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingWebhook<'a> {
    /// The event type.
    pub topic: &'a str,
    /// The tenant that sends it.
    pub tenant: &'a str,
    /// The event id, equal on each redelivery.
    pub event_id: &'a str,
    /// When the event happened.
    pub triggered_at: OffsetDateTime,
    /// When this attempt is made; some platforms sign it.
    pub sent_at: OffsetDateTime,
    /// The body.
    pub body: &'a [u8],
}
