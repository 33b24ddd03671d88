//! Etsy: events that tell which receipt changed, and the receipt as its API
//! tells it (`GET /v3/application/shops/<shop>/receipts/<id>`).
//!
//! Source of the rules: <https://developers.etsy.com>, webhooks and the open
//! API's reference of receipts.

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

/// Where the topic stands.
pub(super) const TOPIC_POINTER: &str = "/event_type";
/// Where the shop stands: a number, or a text.
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

/// The receipt that an event names; `None` for events of anything but orders.
pub(super) fn resource_change(
    event_type: &str,
    envelope: &Envelope,
) -> Result<Option<ResourceChange>, PermanentFailure> {
    let Some(action) = event_type.strip_prefix("order.") else { return Ok(None) };
    let url = JsonFields::read(&envelope.body, &EVENT_POINTERS)?.required_text(RECEIPT_URL)?;
    let id = receipt_id(&url).ok_or_else(|| {
        PermanentFailure::invalid(RECEIPT_URL, "names no receipt: no part of its path is a number")
    })?;
    Ok(Some(ResourceChange {
        platform: "etsy",
        kind: ORDER.to_owned(),
        id: id.to_owned(),
        version: None,
        // When it was signed: the body tells no time.
        changed_at: envelope.version.unwrap_or(envelope.received_at),
        action: action.to_ascii_lowercase(),
    }))
}

/// The last part of the path that is a number.
fn receipt_id(url: &str) -> Option<&str> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    path.rsplit('/').find(number)
}

/// A receipt as the API tells it.
///
/// Not certain, and so not relied on: which of the two names of each time
/// stays (both were seen side by side), and whether `refunds` lists refunds
/// that did not come about. What was paid back is left at nothing; the status
/// tells that something was.
pub(super) fn order(
    reference: &ResourceChange,
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
    let version = version.unwrap_or(reference.changed_at);
    Ok(OrderUpdate::State { order_id, version, order: Box::new(order), restored: false })
}

/// An amount as Etsy writes it: a count, and how many of those make one of
/// the currency's main unit.
fn money(fields: &JsonFields<'_>, place: &str) -> Result<Option<Money>, PermanentFailure> {
    let Some(count) = fields.decimal(&format!("{place}/amount"))? else { return Ok(None) };
    let divisor_at = format!("{place}/divisor");
    let divisor = fields.required_decimal(&divisor_at)?;
    let digits =
        (0_u32..=6).find(|digits| Decimal::from(10_u64.pow(*digits)) == divisor).ok_or_else(
            || PermanentFailure::invalid(divisor_at, "is no power of ten up to a million"),
        )?;
    let currency = fields.required_currency(&format!("{place}/currency_code"))?;
    Money::from_minor_units(count, currency, digits).map(Some).map_err(|error| {
        PermanentFailure::invalid(format!("{place}/amount"), format!("is {error}"))
    })
}

fn lines(fields: &JsonFields<'_>, currency: Currency) -> Result<Vec<OrderLine>, PermanentFailure> {
    fields
        .list("/transactions", &TRANSACTION_POINTERS)?
        .iter()
        .map(|line| {
            let quantity = line.decimal("/quantity")?;
            // A line's amounts are in the order's currency, or none of ours.
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

/// Our word for a receipt's state.
fn status(word: &str, unpaid: bool) -> OrderStatus {
    match word.to_ascii_lowercase().as_str() {
        "open" | "unpaid" | "payment processing" => OrderStatus::Pending,
        // Completed means sent, which may come before the money.
        "paid" | "completed" if unpaid => OrderStatus::Pending,
        "paid" | "completed" => OrderStatus::Paid,
        "canceled" => OrderStatus::Cancelled,
        "fully refunded" => OrderStatus::Refunded,
        "partially refunded" => OrderStatus::PartiallyRefunded,
        _ => OrderStatus::Other,
    }
}

/// The receipt's id, which is its number.
pub(super) fn business_key(body: &[u8]) -> Option<String> {
    receipt_id(&first_text(body, &EVENT_POINTERS, &[RECEIPT_URL])?).map(str::to_owned)
}
