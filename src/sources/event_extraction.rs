//! Extracts events by settings: for kinds of sources whose senders choose the names of
//! fields.

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
use crate::domain::{Envelope, MappedEvent, PermanentFailure, TENANT_HEADER};

/// Where the properties of an event are in a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventSettings {
    /// The event id, equal on each redelivery. Default: the SHA-256 of the body, which
    /// requires that redeliveries repeat the same bytes.
    pub id: Option<Selector>,
    /// The event type. Default: none, and every event is mapped.
    pub topic: Option<Selector>,
    /// The tenant: a shop or a company. Default: the source has only one.
    pub tenant: Option<Selector>,
    /// The version for the stale check.
    pub version: Option<Selector>,
}

/// Extracts events; the pointers of the settings are compiled.
#[derive(Debug)]
pub struct EventExtractor {
    event: EventSettings,
    pointers: JsonPointers,
}

impl EventExtractor {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] if the mapping needs a topic and the settings have none.
    pub fn new(event: EventSettings, mapping: &Mapping) -> Result<Self, InvalidSettings> {
        if mapping.needs_topic() && event.topic.is_none() {
            let detail = "is required to distinguish the topics";
            return Err(InvalidSettings::new("event.topic", detail));
        }
        let EventSettings { id, topic, tenant, version } = &event;
        let selectors = [id, topic, tenant, version].into_iter().flatten();
        let pointers = JsonPointers::new(selectors.filter_map(Selector::pointer));
        Ok(Self { event, pointers })
    }

    /// The event of a request. `id` takes precedence over the settings, for platforms that
    /// send one.
    pub fn extract(&self, request: &WebhookRequest<'_>, id: Option<&str>) -> Event {
        let fields = JsonFields::read(request.body, &self.pointers).ok();
        let select =
            |selector: &Option<Selector>| selector.as_ref()?.select(request, fields.as_ref());
        let event = &self.event;
        Event {
            event_id: id
                .map(str::to_owned)
                .or_else(|| select(&event.id))
                .unwrap_or_else(|| sha256_hex(request.body)),
            tenant: select(&event.tenant).unwrap_or_default(),
            topic: select(&event.topic).unwrap_or_default(),
            version: select(&event.version).as_deref().and_then(parse_timestamp),
            body: request.body.clone(),
        }
    }

    /// Maps an event to the change that it makes.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the invalid field.
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

    /// The properties that are sent as headers.
    pub fn event_headers(&self, webhook: &OutgoingWebhook<'_>) -> Vec<(HeaderName, HeaderValue)> {
        let EventSettings { id, topic, tenant, .. } = &self.event;
        [(id, webhook.event_id), (topic, webhook.topic), (tenant, webhook.tenant)]
            .into_iter()
            .filter_map(|(selector, value)| match selector {
                Some(Selector::Header(name)) => Some((name.parse().ok()?, value.parse().ok()?)),
                _ => None,
            })
            .collect()
    }

    /// Fails if the settings select a tenant and the envelope has none. An unreadable
    /// tenant must not become the tenant with an empty name.
    ///
    /// # Errors
    /// [`PermanentFailure`] with the location of the tenant.
    pub fn require_tenant(&self, envelope: &Envelope) -> Result<(), PermanentFailure> {
        match &self.event.tenant {
            Some(_) if !envelope.tenant.is_empty() => Ok(()),
            Some(Selector::Pointer(pointer)) => {
                JsonFields::read(&envelope.body, &self.pointers)?.required_text(pointer)?;
                // The body names it, so another AMQP producer omitted the header.
                Err(PermanentFailure::missing(TENANT_HEADER))
            }
            Some(Selector::Header(name)) => {
                Err(PermanentFailure::missing(format!("header:{name}")))
            }
            Some(Selector::Constant(_)) | None => Ok(()),
        }
    }

    /// The topic of the envelope, else of the body, so that an unreadable body is never
    /// treated as an unmapped topic.
    ///
    /// # Errors
    /// [`PermanentFailure`] if the body is unreadable.
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
