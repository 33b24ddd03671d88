//! Square: invoices and refunds, by its webhooks; orders, which webhooks only
//! name, as its API has them.
//!
//! Source of the rules: <https://developer.squareup.com/docs/webhooks/overview>
//! and the objects of Square's API reference.

mod invoice;
mod money;
mod order;
mod refund;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use time::format_description::well_known::Rfc3339;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, bounded_topic, first_text,
    json_fields::{JsonFields, JsonPointers},
    mapping::InvalidSettings,
    require_tenant, sha256_hex,
    signature::{Algorithm, Encoding, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// The settings of a Square source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquareSettings {
    /// The notification URL as it is registered with Square, byte for byte:
    /// it is part of what Square signs. Needed.
    url: Option<String>,
}

/// A source of kind `square`, its settings checked.
pub struct Square {
    url: String,
}

/// `x-square-signature` beside it is SHA-1, and no longer looked at.
const SIGNATURE_HEADER: &str = "x-square-hmacsha256-signature";

/// Topics that name an order. The object within has the topic's name, with
/// underscores.
const ORDER_TOPICS: [&str; 3] = ["order.created", "order.updated", "order.fulfillment.updated"];

static EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    let named = ["order_id", "version", "updated_at", "created_at"].into_iter().flat_map(|name| {
        ORDER_TOPICS.map(|topic| format!("/data/object/{}/{name}", topic.replace('.', "_")))
    });
    let own = ["/event_id", "/type", "/merchant_id", "/created_at", "/data/id"].map(str::to_owned);
    JsonPointers::new(own.into_iter().chain(named))
});

/// By which people know what an event is about, best first.
const BUSINESS_KEY_FIELDS: [&str; 7] = [
    "/data/object/invoice/invoice_number",
    "/data/object/invoice/id",
    "/data/object/refund/payment_id",
    "/data/object/refund/order_id",
    "/data/object/order_created/order_id",
    "/data/object/order_updated/order_id",
    "/data/object/order_fulfillment_updated/order_id",
];
static BUSINESS_KEY_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(BUSINESS_KEY_FIELDS));

impl Square {
    /// Checks settings.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: SquareSettings) -> Result<Self, InvalidSettings> {
        let wrong = |detail: &str| Err(InvalidSettings::new("url", detail));
        let Some(url) = settings.url else {
            return wrong("is missing: the notification URL as it is registered with Square");
        };
        let absolute = url.starts_with("https://") || url.starts_with("http://");
        if !absolute || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return wrong("must be the notification URL as it is registered with Square, whole");
        }
        Ok(Self { url })
    }
}

impl Platform for Square {
    fn kind(&self) -> &'static str {
        "square"
    }

    fn redelivers_identical_body(&self) -> bool {
        // Square promises the same `event_id`; of the bytes it says nothing.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // 11 retries within a day: developer.squareup.com, webhooks overview.
        Duration::from_hours(24)
    }

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let presented = call.header(SIGNATURE_HEADER).ok_or_else(|| {
            Rejection::InvalidSignature(format!(
                "the header {SIGNATURE_HEADER} is missing or empty"
            ))
        })?;
        let signature = Encoding::Base64.decode(presented).ok_or_else(|| {
            Rejection::InvalidSignature(format!("the header {SIGNATURE_HEADER} is not a signature"))
        })?;
        let parts: [&[u8]; 2] = [self.url.as_bytes(), call.body];
        secrets
            .iter()
            .position(|secret| secret.verifies(Algorithm::Sha256, &parts, &signature))
            .ok_or_else(Rejection::invalid_signature)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.request().body;
        let fields = JsonFields::read(body, &EVENT_POINTERS).ok();
        let text = |pointer| fields.as_ref().and_then(|fields| fields.text(pointer).ok().flatten());
        Ok(vec![Event {
            event_id: text("/event_id").unwrap_or_else(|| sha256_hex(body)),
            tenant: text("/merchant_id").unwrap_or_default(),
            topic: bounded_topic(text("/type")),
            version: text("/created_at").as_deref().and_then(parse_timestamp),
            body: body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        let told = match envelope.topic.as_str() {
            "" => fields.required_text("/type")?,
            told => told.to_owned(),
        };
        let tenant = || require_tenant(envelope, &fields, "/merchant_id");
        match told.as_str() {
            "invoice.deleted" => {
                tenant()?;
                Ok(MappedEvent::from(deleted_draft(&fields, envelope)?))
            }
            told if told.starts_with("invoice.") => {
                tenant()?;
                invoice::map(envelope).map(MappedEvent::from)
            }
            "refund.created" | "refund.updated" => {
                tenant()?;
                refund::map(envelope).map(MappedEvent::from)
            }
            told if ORDER_TOPICS.contains(&told) => {
                tenant()?;
                Ok(MappedEvent::from(order_change(told, &fields, envelope)?))
            }
            // A payment changes its order, which is told by itself.
            _ => Ok(MappedEvent::Ignored),
        }
    }

    fn document_id(&self, reference: &ResourceChange) -> Option<String> {
        (reference.kind == "invoice").then(|| reference.id.clone())
    }

    fn map_resource(
        &self,
        reference: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        match reference.kind.as_str() {
            "order" => order::map(reference, resource),
            _ => Ok(None),
        }
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &BUSINESS_KEY_POINTERS, &BUSINESS_KEY_FIELDS)
    }

    fn tenant_location(&self) -> &'static str {
        "merchant_id"
    }

    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let parts: [&[u8]; 2] = [self.url.as_bytes(), delivery.body];
        let signature = Encoding::Base64.encode(&secret.hmac(Algorithm::Sha256, &parts));
        let triggered_at = delivery.triggered_at.format(&Rfc3339).unwrap_or_default();
        [
            (SIGNATURE_HEADER, signature),
            ("square-environment", "Production".to_owned()),
            ("square-initial-delivery-timestamp", triggered_at),
        ]
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
    }
}

/// Only a draft can be deleted, and all that is told is its id.
fn deleted_draft(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<ResourceChange, PermanentFailure> {
    Ok(ResourceChange {
        platform: "square",
        kind: "invoice".to_owned(),
        id: fields.required_text("/data/id")?,
        version: None,
        changed_at: fields
            .timestamp("/created_at")?
            .or(envelope.version)
            .unwrap_or(envelope.received_at),
        action: "deleted".to_owned(),
    })
}

fn order_change(
    topic: &str,
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<ResourceChange, PermanentFailure> {
    let root = format!("/data/object/{}", topic.replace('.', "_"));
    let at = |name: &str| format!("{root}/{name}");
    let changed_at = match fields.timestamp(&at("updated_at"))? {
        Some(moment) => Some(moment),
        None => fields.timestamp(&at("created_at"))?,
    };
    let (_, action) = topic.rsplit_once('.').unwrap_or_default();
    Ok(ResourceChange {
        platform: "square",
        kind: "order".to_owned(),
        id: fields.required_text(&at("order_id"))?,
        // Orders that were not made through the API have none.
        version: fields.integer(&at("version"))?,
        changed_at: changed_at.or(envelope.version).unwrap_or(envelope.received_at),
        action: action.to_owned(),
    })
}
