//! Shopify: orders, by the headers and bodies of its webhooks.
//!
//! Source of the rules: <https://shopify.dev/docs/apps/build/webhooks> and
//! the REST Admin order resource, which is what `orders/*` webhooks carry.

#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use rust_decimal::Decimal;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, first_text,
    json_fields::{JsonFields, JsonPointers},
    sha256_hex,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{
    Currency, Envelope, MappedEvent, Money, Order, OrderLine, OrderStatus, OrderUpdate,
    PermanentFailure, Refund, RefundStatus, RefundTarget,
};

/// A Shopify source needs no settings of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shopify {}

/// Topics that carry the whole order.
const ORDER_TOPICS: [&str; 6] = [
    "orders/create",
    "orders/updated",
    "orders/paid",
    "orders/cancelled",
    "orders/fulfilled",
    "orders/partially_fulfilled",
];

/// What tells that a body is an order's state.
const STATE_FIELDS: [&str; 3] = ["/total_price", "/current_total_price", "/financial_status"];

/// Shopify's newer family of header names has no `X-`; a request may carry
/// both, and Shopify's own libraries prefer the newer one.
const SIGNATURES: [BodyHmac<'static>; 2] =
    [signature_in("shopify-hmac-sha256"), signature_in("x-shopify-hmac-sha256")];

const fn signature_in(header: &'static str) -> BodyHmac<'static> {
    BodyHmac { header, prefix: "", algorithm: Algorithm::Sha256, encoding: Encoding::Base64 }
}

/// A header of either family.
fn shopify_header<'a>(call: &WebhookRequest<'a>, name: &str) -> Option<&'a str> {
    call.header(&format!("shopify-{name}")).or_else(|| call.header(&format!("x-shopify-{name}")))
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

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let [newer, older] = SIGNATURES;
        if call.header(newer.header).is_some() {
            newer.verify(call, secrets)
        } else {
            older.verify(call, secrets)
        }
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.request();
        let required = |name: &str| {
            shopify_header(call, name).ok_or_else(|| {
                Rejection::Malformed(format!("the header X-Shopify-{name} is missing or empty"))
            })
        };
        let tenant = required("Shop-Domain")?.to_ascii_lowercase();
        let named = required("Topic")?;
        // The admin's "send test notification" sends a made-up order under a
        // real topic. It must be answered and must not reach the books.
        let test =
            shopify_header(call, "test").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let topic = if test { format!("test:{named}") } else { named.to_owned() };
        // The webhook id alone is no key: `X-Shopify-Event-Id` is shared by
        // topics, and the id headers are not signed.
        let delivery =
            shopify_header(call, "webhook-id").map_or_else(|| sha256_hex(call.body), str::to_owned);
        Ok(vec![Event {
            event_id: format!("{topic}:{delivery}"),
            tenant,
            topic,
            version: shopify_header(call, "triggered-at").and_then(parse_timestamp),
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let topic = envelope.topic.as_str();
        let update = if ORDER_TOPICS.contains(&topic) {
            order_state(envelope)?
        } else if topic == "orders/delete" {
            let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
            // The topic is not signed: an order's body, recorded on the way
            // and sent again as a deletion, must not be one. A deletion may
            // name totals, but they are null.
            if let Some(told) = STATE_FIELDS.into_iter().find(|pointer| fields.has(pointer)) {
                let detail = "stands in a deletion, which tells no state";
                return Err(PermanentFailure::invalid(told, detail));
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
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let triggered_at = delivery.triggered_at.format(&Rfc3339).unwrap_or_default();
        [
            ("x-shopify-topic", delivery.topic.to_owned()),
            ("x-shopify-shop-domain", delivery.tenant.to_owned()),
            ("x-shopify-webhook-id", delivery.event_id.to_owned()),
            ("x-shopify-triggered-at", triggered_at),
            ("x-shopify-hmac-sha256", SIGNATURES[1].sign(secret, delivery.body)),
        ]
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
    }
}

/// The order's whole state.
fn order_state(envelope: &Envelope) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &ORDER_POINTERS)?;
    let order_id = fields.required_text("/id")?;
    let currency = fields.required_currency("/currency")?;
    // After edits and refunds the current total tells the state; older API
    // versions have only the total at placement.
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
            // Shopify's word for an order whose authorization was withdrawn.
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

/// A refund told by itself. It may have paid back nothing: goods that were
/// only restocked.
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
                "are in several currencies, or too large a number",
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

/// Whether a refund's transaction is one that paid back, and has done so.
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

/// What was paid back: the successful refund transactions. An order carries
/// all its refunds, so this is the state, never something to add up twice.
///
/// Where the customer paid in another currency than the shop's, transactions
/// are in the customer's: those are left out rather than added to the shop's.
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
                    PermanentFailure::invalid("/refunds", "add up to too large a number")
                })?;
            }
        }
    }
    Ok(sum)
}
