//! Square: invoices and refunds from its webhooks; orders, which webhooks only name, from its API.
//!
//! Rules: <https://developer.squareup.com/docs/webhooks/overview> and the objects of Square's API
//! reference.

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
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, first_text, header_pairs,
    json_fields::{JsonFields, JsonPointers},
    mapping::InvalidSettings,
    require_tenant,
    signature::{BodyHmac, Secret, Verified},
    thin_event::{EventProperties, event_time},
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// Settings of a Square source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SquareSettings {
    /// The notification URL as registered with Square, byte for byte: Square signs it. Required.
    url: Option<String>,
}

/// A source of kind `square`.
pub struct Square {
    url: String,
}

/// Square also sends `x-square-signature`, which is SHA-1 and ignored.
const SIGNATURE: BodyHmac<'static> = BodyHmac::sha256_base64("x-square-hmacsha256-signature");

/// Topics that name an order. The object in the event has the topic's name with underscores.
const ORDER_TOPICS: [&str; 3] = ["order.created", "order.updated", "order.fulfillment.updated"];

static EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    let order = ["order_id", "version", "updated_at", "created_at"].into_iter().flat_map(|name| {
        ORDER_TOPICS.map(|topic| format!("/data/object/{}/{name}", topic.replace('.', "_")))
    });
    let common =
        ["/event_id", "/type", "/merchant_id", "/created_at", "/data/id"].map(str::to_owned);
    JsonPointers::new(common.into_iter().chain(order))
});

/// Fields with the business number of a document, in order of preference.
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
    /// Validates the settings.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub fn new(settings: SquareSettings) -> Result<Self, InvalidSettings> {
        let invalid = |detail: &str| Err(InvalidSettings::new("url", detail));
        let Some(url) = settings.url else {
            return invalid("is missing: the notification URL as registered with Square");
        };
        let is_absolute = url.starts_with("https://") || url.starts_with("http://");
        if !is_absolute || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return invalid("must be the complete notification URL as registered with Square");
        }
        Ok(Self { url })
    }
}

impl Platform for Square {
    fn kind(&self) -> &'static str {
        "square"
    }

    fn redelivers_identical_body(&self) -> bool {
        // Square documents that `event_id` stays the same, but not the bytes.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // 11 retries within a day: developer.squareup.com, webhooks overview.
        Duration::from_hours(24)
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify_parts(request, secrets, &[self.url.as_bytes(), request.body])
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.request().body;
        let fields = JsonFields::read(body, &EVENT_POINTERS).ok();
        let text = |pointer| fields.as_ref()?.optional_text(pointer);
        let properties = EventProperties {
            id: text("/event_id"),
            tenant: text("/merchant_id"),
            topic: text("/type"),
            time: text("/created_at"),
        };
        Ok(vec![properties.into_event(body.clone())])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        let topic = match envelope.topic.as_str() {
            "" => fields.required_text("/type")?,
            topic => topic.to_owned(),
        };
        let require_tenant = || require_tenant(envelope, &fields, "/merchant_id");
        match topic.as_str() {
            "invoice.deleted" => {
                require_tenant()?;
                Ok(MappedEvent::from(deleted_draft(&fields, envelope)?))
            }
            topic if topic.starts_with("invoice.") => {
                require_tenant()?;
                invoice::map(envelope).map(MappedEvent::from)
            }
            "refund.created" | "refund.updated" => {
                require_tenant()?;
                refund::map(envelope).map(MappedEvent::from)
            }
            topic if ORDER_TOPICS.contains(&topic) => {
                require_tenant()?;
                Ok(MappedEvent::from(order_change(topic, &fields, envelope)?))
            }
            // Square reports the order of a payment in an event of its own.
            _ => Ok(MappedEvent::Ignored),
        }
    }

    fn document_id(&self, change: &ResourceChange) -> Option<String> {
        (change.kind == "invoice").then(|| change.id.clone())
    }

    fn map_resource(
        &self,
        change: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        match change.kind.as_str() {
            "order" => order::map(change, resource),
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
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let triggered_at = webhook.triggered_at.format(&Rfc3339).unwrap_or_default();
        header_pairs([
            (SIGNATURE.header, SIGNATURE.sign(secret, &[self.url.as_bytes(), webhook.body])),
            ("square-environment", "Production".to_owned()),
            ("square-initial-delivery-timestamp", triggered_at),
        ])
    }
}

/// The deletion of an invoice. Only drafts can be deleted, and the event contains only the id.
fn deleted_draft(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<ResourceChange, PermanentFailure> {
    Ok(ResourceChange {
        platform: "square",
        kind: "invoice".to_owned(),
        id: fields.required_text("/data/id")?,
        version: None,
        changed_at: event_time(fields, "/created_at", envelope)?,
        action: "deleted".to_owned(),
    })
}

fn order_change(
    topic: &str,
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<ResourceChange, PermanentFailure> {
    let root = format!("/data/object/{}", topic.replace('.', "_"));
    let pointer = |name: &str| format!("{root}/{name}");
    let changed_at = match fields.timestamp(&pointer("updated_at"))? {
        Some(updated_at) => updated_at,
        None => event_time(fields, &pointer("created_at"), envelope)?,
    };
    let (_, action) = topic.rsplit_once('.').unwrap_or_default();
    Ok(ResourceChange {
        platform: "square",
        kind: "order".to_owned(),
        id: fields.required_text(&pointer("order_id"))?,
        // Orders that were not created through the API have no version.
        version: fields.integer(&pointer("version"))?,
        changed_at,
        action: action.to_owned(),
    })
}
