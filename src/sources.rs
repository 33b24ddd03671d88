//! Adapters: what each platform's webhooks look like, one file a platform.
//!
//! An adapter is asked twice. In the receiver it turns an HTTP call into
//! verified events ([`Source::receive_webhook`]); in the worker it maps an event to
//! a change of the books ([`Source::map`]). It does no input or output and
//! reads no clock.

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
    ResourceChange, SourceName,
};
pub use platform::{
    ConflictPolicy, DEFAULT_REDELIVERY_WINDOW, OutgoingWebhook, Platform, ResponseStyle,
};
pub use request::{Event, Received, Rejection, WebhookRequest};
use signature::{Secret, Verified};

/// Stands before the topic and the id of an event whose tenant is not on the
/// source's allow-list, in a call that also holds others.
pub const FOREIGN_TENANT_PREFIX: &str = "foreign:";

/// A configured source's adapter: the platform's rules with the source's own
/// secrets and tenants.
pub struct Source {
    platform: Box<dyn Platform>,
    secrets: Vec<Secret>,
    tenants: Vec<String>,
    quarantine_limit: u32,
}

impl Source {
    /// Binds the platform's rules to a source.
    ///
    /// `tenants` is the allow-list; empty lets every tenant in.
    pub fn new(platform: Box<dyn Platform>, secrets: Vec<Secret>, tenants: Vec<String>) -> Self {
        Self { platform, secrets, tenants, quarantine_limit: 0 }
    }

    /// Has the newest so many forged calls kept, for a secret to be mended.
    #[must_use]
    pub fn with_quarantine_limit(self, calls: u32) -> Self {
        Self { quarantine_limit: calls, ..self }
    }

    /// How many forged calls are kept; 0 if none is.
    pub fn quarantine_limit(&self) -> u32 {
        self.quarantine_limit
    }

    /// The word after `kind =` in the configuration.
    pub fn kind(&self) -> &'static str {
        self.platform.kind()
    }

    /// How long after an event its platform may send it again.
    pub fn redelivery_window(&self) -> Duration {
        self.platform.redelivery_window()
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
    /// [`RejectedField`]: what to answer instead.
    pub fn receive(&self, call: &WebhookRequest<'_>) -> Result<Received, Rejection> {
        if self.platform.is_ping(call) {
            return Ok(Received::Ping);
        }
        let verified = Verified::check(self.platform.as_ref(), call, &self.secrets)?;
        let media_type = call.media_type();
        if !self.platform.accepts_media_type(&media_type) {
            return Err(Rejection::UnsupportedMediaType(media_type));
        }
        let mut events = self.platform.extract_events(&verified)?;
        let allowed = |event: &Event| {
            self.tenants.is_empty()
                // One that cannot be read goes before a person, not away.
                || event.tenant.is_empty()
                || self.tenants.contains(&event.tenant)
        };
        if let Some(event) = events.first().filter(|_| !events.iter().any(allowed)) {
            return Err(Rejection::UnknownTenant(
                self.platform.tenant_location(),
                event.tenant.clone(),
            ));
        }
        // A call may span companies. To refuse it for one would hold up the
        // others, whose sender repeats it whole: the foreign are kept on
        // record and out of the books.
        for event in events.iter_mut().filter(|event| !allowed(event)) {
            // Another event than the one it is once its tenant is let in.
            event.event_id.insert_str(0, FOREIGN_TENANT_PREFIX);
            event.topic.insert_str(0, FOREIGN_TENANT_PREFIX);
            // It changes nothing, so its topic may lose its end: a long one
            // must not have the whole call refused.
            let end = event.topic.floor_char_boundary(Event::MAX_TOPIC_BYTES);
            event.topic.truncate(end);
        }
        Ok(Received::Events { events, secret_label: verified.secret().label().to_owned() })
    }

    /// Whether files of events can be imported here.
    pub fn accepts_imports(&self) -> bool {
        self.csv_dialect().is_some()
    }

    /// How CSV files are written, if files are taken.
    pub fn csv_dialect(&self) -> Option<&CsvDialect> {
        self.platform.csv_dialect()
    }

    /// Authenticates a call by its headers alone, before its file is read; the
    /// label of the secret that verified it.
    ///
    /// # Errors
    /// [`RejectedField::Signature`]; also if the source takes no files, whose
    /// calls are to be verified with their bodies.
    pub fn authenticate_upload(&self, call: &WebhookRequest<'_>) -> Result<String, Rejection> {
        if !self.accepts_imports() {
            return Err(Rejection::InvalidSignature("this source takes no files".to_owned()));
        }
        let unread = WebhookRequest { body: &Bytes::new(), ..*call };
        let verified = Verified::check(self.platform.as_ref(), &unread, &self.secrets)?;
        Ok(verified.secret().label().to_owned())
    }

    /// The event that an item of an admitted file is: `call` with the item for
    /// its body and the time at which the import began.
    ///
    /// # Errors
    /// What is wrong with it, field by field.
    pub fn import_event(
        &self,
        call: &WebhookRequest<'_>,
        format: ImportFormat,
        line: u32,
    ) -> Result<Event, Vec<PermanentFailure>> {
        let event = self.platform.import_event(call, format, line)?;
        if !self.tenants.is_empty() && !self.tenants.contains(&event.tenant) {
            let detail = "names a tenant that is not configured for this source";
            return Err(vec![PermanentFailure::invalid(
                self.platform.import_tenant_location(),
                detail,
            )]);
        }
        Ok(event)
    }

    /// The headers by which [`Source::admit`] lets a file of this tenant in.
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

    /// What an event changes in the books.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it can never be applied.
    pub fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        if envelope.topic.starts_with(FOREIGN_TENANT_PREFIX) {
            return Ok(MappedEvent::Ignored);
        }
        self.platform.map(envelope)
    }

    /// The number that people know the document by, if it can be read.
    pub fn business_key(&self, envelope: &Envelope) -> Option<String> {
        self.platform.business_key(envelope)
    }

    /// What a reference changes beside itself: a document that is gone at the
    /// platform leaves a tombstone.
    pub fn deletion_change(&self, reference: &ResourceChange) -> Option<Change> {
        let document_id =
            self.platform.document_id(reference).filter(|_| reference.is_deletion())?;
        let deleted = DeletedInvoice { document_id, deleted_at: reference.changed_at };
        Some(Change::InvoiceDeleted(Box::new(deleted)))
    }

    /// What a fetched resource changes in the books, if its kind is mapped.
    ///
    /// # Errors
    /// [`PermanentFailure`] if it can never be applied.
    pub fn map_resource(
        &self,
        reference: &ResourceChange,
        envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        self.platform.map_resource(reference, envelope, resource)
    }

    /// What is a conflict, and what is not.
    pub fn conflict_policy(&self) -> ConflictPolicy {
        ConflictPolicy {
            redelivers_identical_body: self.platform.redelivers_identical_body(),
            invoice_conflict: self.platform.invoice_conflict(),
        }
    }

    /// How calls are answered.
    pub fn response_style(&self) -> ResponseStyle {
        self.platform.response_style()
    }

    /// The body of the 200 that accepts an event, where the caller wants one.
    pub fn success_body(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        self.platform.success_body(source, event)
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
    pub fn signed_headers(&self, delivery: &OutgoingWebhook<'_>) -> Vec<(HeaderName, HeaderValue)> {
        self.secrets
            .first()
            .map_or_else(Vec::new, |secret| self.platform.signed_headers(delivery, secret))
    }
}

/// The first of these pointers that holds a text.
fn first_text(body: &[u8], among: &json_fields::JsonPointers, pointers: &[&str]) -> Option<String> {
    let fields = json_fields::JsonFields::read(body, among).ok()?;
    pointers.iter().find_map(|pointer| fields.text(pointer).ok().flatten())
}

/// A topic that stays within what AMQP carries, also behind [`FOREIGN_TENANT_PREFIX`]; one
/// that does not is none, and the body tells the worker.
fn bounded_topic(told: Option<String>) -> String {
    told.filter(|topic| topic.len() <= 200).unwrap_or_default()
}

/// Refuses an event of a platform whose calls all name their tenant, if this
/// one's could not be read: it must not be taken for that of a company
/// without a name.
fn require_tenant(
    envelope: &Envelope,
    fields: &json_fields::JsonFields<'_>,
    pointer: &str,
) -> Result<(), PermanentFailure> {
    if !envelope.tenant.is_empty() {
        return Ok(());
    }
    fields.required_text(pointer)?;
    // Another AMQP producer left it out.
    Err(PermanentFailure::missing("x-tallyhook-tenant"))
}

/// The SHA-256 of a body in hex: the last resort for an event id.
fn sha256_hex(body: &[u8]) -> String {
    use sha2::Digest as _;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body))
}
