//! Invoices and bills, as `GET /v3/company/{realm}/{kind}/{id}` returns them.

use std::sync::LazyLock;

use crate::{
    domain::{Change, Invoice, InvoiceStatus, Money, PermanentFailure, ResourceChange},
    sources::json_fields::{JsonFields, JsonPointers},
};

/// Fields of a document.
const FIELDS: [&str; 11] = [
    "/Id",
    "/DocNumber",
    "/VendorRef/name",
    "/VendorRef/value",
    "/PrivateNote",
    "/Balance",
    "/TotalAmt",
    "/CurrencyRef/value",
    "/DueDate",
    "/SyncToken",
    "/MetaData/LastUpdatedTime",
];

static INVOICE_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| pointers_below("/Invoice"));
static BILL_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| pointers_below("/Bill"));

fn pointers_below(root: &str) -> JsonPointers {
    JsonPointers::new(FIELDS.map(|field| format!("{root}{field}")))
}

/// The id under which a document is stored, if its kind is. An invoice and a bill may have the same
/// id at QuickBooks.
pub(super) fn document_id(kind: &str, id: &str) -> Option<String> {
    matches!(kind, "invoice" | "bill").then(|| format!("{kind}:{id}"))
}

/// Maps a document, if its kind is mapped.
pub(super) fn map(
    change: &ResourceChange,
    resource: &[u8],
) -> Result<Option<Change>, PermanentFailure> {
    let (root, pointers): (_, &JsonPointers) = match change.kind.as_str() {
        "invoice" => ("/Invoice", &INVOICE_POINTERS),
        "bill" => ("/Bill", &BILL_POINTERS),
        _ => return Ok(None),
    };
    let fields = JsonFields::read(resource, pointers)?;
    let pointer = |field: &str| format!("{root}{field}");
    let id = fields.required_text(&pointer("/Id"))?;
    let amount = fields.required_decimal(&pointer("/TotalAmt"))?;
    let balance = fields.decimal(&pointer("/Balance"))?;
    // There is no status field. Voiding sets every amount to zero and puts "Voided" before the
    // note; it is final.
    let note = fields.optional_text(&pointer("/PrivateNote")).unwrap_or_default();
    let is_balance_zero = balance.is_some_and(|balance| balance.is_zero());
    let is_void = change.action == "voided"
        || (note.starts_with("Voided") && amount.is_zero() && is_balance_zero);
    let status = match (is_void, is_balance_zero) {
        (true, _) => InvoiceStatus::Void,
        (false, true) => InvoiceStatus::Paid,
        (false, false) => InvoiceStatus::Open,
    };
    // The company issues its invoices; a bill is issued by its vendor.
    let vendor = match fields.text(&pointer("/VendorRef/name"))? {
        Some(name) => name,
        None => fields.text(&pointer("/VendorRef/value"))?.unwrap_or_default(),
    };
    let invoice = Invoice {
        invoice_number: fields.text(&pointer("/DocNumber"))?.unwrap_or_else(|| id.clone()),
        document_id: document_id(&change.kind, &id),
        vendor,
        transaction_id: None,
        status,
        // QuickBooks sends no status.
        platform_status: String::new(),
        total: Money {
            amount,
            currency: fields.required_currency(&pointer("/CurrencyRef/value"))?,
        },
        due_on: fields.date(&pointer("/DueDate"))?,
        sequence: fields.integer(&pointer("/SyncToken"))?.unwrap_or_default(),
        version: fields
            .timestamp(&pointer("/MetaData/LastUpdatedTime"))?
            .unwrap_or(change.changed_at),
    };
    Ok(Some(Change::Invoice(Box::new(invoice))))
}
