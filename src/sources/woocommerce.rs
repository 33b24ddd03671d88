//! `WooCommerce`: orders.
//!
//! Rules: `class-wc-webhook.php` of WooCommerce, and its REST API documentation, whose
//! order representation the webhooks carry.

#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use serde::Deserialize;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, first_text, header_pairs,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
    signature::{BodyHmac, Secret, Verified},
};
use crate::domain::{
    Envelope, MappedEvent, Money, Order, OrderLine, OrderStatus, OrderUpdate, PermanentFailure,
};

/// Settings of a `WooCommerce` source; there are none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WooCommerce {}

const SIGNATURE: BodyHmac<'static> = BodyHmac::sha256_base64("x-wc-webhook-signature");

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
        // The body is built for each attempt. Its digest is part of the key, so another
        // body is another event.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // `class-wc-webhook.php` counts a failure and does not retry.
        Duration::ZERO
    }

    fn is_ping(&self, request: &WebhookRequest<'_>) -> bool {
        // Sent when a webhook is saved: unsigned and form-encoded. Any response but 200
        // shows the merchant an error.
        request.header(SIGNATURE.header).is_none()
            && request.body.strip_prefix(b"webhook_id=").is_some_and(|digits| {
                !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
            })
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(request, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let required = |name: &str| {
            request.header(name).ok_or_else(|| {
                Rejection::Malformed(format!("the header {name} is missing or empty"))
            })
        };
        let tenant = required("X-WC-Webhook-Source")?.trim_end_matches('/').to_ascii_lowercase();
        if tenant.is_empty() {
            // The header is not signed. Slashes alone would be an empty tenant, which
            // passes every allow-list.
            return Err(Rejection::Malformed(
                "the header X-WC-Webhook-Source contains no shop".to_owned(),
            ));
        }
        let topic = required("X-WC-Webhook-Topic")?.to_owned();
        // The delivery id is new on each attempt and may collide within a second, so the
        // event id consists of topic, order, version and digest.
        let fields = JsonFields::read(request.body, &EVENT_ID_POINTERS).ok();
        let text_or_dash = |pointer| {
            let text = fields.as_ref().and_then(|fields| fields.optional_text(pointer));
            text.unwrap_or_else(|| "-".to_owned())
        };
        let suffix = match request.header("X-WC-Webhook-Delivery-ID") {
            // A deletion contains only the order id. Without the delivery id, a second
            // deletion of a restored order would be a duplicate.
            Some(delivery_id) if topic == "order.deleted" => delivery_id.to_owned(),
            _ => sha256_hex(request.body),
        };
        Ok(vec![Event {
            event_id: format!(
                "{topic}:{}:{}:{suffix}",
                text_or_dash("/id"),
                text_or_dash("/date_modified_gmt")
            ),
            tenant,
            topic,
            version: None,
            body: request.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let update = match envelope.topic.as_str() {
            "order.created" | "order.updated" => order_state(envelope, false)?,
            "order.restored" => order_state(envelope, true)?,
            // Contains only the order id, so its version is the time of receipt.
            "order.deleted" => {
                let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
                // The topic is not signed: an intercepted order, replayed as a deletion,
                // must not delete.
                if fields.has("/status") {
                    let detail = "is present in a deletion, which must contain only the id";
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
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let (resource, event) = webhook.topic.split_once('.').unwrap_or((webhook.topic, ""));
        header_pairs([
            ("x-wc-webhook-topic", webhook.topic.to_owned()),
            ("x-wc-webhook-resource", resource.to_owned()),
            ("x-wc-webhook-event", event.to_owned()),
            ("x-wc-webhook-source", format!("{}/", webhook.tenant)),
            ("x-wc-webhook-id", "1".to_owned()),
            ("x-wc-webhook-signature", SIGNATURE.sign(secret, &[webhook.body])),
        ])
    }
}

/// Maps a complete order.
fn order_state(envelope: &Envelope, restored: bool) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
    let order_id = fields.required_text("/id")?;
    let platform_status = fields.required_text("/status")?;
    let is_paid = fields.timestamp("/date_paid_gmt")?.is_some();
    let status = match platform_status.as_str() {
        // Cash on delivery is "processing" or "completed" before it is paid.
        "processing" | "completed" if is_paid => OrderStatus::Paid,
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

/// The refunded amount; refunds have negative totals.
fn refunded_amount(fields: &JsonFields<'_>) -> Result<Decimal, PermanentFailure> {
    let mut sum = Decimal::ZERO;
    for refund in fields.list("/refunds", &REFUND_POINTERS)? {
        let total = refund.decimal("/total")?.unwrap_or_default();
        sum = sum
            .checked_add(total.abs())
            .ok_or_else(|| PermanentFailure::invalid("/refunds", "have a sum that is too large"))?;
    }
    Ok(sum)
}
