//! Generic: any sender of JSON that signs it or shows a token, by settings
//! alone. Kinds that differ from it in defaults only are made of it.

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

/// A source of kind `generic`, or of one made of it, its settings checked and
/// its pointers compiled.
pub struct Generic {
    kind: &'static str,
    authentication: Authentication,
    form_field: Option<String>,
    extractor: EventExtractor,
    mapping: Mapping,
    /// The topic of a test, which is mapped only where it is listed.
    test_topic: Option<&'static str>,
    redelivers_identical_body: bool,
    redelivery_window: Duration,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: GenericSettings) -> Result<Self, InvalidSettings> {
        let GenericSettings { event, form, order, invoice, refund, repeats_same_bytes, .. } =
            settings;
        let signature =
            settings.signature.map(|signature| signature.with_default_id(event.id.as_ref()));
        let authentication = Authentication::new(settings.authentication, signature)?;
        if form.as_ref().is_some_and(String::is_empty) {
            return Err(InvalidSettings::new("form", "is empty"));
        }
        let mapping = Mapping::new(order, invoice, refund)?;
        let identity = EventExtractor::new(event, &mapping)?;
        Ok(Self {
            kind: "generic",
            authentication,
            form_field: form,
            extractor: identity,
            mapping,
            test_topic: None,
            redelivers_identical_body: repeats_same_bytes,
            // As whoever sends is written.
            redelivery_window: DEFAULT_REDELIVERY_WINDOW,
        })
    }

    /// The JSON in the call's form; `None` if the call holds no such form.
    fn json_of_form(&self, call: &WebhookRequest<'_>) -> Option<Bytes> {
        let field = self.form_field.as_ref().filter(|_| call.media_type() == FORM_MEDIA_TYPE)?;
        // The reader of forms mends what is not UTF-8. JSON that needs it is
        // not what was sent: such a body goes before a person as it is.
        percent_encoding::percent_decode(call.body).decode_utf8().ok()?;
        let mut fields = form_urlencoded::parse(call.body);
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

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.request();
        let json = self.json_of_form(call).unwrap_or_else(|| call.body.clone());
        Ok(vec![self.extractor.extract(&WebhookRequest { body: &json, ..*call }, None)])
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
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(delivery, self.extractor.event_headers(delivery), secret)
    }
}
