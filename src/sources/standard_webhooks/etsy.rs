//! Etsy: events that name a changed receipt (an order), and the receipt in its API (`GET
//! /v3/application/shops/<shop>/receipts/<id>`).
//!
//! Rules: <https://developers.etsy.com>, webhooks and the open API's reference of receipts.

use std::sync::LazyLock;

use rust_decimal::Decimal;

use super::ORDER;
use crate::{
    domain::{
        Currency, Envelope, Money, Order, OrderLine, OrderStatus, OrderUpdate, PermanentFailure,
        ResourceChange,
    },
    sources::{
        first_text,
        json_fields::{JsonFields, JsonPointers},
    },
};

/// Pointer to the topic.
pub(super) const TOPIC_POINTER: &str = "/event_type";
/// Pointer to the shop: a number or a text.
pub(super) const TENANT_POINTER: &str = "/shop_id";

const RECEIPT_URL: &str = "/resource_url";

static EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| JsonPointers::new([RECEIPT_URL]));
static RECEIPT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/receipt_id",
        "/status",
        "/is_paid",
        "/grandtotal/amount",
        "/grandtotal/divisor",
        "/grandtotal/currency_code",
        "/buyer_user_id",
        "/created_timestamp",
        "/create_timestamp",
        "/updated_timestamp",
        "/update_timestamp",
        "/transactions",
    ])
});
static TRANSACTION_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/transaction_id",
        "/sku",
        "/title",
        "/quantity",
        "/price/amount",
        "/price/divisor",
        "/price/currency_code",
    ])
});

/// The receipt that an event names; `None` for events about other things.
pub(super) fn resource_change(
    event_type: &str,
    envelope: &Envelope,
) -> Result<Option<ResourceChange>, PermanentFailure> {
    let Some(action) = event_type.strip_prefix("order.") else { return Ok(None) };
    let url = JsonFields::read(&envelope.body, &EVENT_POINTERS)?.required_text(RECEIPT_URL)?;
    let id = receipt_id(&url).ok_or_else(|| {
        PermanentFailure::invalid(
            RECEIPT_URL,
            "names no receipt: no segment of its path is a number",
        )
    })?;
    Ok(Some(ResourceChange {
        platform: "etsy",
        kind: ORDER.to_owned(),
        id: id.to_owned(),
        version: None,
        // The signed timestamp: the body contains none.
        changed_at: envelope.version.unwrap_or(envelope.received_at),
        action: action.to_ascii_lowercase(),
    }))
}

/// The last segment of the path that is a number.
fn receipt_id(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    path.rsplit('/').find(number)
}

/// Maps a receipt of the API.
///
/// Two facts are undocumented, so the mapping does not rely on them: which of the two names
/// of each timestamp stays (both were observed together), and whether `refunds` contains
/// failed refunds. So the refunded amount stays zero; the status shows that there were
/// refunds.
pub(super) fn order(
    change: &ResourceChange,
    resource: &[u8],
) -> Result<OrderUpdate, PermanentFailure> {
    let fields = JsonFields::read(resource, &RECEIPT_POINTERS)?;
    let order_id = fields.required_text("/receipt_id")?;
    let platform_status = fields.text("/status")?.unwrap_or_default();
    let unpaid = fields.text("/is_paid")?.as_deref() == Some("false");
    let total = money(&fields, "/grandtotal")?
        .ok_or_else(|| PermanentFailure::missing("/grandtotal/amount"))?;
    let either = |pointers: [&str; 2]| {
        let [newer, older] = pointers.map(|pointer| fields.timestamp(pointer));
        Ok::<_, PermanentFailure>(newer?.or(older?))
    };
    let order = Order {
        number: order_id.clone(),
        status: status(&platform_status, unpaid),
        platform_status,
        total,
        refunded: Decimal::ZERO,
        customer_ref: fields.text("/buyer_user_id")?,
        payment_ref: None,
        sequence: 0,
        placed_at: either(["/created_timestamp", "/create_timestamp"])?,
        lines: lines(&fields, total.currency)?,
    };
    let version = either(["/updated_timestamp", "/update_timestamp"])?;
    let version = version.unwrap_or(change.changed_at);
    Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
}

/// An amount of Etsy: a count, and how many of it make one main unit.
fn money(fields: &JsonFields<'_>, root: &str) -> Result<Option<Money>, PermanentFailure> {
    let Some(count) = fields.decimal(&format!("{root}/amount"))? else { return Ok(None) };
    let divisor_pointer = format!("{root}/divisor");
    let divisor = fields.required_decimal(&divisor_pointer)?;
    let digits =
        (0_u32..=6).find(|digits| Decimal::from(10_u64.pow(*digits)) == divisor).ok_or_else(
            || PermanentFailure::invalid(divisor_pointer, "is not a power of ten up to a million"),
        )?;
    let currency = fields.required_currency(&format!("{root}/currency_code"))?;
    Money::from_minor_units(count, currency, digits)
        .map(Some)
        .map_err(|error| PermanentFailure::invalid(format!("{root}/amount"), format!("is {error}")))
}

fn lines(fields: &JsonFields<'_>, currency: Currency) -> Result<Vec<OrderLine>, PermanentFailure> {
    fields
        .list("/transactions", &TRANSACTION_POINTERS)?
        .iter()
        .map(|line| {
            let quantity = line.decimal("/quantity")?;
            // Amounts in another currency than the order's are ignored.
            let unit_price = money(line, "/price")?
                .filter(|price| price.currency == currency)
                .map(|price| price.amount);
            Ok(OrderLine {
                id: line.text("/transaction_id")?,
                sku: line.text("/sku")?,
                title: line.text("/title")?,
                quantity,
                unit_price,
                total: quantity.zip(unit_price).and_then(|(count, price)| count.checked_mul(price)),
            })
        })
        .collect()
}

/// The normalized status of a receipt.
fn status(word: &str, unpaid: bool) -> OrderStatus {
    match word.to_ascii_lowercase().as_str() {
        "open" | "unpaid" | "payment processing" => OrderStatus::Pending,
        // Completed means shipped, which may be before payment.
        "paid" | "completed" if unpaid => OrderStatus::Pending,
        "paid" | "completed" => OrderStatus::Paid,
        "canceled" => OrderStatus::Cancelled,
        "fully refunded" => OrderStatus::Refunded,
        "partially refunded" => OrderStatus::PartiallyRefunded,
        _ => OrderStatus::Other,
    }
}

/// The receipt id, which is also its number.
pub(super) fn business_key(body: &[u8]) -> Option<String> {
    receipt_id(&first_text(body, &EVENT_POINTERS, &[RECEIPT_URL])?).map(str::to_owned)
}
