//! Orders, as `GET /v2/orders/{id}` returns them.

use std::sync::LazyLock;

use rust_decimal::Decimal;

use super::money;
use crate::{
    domain::{
        Change, Currency, Order, OrderLine, OrderStatus, OrderUpdate, PermanentFailure,
        ResourceChange,
    },
    sources::json_fields::{JsonFields, JsonPointers},
};

static ORDER: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/order/id",
        "/order/reference_id",
        "/order/state",
        "/order/version",
        "/order/total_money/amount",
        "/order/total_money/currency",
        "/order/net_amount_due_money/amount",
        "/order/net_amount_due_money/currency",
        "/order/customer_id",
        "/order/tenders/0/payment_id",
        "/order/tenders/0/id",
        "/order/created_at",
        "/order/updated_at",
        "/order/line_items",
        "/order/returns",
        "/order/refunds",
    ])
});
static LINE: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/uid",
        "/catalog_object_id",
        "/name",
        "/quantity",
        "/base_price_money/amount",
        "/base_price_money/currency",
        "/total_money/amount",
        "/total_money/currency",
    ])
});
static REFUND: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new(["/status", "/amount_money/amount", "/amount_money/currency"])
});

/// Maps an order. `None` for an order that Square creates for a refund, which only returns
/// what another order sold.
pub(super) fn map(
    change: &ResourceChange,
    resource: &[u8],
) -> Result<Option<Change>, PermanentFailure> {
    let fields = JsonFields::read(resource, &ORDER)?;
    let order_id = fields.required_text("/order/id")?;
    if fields.count("/order/returns")? > 0 && fields.count("/order/line_items")? == 0 {
        return Ok(None);
    }
    let total = money::required(&fields, "/order/total_money")?;
    let currency = total.currency;
    let due = money::optional(&fields, "/order/net_amount_due_money", currency)?;
    let refunded = refunded(&fields, currency)?;
    let platform_status = fields.required_text("/order/state")?;
    let status = match platform_status.as_str() {
        "DRAFT" => OrderStatus::Pending,
        "CANCELED" => OrderStatus::Cancelled,
        "COMPLETED" => paid(total.amount, refunded),
        // An open order may be paid and not yet fulfilled.
        "OPEN" => match due {
            Some(due) if due.is_zero() => paid(total.amount, refunded),
            Some(due) if due < total.amount => OrderStatus::PartiallyPaid,
            _ => OrderStatus::Pending,
        },
        _ => OrderStatus::Other,
    };
    let payment_ref = match fields.text("/order/tenders/0/payment_id")? {
        Some(payment) => Some(payment),
        None => fields.text("/order/tenders/0/id")?,
    };
    let order = Order {
        number: fields.text("/order/reference_id")?.unwrap_or_else(|| order_id.clone()),
        status,
        platform_status,
        total,
        refunded,
        customer_ref: fields.text("/order/customer_id")?,
        payment_ref,
        sequence: fields.integer("/order/version")?.unwrap_or_default(),
        placed_at: fields.timestamp("/order/created_at")?,
        lines: lines(&fields, currency)?,
    };
    let version = fields.timestamp("/order/updated_at")?.unwrap_or(change.changed_at);
    let state = OrderUpdate::State { order_id, version, order: Box::new(order), restored: false };
    Ok(Some(Change::Order(Box::new(state))))
}

fn paid(total: Decimal, refunded: Decimal) -> OrderStatus {
    if refunded.is_zero() {
        OrderStatus::Paid
    } else if refunded < total {
        OrderStatus::PartiallyRefunded
    } else {
        OrderStatus::Refunded
    }
}

fn lines(fields: &JsonFields<'_>, currency: Currency) -> Result<Vec<OrderLine>, PermanentFailure> {
    fields
        .list("/order/line_items", &LINE)?
        .iter()
        .map(|line| {
            Ok(OrderLine {
                id: line.text("/uid")?,
                // Square's orders contain no article numbers, only catalog ids.
                sku: line.text("/catalog_object_id")?,
                title: line.text("/name")?,
                quantity: line.decimal("/quantity")?,
                unit_price: money::optional(line, "/base_price_money", currency)?,
                total: money::optional(line, "/total_money", currency)?,
            })
        })
        .collect()
}

/// The refunded amount. An order contains all its refunds, so this is the total.
fn refunded(fields: &JsonFields<'_>, currency: Currency) -> Result<Decimal, PermanentFailure> {
    let mut sum = Decimal::ZERO;
    for refund in fields.list("/order/refunds", &REFUND)? {
        if matches!(refund.text("/status")?.as_deref(), Some("COMPLETED" | "APPROVED")) {
            let amount = money::optional(&refund, "/amount_money", currency)?
                .ok_or_else(|| PermanentFailure::missing(refund.path_of("/amount_money/amount")))?;
            sum = money::checked_sum(sum, amount, "/order/refunds")?;
        }
    }
    Ok(sum)
}
