//! Shopify: orders and refunds.
//!
//! Rules: <https://shopify.dev/docs/apps/build/webhooks>, and the REST Admin order
//! resource, which `orders/*` webhooks carry.

#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, first_text, header_pairs,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
    signature::{BodyHmac, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{
    Currency, Envelope, MappedEvent, Money, Order, OrderLine, OrderStatus, OrderUpdate,
    PermanentFailure, Refund, RefundStatus, RefundTarget,
};

/// Settings of a Shopify source; there are none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shopify {}

/// Topics of events with a complete order.
const ORDER_TOPICS: [&str; 6] = [
    "orders/create",
    "orders/updated",
    "orders/paid",
    "orders/cancelled",
    "orders/fulfilled",
    "orders/partially_fulfilled",
];

/// Fields that only a complete order has.
const STATE_FIELDS: [&str; 3] = ["/total_price", "/current_total_price", "/financial_status"];

/// Shopify's newer headers have no `X-` prefix. A request may contain both families; the
/// newer one takes precedence, as in Shopify's libraries.
const SIGNATURES: [BodyHmac<'static>; 2] = [
    BodyHmac::sha256_base64("shopify-hmac-sha256"),
    BodyHmac::sha256_base64("x-shopify-hmac-sha256"),
];

/// The value of a header of either family.
fn shopify_header<'a>(request: &WebhookRequest<'a>, name: &str) -> Option<&'a str> {
    request
        .header(&format!("shopify-{name}"))
        .or_else(|| request.header(&format!("x-shopify-{name}")))
}

static ORDER_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/id",
        "/name",
        "/order_number",
        "/financial_status",
        "/cancelled_at",
        "/currency",
        "/current_total_price",
        "/total_price",
        "/customer/id",
        "/created_at",
        "/updated_at",
        "/line_items",
        "/refunds",
    ])
});
static LINE_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new(["/id", "/sku", "/title", "/current_quantity", "/quantity", "/price"])
});
static REFUND_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(["/transactions"]));
static REFUND_EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new(["/id", "/order_id", "/transactions", "/processed_at", "/created_at"])
});
static TRANSACTION_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(["/kind", "/status", "/amount", "/currency"]));

impl Platform for Shopify {
    fn kind(&self) -> &'static str {
        "shopify"
    }

    fn redelivers_identical_body(&self) -> bool {
        // "A retry carries the original payload": shopify.dev, troubleshooting.
        true
    }

    fn redelivery_window(&self) -> Duration {
        // 8 retries within four hours: shopify.dev, troubleshooting.
        Duration::from_hours(4)
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let [newer, older] = SIGNATURES;
        if request.header(newer.header).is_some() {
            newer.verify(request, secrets)
        } else {
            older.verify(request, secrets)
        }
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let required = |name: &str| {
            shopify_header(request, name).ok_or_else(|| {
                Rejection::Malformed(format!("the header X-Shopify-{name} is missing or empty"))
            })
        };
        let tenant = required("Shop-Domain")?.to_ascii_lowercase();
        let event_topic = required("Topic")?;
        // "Send test notification" in the admin sends a fictitious order under a real
        // topic. It must be answered, and must not be applied.
        let is_test =
            shopify_header(request, "test").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let topic = if is_test { format!("test:{event_topic}") } else { event_topic.to_owned() };
        // The webhook id alone is not a key: `X-Shopify-Event-Id` is shared by topics, and
        // the id headers are not signed.
        let webhook_id = shopify_header(request, "webhook-id")
            .map_or_else(|| sha256_hex(request.body), str::to_owned);
        Ok(vec![Event {
            event_id: format!("{topic}:{webhook_id}"),
            tenant,
            topic,
            version: shopify_header(request, "triggered-at").and_then(parse_timestamp),
            body: request.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let topic = envelope.topic.as_str();
        let update = if ORDER_TOPICS.contains(&topic) {
            order_state(envelope)?
        } else if topic == "orders/delete" {
            let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
            // The topic is not signed: an intercepted order, replayed as a deletion, must
            // not delete. Deletions may contain totals, but they are null.
            if let Some(pointer) = STATE_FIELDS.into_iter().find(|pointer| fields.has(pointer)) {
                let detail = "is present in a deletion, which must not contain a state";
                return Err(PermanentFailure::invalid(pointer, detail));
            }
            OrderUpdate::Deleted {
                order_id: fields.required_text("/id")?,
                deleted_at: envelope.version.unwrap_or(envelope.received_at),
            }
        } else if topic == "refunds/create" {
            return refund(envelope);
        } else {
            return Ok(MappedEvent::Ignored);
        };
        Ok(MappedEvent::from(update))
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        if envelope.topic == "refunds/create" {
            return first_text(&envelope.body, &REFUND_EVENT_POINTERS, &["/order_id"]);
        }
        first_text(&envelope.body, &ORDER_POINTERS, &["/name", "/order_number", "/id"])
    }

    fn tenant_location(&self) -> &'static str {
        "X-Shopify-Shop-Domain"
    }

    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let triggered_at = webhook.triggered_at.format(&Rfc3339).unwrap_or_default();
        header_pairs([
            ("x-shopify-topic", webhook.topic.to_owned()),
            ("x-shopify-shop-domain", webhook.tenant.to_owned()),
            ("x-shopify-webhook-id", webhook.event_id.to_owned()),
            ("x-shopify-triggered-at", triggered_at),
            ("x-shopify-hmac-sha256", SIGNATURES[1].sign(secret, &[webhook.body])),
        ])
    }
}

/// Maps a complete order.
fn order_state(envelope: &Envelope) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
    let order_id = fields.required_text("/id")?;
    let currency = fields.required_currency("/currency")?;
    // The current total reflects edits and refunds; older API versions only have the total
    // at placement.
    let amount = match fields.decimal("/current_total_price")? {
        Some(amount) => amount,
        None => fields.required_decimal("/total_price")?,
    };
    let number = match fields.text("/name")? {
        Some(name) => name,
        None => fields.text("/order_number")?.unwrap_or_else(|| order_id.clone()),
    };
    let platform_status = fields.text("/financial_status")?.unwrap_or_default();
    let status = if fields.timestamp("/cancelled_at")?.is_some() {
        OrderStatus::Cancelled
    } else {
        match platform_status.as_str() {
            // The authorization was voided.
            "voided" => OrderStatus::Cancelled,
            word => OrderStatus::parse_or_other(word),
        }
    };
    let order = Order {
        number,
        status,
        platform_status,
        total: Money { amount, currency },
        refunded: refunded_amount(&fields, currency)?,
        customer_ref: fields.text("/customer/id")?,
        payment_ref: None,
        sequence: 0,
        placed_at: fields.timestamp("/created_at")?,
        lines: lines(&fields)?,
    };
    let version: OffsetDateTime =
        fields.timestamp("/updated_at")?.or(envelope.version).unwrap_or(envelope.received_at);
    Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
}

/// Maps a refund event. It may refund no money: goods that were only restocked.
fn refund(envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &REFUND_EVENT_POINTERS)?;
    let refund_id = fields.required_text("/id")?;
    let order_id = fields.required_text("/order_id")?;
    let mut paid_back: Option<Money> = None;
    for transaction in fields.list("/transactions", &TRANSACTION_POINTERS)? {
        if !is_successful_refund(&transaction)? {
            continue;
        }
        let amount = transaction.required_decimal("/amount")?;
        let currency = transaction.required_currency("/currency")?;
        let sum = match paid_back {
            None => Some(amount),
            Some(before) if before.currency == currency => before.amount.checked_add(amount),
            Some(_) => None,
        };
        let amount = sum.ok_or_else(|| {
            PermanentFailure::invalid(
                "/transactions",
                "have several currencies, or their sum is too large",
            )
        })?;
        paid_back = Some(Money { amount, currency });
    }
    let Some(amount) = paid_back else { return Ok(MappedEvent::Ignored) };
    let processed = fields.timestamp("/processed_at")?;
    let version = match processed {
        Some(moment) => moment,
        None => fields.timestamp("/created_at")?.unwrap_or(envelope.received_at),
    };
    Ok(MappedEvent::from(Refund {
        refund_id,
        target: RefundTarget::Order(order_id),
        status: RefundStatus::Succeeded,
        platform_status: "success".to_owned(),
        amount,
        cumulative: false,
        version,
    }))
}

/// Whether a transaction is a successful refund.
fn is_successful_refund(transaction: &JsonFields<'_>) -> Result<bool, PermanentFailure> {
    let is = |pointer: &str, word: &str| {
        transaction.text(pointer).map(|text| text.as_deref() == Some(word))
    };
    Ok(is("/kind", "refund")? && is("/status", "success")?)
}

fn lines(fields: &JsonFields<'_>) -> Result<Vec<OrderLine>, PermanentFailure> {
    fields
        .list("/line_items", &LINE_POINTERS)?
        .iter()
        .map(|line| {
            let quantity = match line.decimal("/current_quantity")? {
                Some(quantity) => Some(quantity),
                None => line.decimal("/quantity")?,
            };
            let unit_price = line.decimal("/price")?;
            Ok(OrderLine {
                id: line.text("/id")?,
                sku: line.text("/sku")?,
                title: line.text("/title")?,
                quantity,
                unit_price,
                total: quantity.zip(unit_price).and_then(|(count, price)| count.checked_mul(price)),
            })
        })
        .collect()
}

/// The refunded amount: the sum of all successful refund transactions. An order contains
/// all its refunds, so this is the total.
///
/// If the customer paid in another currency than the shop's, the transactions are in the
/// customer's currency. Such amounts are not added.
fn refunded_amount(
    fields: &JsonFields<'_>,
    currency: Currency,
) -> Result<Decimal, PermanentFailure> {
    let mut sum = Decimal::ZERO;
    for refund in fields.list("/refunds", &REFUND_POINTERS)? {
        for transaction in refund.list("/transactions", &TRANSACTION_POINTERS)? {
            let of_order = transaction
                .text("/currency")?
                .is_none_or(|code| code.eq_ignore_ascii_case(currency.as_str()));
            if of_order && is_successful_refund(&transaction)? {
                let amount = transaction.required_decimal("/amount")?;
                sum = sum.checked_add(amount).ok_or_else(|| {
                    PermanentFailure::invalid("/refunds", "have a sum that is too large")
                })?;
            }
        }
    }
    Ok(sum)
}
