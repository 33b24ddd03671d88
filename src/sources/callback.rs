//! Callback: clients that post an invoice and wait for its id.
//!
//! If the response is lost, the client posts again. It must get the same response, byte for
//! byte, and there must be one invoice. So the id is derived from the body, without a
//! lookup, and the body is validated here, where the client still gets the errors.

mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, ResponseStyle,
    WebhookRequest,
    authentication::Authentication,
    invoice_payload::{INVOICE_TOPIC, InvoicePayload, InvoicePayloads},
    mapping::InvalidSettings,
    signature::{Key, Secret, Verified},
};
use crate::domain::{
    Envelope, InvoiceConflict, MappedEvent, PermanentFailure, SourceName, invoice::invoice_id,
};
pub use settings::CallbackSettings;

/// A source of kind `callback`; its pointers are compiled.
pub struct Callback {
    authentication: Authentication,
    on_conflict: InvoiceConflict,
    redelivers_identical_body: bool,
    payloads: InvoicePayloads,
}

impl Callback {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: CallbackSettings) -> Result<Self, InvalidSettings> {
        let CallbackSettings {
            authentication,
            signature,
            tenant,
            on_conflict,
            redelivers_identical_body,
            invoice,
        } = settings;
        let payloads = InvoicePayloads::new(invoice.into(), tenant)?;
        let authentication = Authentication::new(authentication, signature)?;
        Ok(Self { authentication, on_conflict, redelivers_identical_body, payloads })
    }
}

impl Platform for Callback {
    fn kind(&self) -> &'static str {
        "callback"
    }

    fn parse_key(&self, text: &str) -> Result<Key, String> {
        self.authentication.parse_key(text)
    }

    fn redelivers_identical_body(&self) -> bool {
        self.redelivers_identical_body
    }

    fn redelivery_window(&self) -> Duration {
        // Depends on the client.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn response_style(&self) -> ResponseStyle {
        ResponseStyle::Callback
    }

    fn invoice_conflict(&self) -> InvoiceConflict {
        self.on_conflict
    }

    fn success_body(&self, source: &SourceName, event: &Event) -> Option<Bytes> {
        let InvoicePayload { vendor, invoice_number, .. } = self.payloads.read(&event.body).ok()?;
        let id = invoice_id(source, &event.tenant, &vendor, &invoice_number, 0);
        let body =
            format!(r#"{{"status":"success","invoiceId":"{id}","message":"Invoice processed"}}"#);
        Some(Bytes::from(body))
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(request, secrets)
    }

    /// One invoice. What the worker would dead-letter is rejected here.
    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let (tenant, payload) =
            self.payloads.read_with_tenant(request).map_err(Rejection::InvalidFields)?;
        Ok(vec![Event {
            event_id: payload.identity(),
            tenant,
            topic: INVOICE_TOPIC.to_owned(),
            version: None,
            body: request.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        self.payloads.map(envelope)
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        self.payloads.business_key(envelope)
    }

    fn tenant_location(&self) -> &'static str {
        "the configured tenant field"
    }

    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(webhook, self.payloads.tenant_headers(webhook), secret)
    }
}
