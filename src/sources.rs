//! Sources: the systems that send webhooks, one file per platform.
//!
//! A source is used twice. The receiver calls [`Source::receive`], which verifies an HTTP
//! request and extracts its events. The worker calls [`Source::map`], which maps an event
//! to a change. A source does no I/O and reads no clock.

pub mod authentication;
pub mod callback;
pub mod cloudevents;
pub mod event_extraction;
pub mod file_import;
pub mod generic;
mod invoice_payload;
pub mod json_fields;
pub mod mapping;
mod multi_event;
mod platform;
pub mod quickbooks;
mod request;
pub mod selector;
pub mod shopify;
pub mod signature;
pub mod square;
pub mod standard_webhooks;
pub mod stored_headers;
pub mod stripe;
mod thin_event;
pub mod timestamp;
pub mod woocommerce;
pub mod xero;

#[cfg(test)]
mod conformance;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use crate::domain::{
    Change, CsvDialect, DeletedInvoice, Envelope, ImportFormat, MappedEvent, PermanentFailure,
    ResourceChange, SourceName, TENANT_HEADER,
};
use json_fields::{JsonFields, JsonPointers};
pub use platform::{
    ConflictPolicy, DEFAULT_REDELIVERY_WINDOW, OutgoingWebhook, Platform, ResponseStyle,
};
pub use request::{Event, Received, Rejection, WebhookRequest};
use signature::{Secret, Verified};

/// Prefix of topic and id of an event whose tenant is not on the allow-list, in a request
/// that also holds events of allowed tenants.
pub const FOREIGN_TENANT_PREFIX: &str = "foreign:";

/// A configured source: the platform's rules with the source's secrets and tenants.
pub struct Source {
    platform: Box<dyn Platform>,
    secrets: Vec<Secret>,
    tenants: Vec<String>,
    quarantine_limit: u32,
}

impl Source {
    /// A source with these secrets and allowed tenants. An empty list allows every tenant.
    pub fn new(platform: Box<dyn Platform>, secrets: Vec<Secret>, tenants: Vec<String>) -> Self {
        Self { platform, secrets, tenants, quarantine_limit: 0 }
    }

    /// Sets how many of the newest requests with an invalid signature are quarantined.
    #[must_use]
    pub fn with_quarantine_limit(self, quarantine_limit: u32) -> Self {
        Self { quarantine_limit, ..self }
    }

    /// How many requests with an invalid signature are quarantined; 0 for none.
    pub fn quarantine_limit(&self) -> u32 {
        self.quarantine_limit
    }

    /// The value of `kind` in the configuration.
    pub fn kind(&self) -> &'static str {
        self.platform.kind()
    }

    /// How long after an event its platform may redeliver it.
    pub fn redelivery_window(&self) -> Duration {
        self.platform.redelivery_window()
    }

    /// The allowed tenants; empty if all are allowed.
    pub fn tenants(&self) -> &[String] {
        &self.tenants
    }

    /// Authenticates a request and extracts its events.
    ///
    /// A request is rejected if all its events are of tenants that the allow-list lacks. If
    /// only some are, these get a `foreign:` topic and change nothing.
    ///
    /// The body is not parsed before a secret has verified it, except for a platform's
    /// unsigned ping.
    ///
    /// # Errors
    /// [`Rejection`], which determines the response.
    pub fn receive(&self, request: &WebhookRequest<'_>) -> Result<Received, Rejection> {
        if self.platform.is_ping(request) {
            return Ok(Received::Ping);
        }
        let verified = Verified::check(self.platform.as_ref(), request, &self.secrets)?;
        let media_type = request.media_type();
        if !self.platform.accepts_media_type(&media_type) {
            return Err(Rejection::UnsupportedMediaType(media_type));
        }
        let mut events = self.platform.extract_events(&verified)?;
        let allowed = |event: &Event| {
            self.tenants.is_empty()
                // An unreadable tenant becomes a dead letter; it is not rejected.
                || event.tenant.is_empty()
                || self.tenants.contains(&event.tenant)
        };
        if let Some(event) = events.first().filter(|_| !events.iter().any(allowed)) {
            return Err(Rejection::UnknownTenant(
                self.platform.tenant_location(),
                event.tenant.clone(),
            ));
        }
        // A request may hold events of several companies. Rejecting it would delay the
        // allowed ones, because the sender would repeat the whole request. So the others
        // are recorded and not applied.
        for event in events.iter_mut().filter(|event| !allowed(event)) {
            // The prefix makes it a different event from the one that arrives after the
            // tenant was allowed.
            event.event_id.insert_str(0, FOREIGN_TENANT_PREFIX);
            event.topic.insert_str(0, FOREIGN_TENANT_PREFIX);
            // Such an event changes nothing, so a long topic may be truncated. It must not
            // cause a rejection of the whole request.
            let end = event.topic.floor_char_boundary(Event::MAX_TOPIC_BYTES);
            event.topic.truncate(end);
        }
        Ok(Received::Events { events, secret_label: verified.secret().label().to_owned() })
    }

    /// Whether the source accepts imports of files.
    pub fn accepts_imports(&self) -> bool {
        self.csv_dialect().is_some()
    }

    /// The CSV dialect, if the source accepts files.
    pub fn csv_dialect(&self) -> Option<&CsvDialect> {
        self.platform.csv_dialect()
    }

    /// Authenticates an upload by its headers alone, before its file is read. Returns the
    /// label of the secret that verified it.
    ///
    /// # Errors
    /// [`Rejection::InvalidSignature`]; also if the source accepts no files, because its
    /// requests are verified with their bodies.
    pub fn authenticate_upload(&self, request: &WebhookRequest<'_>) -> Result<String, Rejection> {
        if !self.accepts_imports() {
            return Err(Rejection::InvalidSignature("this source accepts no files".to_owned()));
        }
        let unread = WebhookRequest { body: &Bytes::new(), ..*request };
        let verified = Verified::check(self.platform.as_ref(), &unread, &self.secrets)?;
        Ok(verified.secret().label().to_owned())
    }

    /// Extracts the event of one item of an authenticated upload. `request` is the upload
    /// with the item as its body and the start of the import as its time.
    ///
    /// # Errors
    /// One failure per invalid field.
    pub fn import_event(
        &self,
        request: &WebhookRequest<'_>,
        format: ImportFormat,
        line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        let event = self.platform.import_event(request, format, line)?;
        if !self.tenants.is_empty() && !self.tenants.contains(&event.tenant) {
            let detail = "names a tenant that is not configured for this source";
            return Err(vec![PermanentFailure::invalid(
                self.platform.import_tenant_location(),
                detail,
            )]);
        }
        Ok(event)
    }

    /// The headers with which [`Source::authenticate_upload`] accepts a file of this
    /// tenant.
    pub fn import_headers(
        &self,
        tenant: &str,
        sent_at: OffsetDateTime,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let triggered_at = sent_at;
        self.signed_headers(&OutgoingWebhook {
            topic: "",
            tenant,
            event_id: "",
            triggered_at,
            sent_at,
            body: b"",
        })
    }

    /// Maps an event to the change that it makes.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the event can never be applied.
    pub fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        if envelope.topic.starts_with(FOREIGN_TENANT_PREFIX) {
            return Ok(MappedEvent::Ignored);
        }
        self.platform.map(envelope)
    }

    /// The document's business number, if it can be read.
    pub fn business_key(&self, envelope: &Envelope) -> Option<String> {
        self.platform.business_key(envelope)
    }

    /// The tombstone of a document that the platform deleted.
    pub fn deletion_change(&self, change: &ResourceChange) -> Option<Change> {
        let document_id = self.platform.document_id(change).filter(|_| change.is_deletion())?;
        let deleted = DeletedInvoice { document_id, deleted_at: change.changed_at };
        Some(Change::InvoiceDeleted(Box::new(deleted)))
    }

    /// Maps a fetched resource to the change that it makes, if its kind is mapped.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the event can never be applied.
    pub fn map_resource(
        &self,
        change: &ResourceChange,
        envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        self.platform.map_resource(change, envelope, resource)
    }

    /// When two events conflict.
    pub fn conflict_policy(&self) -> ConflictPolicy {
        ConflictPolicy {
            redelivers_identical_body: self.platform.redelivers_identical_body(),
            invoice_conflict: self.platform.invoice_conflict(),
        }
    }

    /// How requests are answered.
    pub fn response_style(&self) -> ResponseStyle {
        self.platform.response_style()
    }

    /// The body of the 200 response to an event, if the sender expects one.
    pub fn success_body(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        self.platform.success_body(source, event)
    }

    /// The response headers to a platform's validation request (OPTIONS).
    pub fn handshake(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.platform.handshake(headers)
    }

    /// The labels of the secrets, in configured order.
    pub fn secret_labels(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(Secret::label)
    }

    /// The headers with which the platform would send this webhook, signed with the first
    /// secret.
    pub fn signed_headers(&self, webhook: &OutgoingWebhook<'_>) -> Vec<(HeaderName, HeaderValue)> {
        self.secrets
            .first()
            .map_or_else(Vec::new, |secret| self.platform.signed_headers(webhook, secret))
    }
}

/// The first text at one of these pointers, which must be among the compiled ones.
fn first_text(body: &[u8], compiled: &JsonPointers, pointers: &[&str]) -> Option<String> {
    let fields = JsonFields::read(body, compiled).ok()?;
    pointers.iter().find_map(|pointer| fields.optional_text(pointer))
}

/// Builds headers; invalid values are omitted.
fn header_pairs<const N: usize>(
    headers: [(&'static str, String); N],
) -> Vec<(HeaderName, HeaderValue)> {
    headers
        .into_iter()
        .filter_map(|(name, value)| Some((HeaderName::from_static(name), value.parse().ok()?)))
        .collect()
}

/// The topic, or an empty one if it is too long for AMQP together with
/// [`FOREIGN_TENANT_PREFIX`]; then the worker reads it from the body.
fn bounded_topic(topic: Option<String>) -> String {
    topic.filter(|topic| topic.len() <= 200).unwrap_or_default()
}

/// Fails if the envelope has no tenant, for platforms whose events always name one. An
/// unreadable tenant must not become the tenant with an empty name.
fn require_tenant(
    envelope: &Envelope,
    fields: &JsonFields<'_>,
    pointer: &str,
) -> Result<(), PermanentFailure> {
    if !envelope.tenant.is_empty() {
        return Ok(());
    }
    fields.required_text(pointer)?;
    // The body names it, so another AMQP producer omitted the header.
    Err(PermanentFailure::missing(TENANT_HEADER))
}

/// The SHA-256 of a body in hexadecimal: the event id if there is no other.
fn sha256_hex(body: &[u8]) -> String {
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body))
}
