//! `CloudEvents` over HTTP: in headers, as one JSON document, or in a batch.
//! Their data is mapped by settings.
//!
//! Source of the rules: <https://github.com/cloudevents/spec>, the HTTP
//! protocol binding and "HTTP 1.1 Web Hooks for Event Delivery".

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
    Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    authentication::Authentication,
    digest_of,
    fields::{Fields, Pointers},
    identity::{EventSettings, Identity},
    mapping::{InvalidSettings, Mapping},
    moment::parse_moment,
    selector::Selector,
    signature::{Key, Secret, Verified},
};
use crate::domain::{Envelope, Failure, Mapped};
use attributes::{Attributes, batch};
pub use settings::{CloudEventSettings, Settings, TenantSource};

/// The topic of a batch without events, which some send to try the address.
const EMPTY_BATCH: &str = "empty_batch";

/// What tells an event, or a batch of them, in JSON.
const WHOLE: [&str; 2] = ["/specversion", "/0/specversion"];
static MODE: LazyLock<Pointers> = LazyLock::new(|| Pointers::new(WHOLE));

/// What an attribute's value may not have in a header as it is.
const IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// What the source may not have within an event's id, so that the space
/// between it and the id is the only one.
const IN_EVENT_ID: &AsciiSet = &AsciiSet::EMPTY.add(b' ').add(b'%');

/// A source of kind `cloudevents`, its settings checked and its pointers
/// compiled.
pub struct CloudEvents {
    authentication: Authentication,
    allowed_origins: Vec<String>,
    tenant: Option<TenantSource>,
    identity: Identity,
    mapping: Mapping,
}

impl CloudEvents {
    /// Checks settings and compiles their pointers.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        let Settings { allowed_origins, order, invoice, refund, .. } = settings;
        if allowed_origins.iter().any(String::is_empty) {
            return Err(InvalidSettings::new("allowed_origins", "has an empty name"));
        }
        let authentication = Authentication::new(settings.authentication, settings.signature)?
            .or_in_query("access_token");
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
        let identity = Identity::new(event, &mapping)?;
        Ok(Self { authentication, allowed_origins, tenant, identity, mapping })
    }

    /// Refuses a body that is an event, or a batch, by itself where the headers
    /// say that it is but the data of another. The content type is not signed:
    /// who had recorded a signed event could send it under attributes of his
    /// own, of another company even.
    fn check_mode(&self, body: &[u8]) -> Result<(), Rejection> {
        let whole = |fields: Fields<'_>| WHOLE.into_iter().any(|pointer| fields.has(pointer));
        if self.authentication.is_signature() && Fields::read(body, &MODE).is_ok_and(whole) {
            let detail = "the body is a whole event, and the content type says that it is not";
            return Err(Rejection::Unreadable(detail.to_owned()));
        }
        Ok(())
    }

    fn event(
        &self,
        call: &Call<'_>,
        attributes: &Attributes<'_>,
        data: &Bytes,
    ) -> Result<Event, Rejection> {
        let version = attributes.required("specversion")?;
        if !version.starts_with("1.") {
            let place = attributes.place("specversion");
            return Err(Rejection::Unreadable(format!("{place} is {version:?}; 1.0 is taken")));
        }
        // Both together name an event, and neither alone.
        let (source, id) = (attributes.required("source")?, attributes.required("id")?);
        let event_id = format!("{} {id}", utf8_percent_encode(&source, IN_EVENT_ID));
        let topic = attributes.required("type")?;
        let version = attributes.get("time")?.as_deref().and_then(parse_moment);
        let event = self.identity.event(&Call { body: data, ..*call }, Some(&event_id));
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

    fn repeats_same_bytes(&self) -> bool {
        // The same source and id are the same event, says the specification;
        // but what carries events may write their JSON anew on each attempt.
        false
    }

    fn resends_for(&self) -> Duration {
        // The specification leaves it to whoever sends.
        UNTOLD_RESENDS
    }

    fn key(&self, text: &str) -> Result<Key, String> {
        self.authentication.key(text)
    }

    fn handshake(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        let asked = headers.get("webhook-request-origin")?;
        let listed = |origin: &String| origin.as_bytes().eq_ignore_ascii_case(asked.as_bytes());
        let origin = if self.allowed_origins.iter().any(|origin| origin == "*") {
            HeaderValue::from_static("*")
        } else if self.allowed_origins.iter().any(listed) {
            asked.clone()
        } else {
            return None;
        };
        Some(HeaderMap::from_iter([
            (HeaderName::from_static("webhook-allowed-origin"), origin),
            // Too many at a time are answered 503 or 429, whatever was agreed.
            (HeaderName::from_static("webhook-allowed-rate"), HeaderValue::from_static("*")),
            (header::ALLOW, HeaderValue::from_static("POST")),
        ]))
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        self.authentication.verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.call();
        let media_type = call.media_type();
        // In this order: the one begins like the other.
        if media_type.starts_with("application/cloudevents-batch") {
            let elements = batch(call.body)?;
            if elements.is_empty() {
                return Ok(vec![Event {
                    event_id: digest_of(call.body),
                    tenant: String::new(),
                    topic: EMPTY_BATCH.to_owned(),
                    version: None,
                    body: call.body.clone(),
                }]);
            }
            // One that is wrong refuses all: the sender learns which, and no
            // half of a batch is kept.
            elements
                .iter()
                .map(|element| self.event(call, element, &element.data(call.body)?))
                .collect()
        } else {
            let attributes = if media_type.starts_with("application/cloudevents") {
                Attributes::document(call.body, String::new())?
            } else {
                self.check_mode(call.body)?;
                Attributes::Headers(*call)
            };
            Ok(vec![self.event(call, &attributes, &attributes.data(call.body)?)?])
        }
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let topic = envelope.topic.as_str();
        if topic == EMPTY_BATCH && !self.mapping.names(topic) {
            return Ok(Mapped::Ignored);
        }
        if let Some(TenantSource::Attribute(name)) = &self.tenant
            && envelope.tenant.is_empty()
            && self.mapping.maps(topic)
        {
            return Err(Failure::missing(format!("attribute:{name}")));
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
        let tenant = match &self.tenant {
            Some(TenantSource::Attribute(name)) => Some(name.as_str()),
            Some(TenantSource::Selector(_)) | None => None,
        };
        let triggered_at = delivery.triggered_at.format(&Rfc3339).unwrap_or_default();
        let attributes = [
            ("specversion", "1.0"),
            ("id", delivery.event_id),
            ("source", "/tallyhook/send"),
            ("type", delivery.topic),
            ("time", &triggered_at),
        ];
        let attributes = attributes.into_iter().chain(tenant.map(|name| (name, delivery.tenant)));
        let mut headers = self.identity.headers(delivery);
        headers.retain(|(name, _)| name != "ce-type");
        headers.extend(attributes.filter_map(|(name, value)| {
            let value: Cow<'_, str> = utf8_percent_encode(value, IN_HEADER).into();
            Some((format!("ce-{name}").parse().ok()?, value.parse().ok()?))
        }));
        self.authentication.sign(delivery, headers, secret)
    }
}
