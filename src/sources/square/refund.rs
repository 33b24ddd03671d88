//! `refund.created` and `refund.updated` events, which contain the complete refund.

use std::sync::LazyLock;

use super::money;
use crate::{
    domain::{Envelope, PermanentFailure, Refund, RefundStatus, RefundTarget},
    sources::json_fields::{JsonFields, JsonPointers},
};

static REFUND: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/data/object/refund/id",
        "/data/object/refund/order_id",
        "/data/object/refund/payment_id",
        "/data/object/refund/status",
        "/data/object/refund/amount_money/amount",
        "/data/object/refund/amount_money/currency",
        "/data/object/refund/updated_at",
    ])
});

/// Maps a refund.
pub(super) fn map(envelope: &Envelope) -> Result<Refund, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &REFUND)?;
    let platform_status = fields.required_text("/data/object/refund/status")?;
    let status = match platform_status.as_str() {
        "PENDING" => RefundStatus::Pending,
        "COMPLETED" => RefundStatus::Succeeded,
        "REJECTED" | "FAILED" => RefundStatus::Failed,
        _ => RefundStatus::Other,
    };
    // Square creates an order for each refund, and `order_id` is that order. The payment
    // leads to the order that was sold.
    let refunded = match fields.text("/data/object/refund/payment_id")? {
        Some(payment) => RefundTarget::Payment(payment),
        None => RefundTarget::Order(fields.required_text("/data/object/refund/order_id")?),
    };
    Ok(Refund {
        refund_id: fields.required_text("/data/object/refund/id")?,
        target: refunded,
        status,
        platform_status,
        amount: money::required(&fields, "/data/object/refund/amount_money")?,
        cumulative: false,
        version: fields
            .timestamp("/data/object/refund/updated_at")?
            .or(envelope.version)
            .unwrap_or(envelope.received_at),
    })
}
