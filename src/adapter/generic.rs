//! Generic: any sender of JSON that signs it or shows a token, by settings alone.

mod settings;
#[cfg(test)]
mod tests;

use http::{HeaderName, HeaderValue};

use super::{
    Call, Delivery, Event, Platform, Rejection,
    authentication::Authentication,
    digest_of,
    fields::{Fields, Pointers, parse_moment},
    mapping::{InvalidSettings, Mapping},
    selector::Selector,
    signature::{Key, Secret, Verified},
};
use crate::domain::{Envelope, Failure, Mapped};
pub use settings::{EventSettings, Settings};

/// A source of kind `generic`, its settings checked and its pointers compiled.
pub struct Generic {
    authentication: Authentication,
    event: EventSettings,
    repeats_same_bytes: bool,
    identity: Pointers,
    mapping: Mapping,
}

impl Generic {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let Settings { event, order, invoice, refund, repeats_same_bytes, .. } = settings;
        let signature = settings.signature.map(|signature| signature.or_id_from(event.id.as_ref()));
        let authentication = Authentication::new(settings.authentication, signature)?;
        let mapping = Mapping::new(order, invoice, refund)?;
        if mapping.needs_topic() && event.topic.is_none() {
            let detail = "is needed to tell the topics apart";
            return Err(InvalidSettings::new("event.topic", detail));
        }
        let EventSettings { id, topic, tenant, version } = &event;
        let identity = [id, topic, tenant, version].into_iter().flatten();
        let identity = Pointers::new(identity.filter_map(Selector::pointer));
        Ok(Self { authentication, event, repeats_same_bytes, identity, mapping })
    }
}

impl Platform for Generic {
    fn kind(&self) -> &'static str {
        "generic"
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        self.authentication.key(text)
    }

    fn repeats_same_bytes(&self) -> bool {
        self.repeats_same_bytes
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let fields = Fields::read(call.body, &self.identity).ok();
        let select = |selector: &Option<Selector>| selector.as_ref()?.select(call, fields.as_ref());
        let event = &self.event;
        Ok(vec![Event {
            event_id: select(&event.id).unwrap_or_else(|| digest_of(call.body)),
            tenant: select(&event.tenant).unwrap_or_default(),
            topic: select(&event.topic).unwrap_or_default(),
            version: select(&event.version).as_deref().and_then(parse_moment),
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let topic = self.topic(envelope)?;
        if self.mapping.maps(&topic) {
            self.check_tenant(envelope)?;
        }
        self.mapping.map(&topic, envelope, &envelope.body)
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        self.mapping.number(&envelope.body)
    }

    fn tenant_header(&self) -> &'static str {
        "the configured tenant field"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        let event = &self.event;
        let from_header = [
            (&event.id, delivery.event_id),
            (&event.topic, delivery.topic),
            (&event.tenant, delivery.tenant),
        ];
        let headers = from_header
            .into_iter()
            .filter_map(|(selector, value)| match selector {
                Some(Selector::Header(name)) => Some((name.parse().ok()?, value.parse().ok()?)),
                _ => None,
            })
            .collect();
        self.authentication.sign(delivery, headers, secret)
    }
}

impl Generic {
    /// A company that is told apart and cannot be read is nobody's order: it
    /// must not be taken for that of a company without a name.
    fn check_tenant(&self, envelope: &Envelope) -> Result<(), Failure> {
        match &self.event.tenant {
            Some(_) if !envelope.tenant.is_empty() => Ok(()),
            Some(Selector::Pointer(pointer)) => {
                Fields::read(&envelope.body, &self.identity)?.required_text(pointer)?;
                // Another AMQP producer left it out.
                Err(Failure::missing("x-tallyhook-tenant"))
            }
            Some(Selector::Header(name)) => Err(Failure::missing(format!("header:{name}"))),
            Some(Selector::Constant(_)) | None => Ok(()),
        }
    }

    /// The topic; where the envelope has none, as the body tells it, so that
    /// a body that cannot be read is never taken for a topic nobody maps.
    fn topic(&self, envelope: &Envelope) -> Result<String, Failure> {
        match &self.event.topic {
            Some(Selector::Pointer(pointer)) if envelope.topic.is_empty() => {
                let fields = Fields::read(&envelope.body, &self.identity)?;
                Ok(fields.text(pointer)?.unwrap_or_default())
            }
            _ => Ok(envelope.topic.clone()),
        }
    }
}
