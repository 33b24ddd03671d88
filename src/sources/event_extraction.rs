//! What tells a source's events apart, by settings: for every kind that
//! leaves the names of things to the sender.

use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Event, OutgoingWebhook, WebhookRequest,
    json_fields::{JsonFields, JsonPointers},
    mapping::{InvalidSettings, Mapping},
    selector::Selector,
    sha256_hex,
    timestamp::parse_timestamp,
};
use crate::domain::{Envelope, MappedEvent, PermanentFailure};

/// What tells events apart.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventSettings {
    /// The event's id, the same on each redelivery. Default: the SHA-256 of
    /// the body, which only suits senders that repeat the same bytes.
    pub id: Option<Selector>,
    /// What it is about; default: no topic, everything is mapped.
    pub topic: Option<Selector>,
    /// The shop or company; default: there is only one.
    pub tenant: Option<Selector>,
    /// The version for the stale guard.
    pub version: Option<Selector>,
}

/// The settings, their pointers compiled.
#[derive(Debug)]
pub struct EventExtractor {
    event: EventSettings,
    pointers: JsonPointers,
}

impl EventExtractor {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] if the mapping needs a topic and none is told.
    pub fn new(event: EventSettings, mapping: &Mapping) -> Result<Self, InvalidSettings> {
        if mapping.needs_topic() && event.topic.is_none() {
            let detail = "is needed to tell the topics apart";
            return Err(InvalidSettings::new("event.topic", detail));
        }
        let EventSettings { id, topic, tenant, version } = &event;
        let selectors = [id, topic, tenant, version].into_iter().flatten();
        let pointers = JsonPointers::new(selectors.filter_map(Selector::pointer));
        Ok(Self { event, pointers })
    }

    /// The event of a call; `id` goes before the setting, where the platform
    /// itself tells one.
    pub fn extract(&self, call: &WebhookRequest<'_>, id: Option<&str>) -> Event {
        let fields = JsonFields::read(call.body, &self.pointers).ok();
        let select = |selector: &Option<Selector>| selector.as_ref()?.select(call, fields.as_ref());
        let event = &self.event;
        Event {
            event_id: id
                .map(str::to_owned)
                .or_else(|| select(&event.id))
                .unwrap_or_else(|| sha256_hex(call.body)),
            tenant: select(&event.tenant).unwrap_or_default(),
            topic: select(&event.topic).unwrap_or_default(),
            version: select(&event.version).as_deref().and_then(parse_timestamp),
            body: call.body.clone(),
        }
    }

    /// What an event changes in the books, by this mapping.
    ///
    /// # Errors
    /// [`PermanentFailure`] that names the field.
    pub fn map(
        &self,
        envelope: &Envelope,
        mapping: &Mapping,
    ) -> Result<MappedEvent, PermanentFailure> {
        let topic = self.topic(envelope)?;
        if mapping.maps_topic(&topic) {
            self.require_tenant(envelope)?;
        }
        mapping.map(&topic, envelope, &envelope.body)
    }

    /// The headers that tell what is told in headers.
    pub fn event_headers(&self, delivery: &OutgoingWebhook<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let EventSettings { id, topic, tenant, .. } = &self.event;
        [(id, delivery.event_id), (topic, delivery.topic), (tenant, delivery.tenant)]
            .into_iter()
            .filter_map(|(selector, value)| match selector {
                Some(Selector::Header(name)) => Some((name.parse().ok()?, value.parse().ok()?)),
                _ => None,
            })
            .collect()
    }

    /// A company that is told apart and cannot be read is nobody's order: it
    /// must not be taken for that of a company without a name.
    ///
    /// # Errors
    /// [`PermanentFailure`] that names where it should stand.
    pub fn require_tenant(&self, envelope: &Envelope) -> Result<(), PermanentFailure> {
        match &self.event.tenant {
            Some(_) if !envelope.tenant.is_empty() => Ok(()),
            Some(Selector::Pointer(pointer)) => {
                JsonFields::read(&envelope.body, &self.pointers)?.required_text(pointer)?;
                // Another AMQP producer left it out.
                Err(PermanentFailure::missing("x-tallyhook-tenant"))
            }
            Some(Selector::Header(name)) => {
                Err(PermanentFailure::missing(format!("header:{name}")))
            }
            Some(Selector::Constant(_)) | None => Ok(()),
        }
    }

    /// The topic; where the envelope has none, as the body tells it, so that
    /// a body that cannot be read is never taken for a topic nobody maps.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the body cannot be read.
    pub fn topic(&self, envelope: &Envelope) -> Result<String, PermanentFailure> {
        match &self.event.topic {
            Some(Selector::Pointer(pointer)) if envelope.topic.is_empty() => {
                let fields = JsonFields::read(&envelope.body, &self.pointers)?;
                Ok(fields.text(pointer)?.unwrap_or_default())
            }
            _ => Ok(envelope.topic.clone()),
        }
    }
}
