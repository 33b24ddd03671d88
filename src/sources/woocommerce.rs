//! `WooCommerce`: orders, by the headers and bodies of its webhooks.
//!
//! Source of the rules: `class-wc-webhook.php` of WooCommerce and its REST
//! API documentation, whose order representation is what webhooks carry.

#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use serde::Deserialize;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, first_text,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
};
use crate::domain::{
    Envelope, MappedEvent, Money, Order, OrderLine, OrderStatus, OrderUpdate, PermanentFailure,
};

/// A WooCommerce source needs no settings of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WooCommerce {}

const SIGNATURE: BodyHmac<'static> = BodyHmac {
    header: "x-wc-webhook-signature",
    prefix: "",
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Base64,
};

static EVENT_ID_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(["/id", "/date_modified_gmt"]));
static ORDER_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/id",
        "/number",
        "/status",
        "/currency",
        "/total",
        "/customer_id",
        "/date_created_gmt",
        "/date_modified_gmt",
        "/date_paid_gmt",
        "/line_items",
        "/refunds",
    ])
});
static LINE_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(["/id", "/sku", "/name", "/quantity", "/price", "/total"]));
static REFUND_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| JsonPointers::new(["/total"]));

impl Platform for WooCommerce {
    fn kind(&self) -> &'static str {
        "woocommerce"
    }

    fn redelivers_identical_body(&self) -> bool {
        // The body is built when it is sent; its digest is part of the key,
        // so other bytes are another event.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // `class-wc-webhook.php` counts a failure and tries never again.
        Duration::ZERO
    }

    fn is_ping(&self, call: &WebhookRequest<'_>) -> bool {
        // Sent when a webhook is saved: unsigned, form-encoded. Anything but a
        // 200 shows the merchant an error.
        call.header(SIGNATURE.header).is_none()
            && call.body.strip_prefix(b"webhook_id=").is_some_and(|digits| {
                !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
            })
    }

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(call, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.request();
        let required = |name: &str| {
            call.header(name).ok_or_else(|| {
                Rejection::Malformed(format!("the header {name} is missing or empty"))
            })
        };
        let tenant = required("X-WC-Webhook-Source")?.trim_end_matches('/').to_ascii_lowercase();
        if tenant.is_empty() {
            // The header is not signed: slashes alone would be a shop without
            // a name, which no allow-list keeps out.
            return Err(Rejection::Malformed(
                "the header X-WC-Webhook-Source names no shop".to_owned(),
            ));
        }
        let topic = required("X-WC-Webhook-Topic")?.to_owned();
        // The delivery id is new on each attempt and may collide within a
        // second, so the event is known by what it says of which order when.
        let identity = JsonFields::read(call.body, &EVENT_ID_POINTERS).ok();
        let part = |pointer| {
            let text = identity.as_ref().and_then(|fields| fields.text(pointer).ok().flatten());
            text.unwrap_or_else(|| "-".to_owned())
        };
        let told = match call.header("X-WC-Webhook-Delivery-ID") {
            // A deletion tells nothing but the id: without the delivery's, an
            // order that is deleted, restored and deleted again would stay.
            Some(delivery) if topic == "order.deleted" => delivery.to_owned(),
            _ => sha256_hex(call.body),
        };
        Ok(vec![Event {
            event_id: format!("{topic}:{}:{}:{told}", part("/id"), part("/date_modified_gmt")),
            tenant,
            topic,
            version: None,
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let update = match envelope.topic.as_str() {
            "order.created" | "order.updated" => order_state(envelope, false)?,
            "order.restored" => order_state(envelope, true)?,
            // Carries nothing but the id, so our clock must tell the time.
            "order.deleted" => {
                let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
                // The topic is not signed: an order's body, recorded on the
                // way and sent again as a deletion, must not be one.
                if fields.has("/status") {
                    let detail = "stands in a deletion, which carries the id alone";
                    return Err(PermanentFailure::invalid("/status", detail));
                }
                OrderUpdate::Deleted {
                    order_id: fields.required_text("/id")?,
                    deleted_at: envelope.received_at,
                }
            }
            _ => return Ok(MappedEvent::Ignored),
        };
        Ok(MappedEvent::from(update))
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &ORDER_POINTERS, &["/number", "/id"])
    }

    fn tenant_location(&self) -> &'static str {
        "X-WC-Webhook-Source"
    }

    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let (resource, event) = delivery.topic.split_once('.').unwrap_or((delivery.topic, ""));
        [
            ("x-wc-webhook-topic", delivery.topic.to_owned()),
            ("x-wc-webhook-resource", resource.to_owned()),
            ("x-wc-webhook-event", event.to_owned()),
            ("x-wc-webhook-source", format!("{}/", delivery.tenant)),
            ("x-wc-webhook-id", "1".to_owned()),
            ("x-wc-webhook-signature", SIGNATURE.sign(secret, delivery.body)),
        ]
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
    }
}

/// The order's whole state.
fn order_state(envelope: &Envelope, restored: bool) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
    let order_id = fields.required_text("/id")?;
    let platform_status = fields.required_text("/status")?;
    let paid = fields.timestamp("/date_paid_gmt")?.is_some();
    let status = match platform_status.as_str() {
        // Cash on delivery is "processing" or "completed" before it is paid.
        "processing" | "completed" if paid => OrderStatus::Paid,
        "processing" | "completed" | "on-hold" => OrderStatus::Pending,
        word => OrderStatus::parse_or_other(word),
    };
    let order = Order {
        number: fields.text("/number")?.unwrap_or_else(|| order_id.clone()),
        status,
        platform_status,
        total: Money {
            amount: fields.required_decimal("/total")?,
            currency: fields.required_currency("/currency")?,
        },
        refunded: refunded_amount(&fields)?,
        // 0 is a guest.
        customer_ref: fields.text("/customer_id")?.filter(|id| id != "0"),
        payment_ref: None,
        sequence: 0,
        placed_at: fields.timestamp("/date_created_gmt")?,
        lines: lines(&fields)?,
    };
    let version = fields.timestamp("/date_modified_gmt")?.unwrap_or(envelope.received_at);
    Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored })
}

fn lines(fields: &JsonFields<'_>) -> Result<Vec<OrderLine>, PermanentFailure> {
    fields
        .list("/line_items", &LINE_POINTERS)?
        .iter()
        .map(|line| {
            Ok(OrderLine {
                id: line.text("/id")?,
                sku: line.text("/sku")?,
                title: line.text("/name")?,
                quantity: line.decimal("/quantity")?,
                unit_price: line.decimal("/price")?,
                total: line.decimal("/total")?,
            })
        })
        .collect()
}

/// What was paid back: the order lists its refunds as negative totals.
fn refunded_amount(fields: &JsonFields<'_>) -> Result<Decimal, PermanentFailure> {
    let mut sum = Decimal::ZERO;
    for refund in fields.list("/refunds", &REFUND_POINTERS)? {
        let total = refund.decimal("/total")?.unwrap_or_default();
        sum = sum
            .checked_add(total.abs())
            .ok_or_else(|| PermanentFailure::invalid("/refunds", "add up to too large a number"))?;
    }
    Ok(sum)
}
