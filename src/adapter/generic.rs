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
    Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    authentication::Authentication,
    identity::Identity,
    mapping::{InvalidSettings, Mapping},
    signature::{Key, Secret, Verified},
};
use crate::domain::{Envelope, Failure, Mapped};
pub use settings::Settings;

const FORM: &str = "application/x-www-form-urlencoded";

/// A source of kind `generic`, or of one made of it, its settings checked and
/// its pointers compiled.
pub struct Generic {
    kind: &'static str,
    authentication: Authentication,
    form: Option<String>,
    identity: Identity,
    mapping: Mapping,
    /// The topic of a test, which is mapped only where it is listed.
    test_topic: Option<&'static str>,
    repeats_same_bytes: bool,
    resends_for: Duration,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let Settings { event, form, order, invoice, refund, repeats_same_bytes, .. } = settings;
        let signature = settings.signature.map(|signature| signature.or_id_from(event.id.as_ref()));
        let authentication = Authentication::new(settings.authentication, signature)?;
        if form.as_ref().is_some_and(String::is_empty) {
            return Err(InvalidSettings::new("form", "is empty"));
        }
        let mapping = Mapping::new(order, invoice, refund)?;
        let identity = Identity::new(event, &mapping)?;
        Ok(Self {
            kind: "generic",
            authentication,
            form,
            identity,
            mapping,
            test_topic: None,
            repeats_same_bytes,
            // As whoever sends is written.
            resends_for: UNTOLD_RESENDS,
        })
    }

    /// The JSON in the call's form; `None` if the call holds no such form.
    fn form(&self, call: &Call<'_>) -> Option<Bytes> {
        let field = self.form.as_ref().filter(|_| call.media_type() == FORM)?;
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

    fn key(&self, text: &str) -> Result<Key, String> {
        self.authentication.key(text)
    }

    fn takes(&self, media_type: &str) -> bool {
        matches!(media_type, "" | "application/json")
            || media_type.ends_with("+json")
            || (media_type == FORM && self.form.is_some())
    }

    fn repeats_same_bytes(&self) -> bool {
        self.repeats_same_bytes
    }

    fn resends_for(&self) -> Duration {
        self.resends_for
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let json = self.form(call).unwrap_or_else(|| call.body.clone());
        Ok(vec![self.identity.event(&Call { body: &json, ..*call }, None)])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let topic = envelope.topic.as_str();
        if self.test_topic == Some(topic) && !self.mapping.names(topic) {
            return Ok(Mapped::Ignored);
        }
        self.identity.map(envelope, &self.mapping)
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        self.mapping.number(&envelope.body)
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        self.authentication.sign(delivery, self.identity.headers(delivery), secret)
    }
}
