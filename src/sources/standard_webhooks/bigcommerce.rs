//! `BigCommerce`: events that name a changed order, and the order in its API (`GET
//! /stores/<hash>/v2/orders/<id>`).
//!
//! Rules: <https://developer.bigcommerce.com/docs/webhooks> and its reference of orders
//! (V2). Unsigned events, which old hooks are said to send, are rejected.

use std::sync::LazyLock;

use super::ORDER;
use crate::{
    domain::{Envelope, Money, Order, OrderStatus, OrderUpdate, PermanentFailure, ResourceChange},
    sources::{
        first_text,
        json_fields::{JsonFields, JsonPointers},
    },
};

/// Pointer to the topic.
pub(super) const TOPIC_POINTER: &str = "/scope";
/// Pointer to the store: `stores/<hash>`.
pub(super) const TENANT_POINTER: &str = "/producer";

static EVENT_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(["/data/type", "/data/id", "/created_at"]));
static ORDER_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/id",
        "/status",
        "/payment_status",
        "/currency_code",
        "/total_inc_tax",
        "/refunded_amount",
        "/customer_id",
        "/date_created",
        "/date_modified",
    ])
});

/// The order that an event names; `None` for other events.
pub(super) fn resource_change(
    scope: &str,
    envelope: &Envelope,
) -> Result<Option<ResourceChange>, PermanentFailure> {
    let Some(action) = action(scope) else { return Ok(None) };
    let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
    if fields.text("/data/type")?.is_some_and(|named| named != ORDER) {
        return Ok(None);
    }
    let changed_at = fields.timestamp("/created_at")?.or(envelope.version);
    Ok(Some(ResourceChange {
        platform: "bigcommerce",
        kind: ORDER.to_owned(),
        // A refund event also names its order; the refund is in `/data/refund`.
        id: fields.required_text("/data/id")?,
        version: None,
        changed_at: changed_at.unwrap_or(envelope.received_at),
        action,
    }))
}

/// The action on an order, in snake case: `store/order/statusUpdated` is `status_updated`,
/// `store/order/refund/created` is `refund_created`.
fn action(scope: &str) -> Option<String> {
    let named = scope.strip_prefix("store/order/")?;
    // A message about an order does not change it.
    if named.starts_with("message/") {
        return None;
    }
    let mut action = String::with_capacity(named.len() + 1);
    for character in named.chars() {
        match character {
            '/' => action.push('_'),
            upper if upper.is_ascii_uppercase() => {
                action.push('_');
                action.push(upper.to_ascii_lowercase());
            }
            other => action.push(other),
        }
    }
    Some(action)
}

/// Maps an order of the API. Its lines are another resource.
pub(super) fn order(
    change: &ResourceChange,
    resource: &[u8],
) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(resource, &ORDER_POINTERS)?;
    let order_id = fields.required_text("/id")?;
    let platform_status = fields.text("/status")?.unwrap_or_default();
    let payment = fields.text("/payment_status")?.unwrap_or_default();
    let order = Order {
        number: order_id.clone(),
        status: status(&platform_status, &payment),
        platform_status,
        total: Money {
            amount: fields.required_decimal("/total_inc_tax")?,
            currency: fields.required_currency("/currency_code")?,
        },
        refunded: fields.decimal("/refunded_amount")?.unwrap_or_default(),
        // 0 is a guest.
        customer_ref: fields.text("/customer_id")?.filter(|id| id != "0"),
        payment_ref: None,
        sequence: 0,
        placed_at: fields.timestamp("/date_created")?,
        lines: Vec::new(),
    };
    let version = fields.timestamp("/date_modified")?.unwrap_or(change.changed_at);
    Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
}

/// The normalized status of an order.
///
/// | `BigCommerce` | normalized |
/// |---|---|
/// | Incomplete, Pending, Awaiting Payment | pending |
/// | Cancelled, Declined | cancelled |
/// | Refunded | refunded |
/// | Partially Refunded | partially_refunded |
/// | Awaiting Fulfillment, Awaiting Shipment, Awaiting Pickup, Shipped, Partially Shipped,
/// Completed | by payment status, else paid |
/// | Manual Verification Required | by payment status, else other |
/// | Disputed, unknown | other |
fn status(word: &str, payment: &str) -> OrderStatus {
    match word.to_ascii_lowercase().as_str() {
        "incomplete" | "pending" | "awaiting payment" => OrderStatus::Pending,
        "cancelled" | "declined" => OrderStatus::Cancelled,
        "refunded" => OrderStatus::Refunded,
        "partially refunded" => OrderStatus::PartiallyRefunded,
        "awaiting fulfillment"
        | "awaiting shipment"
        | "awaiting pickup"
        | "shipped"
        | "partially shipped"
        | "completed" => payment_status(payment).unwrap_or(OrderStatus::Paid),
        "manual verification required" => payment_status(payment).unwrap_or(OrderStatus::Other),
        _ => OrderStatus::Other,
    }
}

/// The status by the payment status, which is more specific than the fulfilment's. It is
/// empty for payments that `BigCommerce` does not process, such as cash.
fn payment_status(payment: &str) -> Option<OrderStatus> {
    Some(match payment.to_ascii_lowercase().as_str() {
        "paid" | "captured" => OrderStatus::Paid,
        "authorized" | "capture pending" => OrderStatus::Authorized,
        "pending" | "held for review" => OrderStatus::Pending,
        "declined" => OrderStatus::Failed,
        "void" | "void pending" => OrderStatus::Cancelled,
        "refunded" => OrderStatus::Refunded,
        "partially refunded" => OrderStatus::PartiallyRefunded,
        _ => return None,
    })
}

/// The order id, which is also its number.
pub(super) fn business_key(body: &[u8]) -> Option<String> {
    first_text(body, &EVENT_POINTERS, &["/data/id"])
}
