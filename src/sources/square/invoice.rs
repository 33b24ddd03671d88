//! `invoice.*` events, which contain the complete invoice.

use std::sync::LazyLock;

use rust_decimal::Decimal;
use time::Date;

use super::money;
use crate::{
    domain::{Currency, Envelope, Invoice, InvoiceStatus, Money, PermanentFailure},
    sources::json_fields::{JsonFields, JsonPointers},
};

const REQUESTS: &str = "/data/object/invoice/payment_requests";

static INVOICE: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/data/object/invoice/id",
        "/data/object/invoice/invoice_number",
        "/data/object/invoice/status",
        "/data/object/invoice/version",
        "/data/object/invoice/updated_at",
        REQUESTS,
    ])
});
static REQUEST: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/due_date",
        "/computed_amount_money/amount",
        "/computed_amount_money/currency",
    ])
});

/// Maps an invoice.
pub(super) fn map(envelope: &Envelope) -> Result<Invoice, PermanentFailure> {
    let fields = JsonFields::read(&envelope.body, &INVOICE)?;
    let id = fields.required_text("/data/object/invoice/id")?;
    let platform_status = fields.required_text("/data/object/invoice/status")?;
    let (total, due_on) = requested(&fields)?;
    Ok(Invoice {
        // A draft gets its number when it is published.
        invoice_number: fields
            .text("/data/object/invoice/invoice_number")?
            .unwrap_or_else(|| id.clone()),
        document_id: Some(id),
        // The source is the vendor.
        vendor: String::new(),
        transaction_id: None,
        status: status(&platform_status),
        platform_status,
        total,
        due_on,
        sequence: fields.integer("/data/object/invoice/version")?.unwrap_or_default(),
        version: fields
            .timestamp("/data/object/invoice/updated_at")?
            .or(envelope.version)
            .unwrap_or(envelope.received_at),
    })
}

fn status(word: &str) -> InvoiceStatus {
    match word {
        "DRAFT" => InvoiceStatus::Draft,
        "UNPAID" | "SCHEDULED" | "PARTIALLY_PAID" | "PAYMENT_PENDING" => InvoiceStatus::Open,
        // A refunded invoice was paid before.
        "PAID" | "PARTIALLY_REFUNDED" | "REFUNDED" => InvoiceStatus::Paid,
        // FAILED: "Square canceled the invoice due to suspicious activity".
        "CANCELED" | "FAILED" => InvoiceStatus::Void,
        _ => InvoiceStatus::Other,
    }
}

/// The sum of the payment requests, one for each installment, and the latest due date.
/// Square has no field for the total.
fn requested(fields: &JsonFields<'_>) -> Result<(Money, Option<Date>), PermanentFailure> {
    let mut total: Option<Money> = None;
    let mut due_on = None;
    for request in fields.list(REQUESTS, &REQUEST)? {
        let amount = match total {
            None => money::required(&request, "/computed_amount_money")?,
            Some(so_far) => further(&request, so_far)?,
        };
        total = Some(amount);
        due_on = due_on.max(request.date("/due_date")?);
    }
    Ok((total.ok_or_else(|| PermanentFailure::missing(REQUESTS))?, due_on))
}

fn further(request: &JsonFields<'_>, so_far: Money) -> Result<Money, PermanentFailure> {
    let currency: Currency = so_far.currency;
    let amount: Decimal = money::optional(request, "/computed_amount_money", currency)?
        .ok_or_else(|| {
            PermanentFailure::missing(request.path_of("/computed_amount_money/amount"))
        })?;
    Ok(Money { amount: money::checked_sum(so_far.amount, amount, REQUESTS)?, currency })
}
