//! Invoices and bills, as `GET /api.xro/2.0/Invoices/{id}` returns them.

use std::sync::LazyLock;

use crate::{
    domain::{Change, Invoice, InvoiceStatus, Money, PermanentFailure, ResourceChange},
    sources::json_fields::{JsonFields, JsonPointers},
};

static INVOICE_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/Invoices/0/InvoiceID",
        "/Invoices/0/InvoiceNumber",
        "/Invoices/0/Type",
        "/Invoices/0/Status",
        "/Invoices/0/CurrencyCode",
        "/Invoices/0/Total",
        "/Invoices/0/DueDateString",
        "/Invoices/0/DueDate",
        "/Invoices/0/Contact/Name",
        "/Invoices/0/UpdatedDateUTC",
    ])
});

/// Maps an invoice or a bill.
pub(super) fn map(change: &ResourceChange, resource: &[u8]) -> Result<Change, PermanentFailure> {
    let fields = JsonFields::read(resource, &INVOICE_POINTERS)?;
    let id = fields.required_text("/Invoices/0/InvoiceID")?;
    let platform_status = fields.required_text("/Invoices/0/Status")?;
    let status = match platform_status.to_uppercase().as_str() {
        "DRAFT" | "SUBMITTED" => InvoiceStatus::Draft,
        "AUTHORISED" => InvoiceStatus::Open,
        "PAID" => InvoiceStatus::Paid,
        "VOIDED" | "DELETED" => InvoiceStatus::Void,
        _ => InvoiceStatus::Other,
    };
    // ACCREC is an invoice that the organisation issued, ACCPAY a bill of a supplier.
    let is_bill =
        fields.text("/Invoices/0/Type")?.is_some_and(|kind| kind.eq_ignore_ascii_case("ACCPAY"));
    let vendor = if is_bill { fields.text("/Invoices/0/Contact/Name")? } else { None };
    let due_on = match fields.date("/Invoices/0/DueDateString")? {
        Some(date) => Some(date),
        None => fields.date("/Invoices/0/DueDate")?,
    };
    Ok(Change::Invoice(Box::new(Invoice {
        // A bill's number is the supplier's, and may be missing.
        invoice_number: fields.text("/Invoices/0/InvoiceNumber")?.unwrap_or_else(|| id.clone()),
        document_id: Some(id),
        vendor: vendor.unwrap_or_default(),
        transaction_id: None,
        status,
        platform_status,
        total: Money {
            amount: fields.required_decimal("/Invoices/0/Total")?,
            currency: fields.required_currency("/Invoices/0/CurrencyCode")?,
        },
        due_on,
        sequence: 0,
        version: fields.timestamp("/Invoices/0/UpdatedDateUTC")?.unwrap_or(change.changed_at),
    })))
}
