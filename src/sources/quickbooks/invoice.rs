//! Invoices and bills, as `GET /v3/company/{realm}/{kind}/{id}` has them.

use std::sync::LazyLock;

use crate::{
    domain::{Change, Invoice, InvoiceStatus, Money, PermanentFailure, ResourceChange},
    sources::json_fields::{JsonFields, JsonPointers},
};

/// What is read of a document.
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
    JsonPointers::new(FIELDS.map(|name| format!("{root}{name}")))
}

/// What tells documents of a company apart, if they are of a kind that the
/// books have. An invoice and a bill may have the same id.
pub(super) fn document_id(kind: &str, id: &str) -> Option<String> {
    matches!(kind, "invoice" | "bill").then(|| format!("{kind}:{id}"))
}

/// The document's state, if it is of a kind that the books have.
pub(super) fn map(
    reference: &ResourceChange,
    resource: &[u8],
) -> Result<Option<Change>, PermanentFailure> {
    let (root, pointers): (_, &JsonPointers) = match reference.kind.as_str() {
        "invoice" => ("/Invoice", &INVOICE_POINTERS),
        "bill" => ("/Bill", &BILL_POINTERS),
        _ => return Ok(None),
    };
    let fields = JsonFields::read(resource, pointers)?;
    let at = |name: &str| format!("{root}{name}");
    let id = fields.required_text(&at("/Id"))?;
    let amount = fields.required_decimal(&at("/TotalAmt"))?;
    let balance = fields.decimal(&at("/Balance"))?;
    // There is no field for it. Voiding sets every amount to zero and writes
    // "Voided" before the note, and cannot be undone.
    let note = fields.text(&at("/PrivateNote")).ok().flatten().unwrap_or_default();
    let nothing_left = balance.is_some_and(|balance| balance.is_zero());
    let voided = reference.action == "voided"
        || (note.starts_with("Voided") && amount.is_zero() && nothing_left);
    let status = match (voided, nothing_left) {
        (true, _) => InvoiceStatus::Void,
        (false, true) => InvoiceStatus::Paid,
        (false, false) => InvoiceStatus::Open,
    };
    // We send invoices; who sends a bill is its vendor.
    let vendor = match fields.text(&at("/VendorRef/name"))? {
        Some(name) => name,
        None => fields.text(&at("/VendorRef/value"))?.unwrap_or_default(),
    };
    let invoice = Invoice {
        invoice_number: fields.text(&at("/DocNumber"))?.unwrap_or_else(|| id.clone()),
        document_id: self::document_id(&reference.kind, &id),
        vendor,
        transaction_id: None,
        status,
        // QuickBooks has no word for it.
        platform_status: String::new(),
        total: Money { amount, currency: fields.required_currency(&at("/CurrencyRef/value"))? },
        due_on: fields.date(&at("/DueDate"))?,
        sequence: fields.integer(&at("/SyncToken"))?.unwrap_or_default(),
        version: fields
            .timestamp(&at("/MetaData/LastUpdatedTime"))?
            .unwrap_or(reference.changed_at),
    };
    Ok(Some(Change::Invoice(Box::new(invoice))))
}
