//! `CloudEvents` over HTTP: in headers (binary mode), as one JSON document (structured
//! mode), or in a batch. Their data is mapped by settings.
//!
//! Rules: <https://github.com/cloudevents/spec>, the HTTP protocol binding and "HTTP 1.1
//! Web Hooks for Event Delivery".

mod attributes;
mod settings;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use time::format_description::well_known::Rfc3339;

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    authentication::Authentication,
    event_extraction::{EventExtractor, EventSettings},
    json_fields::{JsonFields, JsonPointers},
    mapping::{InvalidSettings, Mapping},
    selector::Selector,
    sha256_hex,
    signature::{Key, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{Envelope, MappedEvent, PermanentFailure};
use attributes::{Attributes, parse_batch};
pub use settings::{CloudEventsEventSettings, CloudEventsSettings, TenantSource};

/// The topic of a batch without events, which some senders use to test the URL.
const EMPTY_BATCH_TOPIC: &str = "empty_batch";

/// Pointers that exist in a structured event or a batch.
const EVENT_MARKERS: [&str; 2] = ["/specversion", "/0/specversion"];
static EVENT_MARKER_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(EVENT_MARKERS));

/// Characters that are percent-encoded in the header of an attribute.
const HEADER_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Characters of the source that are percent-encoded in an event id, so that the first
/// space separates source and id.
const EVENT_ID_ESCAPES: &AsciiSet = &AsciiSet::EMPTY.add(b' ').add(b'%');

/// A source of kind `cloudevents`; its pointers are compiled.
pub struct CloudEvents {
    authentication: Authentication,
    allowed_origins: Vec<String>,
    tenant: Option<TenantSource>,
    extractor: EventExtractor,
    mapping: Mapping,
}

impl CloudEvents {
    /// Validates the settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: CloudEventsSettings) -> Result<Self, InvalidSettings> {
        let CloudEventsSettings { allowed_origins, order, invoice, refund, .. } = settings;
        if allowed_origins.iter().any(String::is_empty) {
            return Err(InvalidSettings::new("allowed_origins", "has an empty name"));
        }
        let authentication = Authentication::new(settings.authentication, settings.signature)?
            .allow_in_query("access_token");
        let mapping = Mapping::new(order, invoice, refund)?;
        let tenant = settings.event.tenant;
        let event = EventSettings {
            topic: Some(Selector::Header("ce-type".to_owned())),
            tenant: match &tenant {
                Some(TenantSource::Selector(selector)) => Some(selector.clone()),
                Some(TenantSource::Attribute(_)) | None => None,
            },
            ..EventSettings::default()
        };
        let extractor = EventExtractor::new(event, &mapping)?;
        Ok(Self { authentication, allowed_origins, tenant, extractor, mapping })
    }

    /// Rejects a structured event or a batch that the content type declares as data of a
    /// binary event. The content type is not signed: someone who intercepted a signed event
    /// could send it with other attributes, even for another tenant.
    fn check_content_mode(&self, body: &[u8]) -> Result<(), Rejection> {
        let is_event =
            |fields: JsonFields<'_>| EVENT_MARKERS.into_iter().any(|pointer| fields.has(pointer));
        if self.authentication.is_signature()
            && JsonFields::read(body, &EVENT_MARKER_POINTERS).is_ok_and(is_event)
        {
            let detail =
                "the body is a complete event, but the content type declares it as event data";
            return Err(Rejection::Malformed(detail.to_owned()));
        }
        Ok(())
    }

    fn event(
        &self,
        request: &WebhookRequest<'_>,
        attributes: &Attributes<'_>,
        data: &Bytes,
    ) -> Result<Event, Rejection> {
        let version = attributes.required("specversion")?;
        if !version.starts_with("1.") {
            let location = attributes.location_of("specversion");
            return Err(Rejection::Malformed(format!(
                "{location} is {version:?}; only 1.0 is supported"
            )));
        }
        // Only both together identify an event.
        let (source, id) = (attributes.required("source")?, attributes.required("id")?);
        let event_id = format!("{} {id}", utf8_percent_encode(&source, EVENT_ID_ESCAPES));
        let topic = attributes.required("type")?;
        let version = attributes.get("time")?.as_deref().and_then(parse_timestamp);
        let event =
            self.extractor.extract(&WebhookRequest { body: data, ..*request }, Some(&event_id));
        let tenant = match &self.tenant {
            Some(TenantSource::Attribute(name)) => attributes.get(name)?.unwrap_or_default(),
            Some(TenantSource::Selector(_)) | None => event.tenant,
        };
        Ok(Event { tenant, topic, version, ..event })
    }
}

impl Platform for CloudEvents {
    fn kind(&self) -> &'static str {
        "cloudevents"
    }

    fn redelivers_identical_body(&self) -> bool {
        // Equal source and id mean the same event, but intermediaries may serialize its
        // JSON differently on each attempt.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // The specification leaves it to the sender.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn parse_key(&self, text: &str) -> Result<Key, String> {
        self.authentication.parse_key(text)
    }

    fn handshake(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        let requested = headers.get("webhook-request-origin")?;
        let listed = |origin: &String| origin.as_bytes().eq_ignore_ascii_case(requested.as_bytes());
        let origin = if self.allowed_origins.iter().any(|origin| origin == "*") {
            HeaderValue::from_static("*")
        } else if self.allowed_origins.iter().any(listed) {
            requested.clone()
        } else {
            return None;
        };
        Some(HeaderMap::from_iter([
            (HeaderName::from_static("webhook-allowed-origin"), origin),
            // Overload is answered with 503 or 429, whatever rate was agreed.
            (HeaderName::from_static("webhook-allowed-rate"), HeaderValue::from_static("*")),
            (header::ALLOW, HeaderValue::from_static("POST")),
        ]))
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(request, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let media_type = request.media_type();
        // In this order, because one is a prefix of the other.
        if media_type.starts_with("application/cloudevents-batch") {
            let elements = parse_batch(request.body)?;
            if elements.is_empty() {
                return Ok(vec![Event {
                    event_id: sha256_hex(request.body),
                    tenant: String::new(),
                    topic: EMPTY_BATCH_TOPIC.to_owned(),
                    version: None,
                    body: request.body.clone(),
                }]);
            }
            // One invalid event rejects the whole batch: the sender learns which, and no
            // part of the batch is accepted.
            elements
                .iter()
                .map(|element| self.event(request, element, &element.data(request.body)?))
                .collect()
        } else {
            let attributes = if media_type.starts_with("application/cloudevents") {
                Attributes::from_json(request.body, String::new())?
            } else {
                self.check_content_mode(request.body)?;
                Attributes::Headers(*request)
            };
            Ok(vec![self.event(request, &attributes, &attributes.data(request.body)?)?])
        }
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let topic = envelope.topic.as_str();
        if topic == EMPTY_BATCH_TOPIC && !self.mapping.lists_topic(topic) {
            return Ok(MappedEvent::Ignored);
        }
        if let Some(TenantSource::Attribute(name)) = &self.tenant
            && envelope.tenant.is_empty()
            && self.mapping.maps_topic(topic)
        {
            return Err(PermanentFailure::missing(format!("attribute:{name}")));
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
        let tenant = match &self.tenant {
            Some(TenantSource::Attribute(name)) => Some(name.as_str()),
            Some(TenantSource::Selector(_)) | None => None,
        };
        let triggered_at = webhook.triggered_at.format(&Rfc3339).unwrap_or_default();
        let attributes = [
            ("specversion", "1.0"),
            ("id", webhook.event_id),
            ("source", "/tallyhook/send"),
            ("type", webhook.topic),
            ("time", &triggered_at),
        ];
        let attributes = attributes.into_iter().chain(tenant.map(|name| (name, webhook.tenant)));
        let mut headers = self.extractor.event_headers(webhook);
        headers.retain(|(name, _)| name != "ce-type");
        headers.extend(attributes.filter_map(|(name, value)| {
            let value: Cow<'_, str> = utf8_percent_encode(value, HEADER_ESCAPES).into();
            Some((format!("ce-{name}").parse().ok()?, value.parse().ok()?))
        }));
        self.authentication.sign(webhook, headers, secret)
    }
}
