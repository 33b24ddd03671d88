//! Generic: any sender of JSON with an HMAC over the body, by settings alone.

mod settings;
#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};

use super::{
    Call, Delivery, Event, Platform, Rejection,
    identity::Identity,
    mapping::{InvalidSettings, Mapping},
    signature::{BodyHmac, Encoding, Key, Secret, Verified},
};
use crate::domain::{Envelope, Failure, Mapped};
pub use settings::Settings;
use settings::{KeyEncoding, SignatureSettings};

/// A source of kind `generic`, its settings checked and its pointers compiled.
pub struct Generic {
    signature: SignatureSettings,
    repeats_same_bytes: bool,
    identity: Identity,
    mapping: Mapping,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        settings.check()?;
        let Settings { signature, event, order, invoice, refund, repeats_same_bytes } = settings;
        let mapping = Mapping::new(order, invoice, refund)?;
        let identity = Identity::new(event, &mapping)?;
        Ok(Self { signature, repeats_same_bytes, identity, mapping })
    }

    fn hmac(&self) -> BodyHmac<'_> {
        let SignatureSettings { header, prefix, algorithm, encoding, .. } = &self.signature;
        BodyHmac { header, prefix, algorithm: *algorithm, encoding: *encoding }
    }
}

impl Platform for Generic {
    fn kind(&self) -> &'static str {
        "generic"
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        let decoded = match self.signature.key {
            KeyEncoding::Utf8 => return Ok(Key::Shared(text.as_bytes().to_vec())),
            KeyEncoding::Hex => Encoding::Hex.decode(text.trim()),
            KeyEncoding::Base64 => Encoding::Base64.decode(text.trim()),
        };
        let wrong = || "the secret is not written as signature.key says".to_owned();
        decoded.map(Key::Shared).ok_or_else(wrong)
    }

    fn repeats_same_bytes(&self) -> bool {
        self.repeats_same_bytes
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.hmac().verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        Ok(vec![self.identity.event(verified.call(), None)])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        self.identity.map(envelope, &self.mapping)
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        self.mapping.number(&envelope.body)
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = self.identity.headers(delivery);
        let signature = self.hmac().sign(secret, delivery.body);
        if let (Ok(name), Ok(value)) = (self.signature.header.parse(), signature.parse()) {
            headers.push((name, value));
        }
        headers
    }
}
