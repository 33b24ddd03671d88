//! Generic: any sender of JSON with a signature, token or password, configured by settings.
//! `github` is a generic source with other defaults.

mod github;
mod settings;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    authentication::Authentication,
    event_extraction::EventExtractor,
    mapping::{InvalidSettings, Mapping},
    signature::{Key, Secret, Verified},
};
use crate::domain::{Envelope, MappedEvent, PermanentFailure};
pub use settings::GenericSettings;

const FORM_MEDIA_TYPE: &str = "application/x-www-form-urlencoded";

/// A source of kind `generic` or `github`; its pointers are compiled.
pub struct Generic {
    kind: &'static str,
    authentication: Authentication,
    form_field: Option<String>,
    extractor: EventExtractor,
    mapping: Mapping,
    /// The topic of a test event, which is mapped only if it is listed by name.
    test_topic: Option<&'static str>,
    redelivers_identical_body: bool,
    redelivery_window: Duration,
}

impl Generic {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: GenericSettings) -> Result<Self, InvalidSettings> {
        let GenericSettings {
            event, form, order, invoice, refund, redelivers_identical_body, ..
        } = settings;
        let signature =
            settings.signature.map(|signature| signature.with_default_id(event.id.as_ref()));
        let authentication = Authentication::new(settings.authentication, signature)?;
        if form.as_ref().is_some_and(String::is_empty) {
            return Err(InvalidSettings::new("form", "is empty"));
        }
        let mapping = Mapping::new(order, invoice, refund)?;
        let extractor = EventExtractor::new(event, &mapping)?;
        Ok(Self {
            kind: "generic",
            authentication,
            form_field: form,
            extractor,
            mapping,
            test_topic: None,
            redelivers_identical_body,
            // Depends on the sender.
            redelivery_window: DEFAULT_REDELIVERY_WINDOW,
        })
    }

    /// The JSON in the configured field of a form; `None` if there is none.
    fn json_of_form(&self, request: &WebhookRequest<'_>) -> Option<Bytes> {
        let field = self.form_field.as_ref().filter(|_| request.media_type() == FORM_MEDIA_TYPE)?;
        // The form parser replaces invalid UTF-8. Such a body is kept unchanged and
        // dead-lettered, because replaced JSON is not what was sent.
        percent_encoding::percent_decode(request.body).decode_utf8().ok()?;
        let mut fields = form_urlencoded::parse(request.body);
        let (_, json) = fields.find(|(name, _)| name == field)?;
        Some(Bytes::from(json.into_owned()))
    }
}

impl Platform for Generic {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn parse_key(&self, text: &str) -> Result<Key, String> {
        self.authentication.parse_key(text)
    }

    fn accepts_media_type(&self, media_type: &str) -> bool {
        matches!(media_type, "" | "application/json")
            || media_type.ends_with("+json")
            || (media_type == FORM_MEDIA_TYPE && self.form_field.is_some())
    }

    fn redelivers_identical_body(&self) -> bool {
        self.redelivers_identical_body
    }

    fn redelivery_window(&self) -> Duration {
        self.redelivery_window
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(request, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let json = self.json_of_form(request).unwrap_or_else(|| request.body.clone());
        Ok(vec![self.extractor.extract(&WebhookRequest { body: &json, ..*request }, None)])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let topic = envelope.topic.as_str();
        if self.test_topic == Some(topic) && !self.mapping.lists_topic(topic) {
            return Ok(MappedEvent::Ignored);
        }
        self.extractor.map(envelope, &self.mapping)
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        self.mapping.business_key(&envelope.body)
    }

    fn tenant_location(&self) -> &'static str {
        "the configured tenant field"
    }

    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(webhook, self.extractor.event_headers(webhook), secret)
    }
}
