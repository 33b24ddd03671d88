//! Settings of the fields of orders, invoices and refunds.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::sources::selector::{FieldPointer, FieldSource};

/// Where the fields of an order are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFields {
    /// Topics of events with a complete order; a `*` at the end matches any rest. Default:
    /// all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// Topics of deletions; only the id is read.
    #[serde(default)]
    pub deleted_topics: Vec<String>,
    /// The sender's id of the order.
    pub id: FieldSource,
    /// The order number shown to people; default: the id.
    pub number: Option<FieldSource>,
    /// The sender's status.
    pub status: Option<FieldSource>,
    /// Our status for each status of the sender; an unlisted status that is not one of ours
    /// becomes `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// Total.
    pub total: FieldSource,
    /// Whether amounts are in minor units (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// Refunded amount; default: zero.
    pub refunded: Option<FieldSource>,
    /// The sender's reference to the customer.
    pub customer: Option<FieldSource>,
    /// When the order was placed.
    pub placed_at: Option<FieldPointer>,
    /// The version for the stale check: a timestamp. Default: the version of the event,
    /// else the time of receipt.
    pub version: Option<FieldPointer>,
    /// The list of lines.
    pub lines: Option<FieldPointer>,
    /// Where the fields of a line are within it.
    #[serde(default)]
    pub line: LineFields,
}

/// Where the fields of a line are, as pointers within the line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFields {
    /// The sender's id of the line.
    pub id: Option<FieldSource>,
    /// The article number.
    pub sku: Option<FieldSource>,
    /// The title shown to the customer.
    pub title: Option<FieldSource>,
    /// Quantity.
    pub quantity: Option<FieldSource>,
    /// Price of one unit.
    pub unit_price: Option<FieldSource>,
    /// Price of the line.
    pub total: Option<FieldSource>,
}

/// Where the fields of an invoice are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceFields {
    /// Topics of events with an invoice; a `*` at the end matches any rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The sender's id of the document, if it stays the same while the number may change.
    /// Default: vendor and number identify the invoice.
    pub document_id: Option<FieldSource>,
    /// The vendor; default: the source is the vendor.
    pub vendor: Option<FieldSource>,
    /// The vendor's number for the invoice.
    pub invoice_number: FieldSource,
    /// The sender's id of the transaction behind the invoice.
    pub transaction_id: Option<FieldSource>,
    /// The sender's status; default `open`.
    pub status: Option<FieldSource>,
    /// Our status for each status of the sender; an unlisted status that is not one of ours
    /// becomes `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// Total.
    pub total: FieldSource,
    /// Whether amounts are in minor units (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// Due date.
    pub due_on: Option<FieldPointer>,
    /// The version for the stale check: a timestamp. Default: the version of the event,
    /// else the time of receipt.
    pub version: Option<FieldPointer>,
}

/// Where the fields of a refund are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundFields {
    /// Topics of events with a refund; a `*` at the end matches any rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The sender's id of the refund; a refund is applied once.
    pub id: FieldSource,
    /// The sender's id of the order.
    pub order_id: FieldSource,
    /// The sender's status; default `succeeded`.
    pub status: Option<FieldSource>,
    /// Our status for each status of the sender; an unlisted status that is not one of ours
    /// becomes `other`. Only `succeeded` counts.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// Refunded amount.
    pub amount: FieldSource,
    /// Whether amounts are in minor units (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// The version for the stale check: a timestamp. Default: the version of the event,
    /// else the time of receipt.
    pub version: Option<FieldPointer>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Settings that are invalid or contradict each other.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidSettings {
    /// The key within the source's section.
    pub field: String,
    /// What is wrong.
    pub detail: String,
}

impl InvalidSettings {
    /// A key, and what is wrong with it.
    pub fn new(field: &str, detail: impl Into<String>) -> Self {
        Self { field: field.to_owned(), detail: detail.into() }
    }
}

/// Checks that statuses are mapped to known ones.
///
/// # Errors
/// [`InvalidSettings`] with the sender's status.
pub(in crate::sources) fn check_statuses(
    key: &str,
    statuses: &BTreeMap<String, String>,
    words: &[&str],
) -> Result<(), InvalidSettings> {
    match statuses.iter().find(|(_, ours)| !words.contains(&ours.as_str())) {
        None => Ok(()),
        Some((theirs, ours)) => Err(InvalidSettings::new(
            &format!("{key}.{theirs}"),
            format!("{ours:?} is not one of {}", words.join(", ")),
        )),
    }
}

impl OrderFields {
    /// All pointers into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, number, status, currency, total, refunded, customer, .. } = self;
        let values = [Some(id), Some(currency), Some(total)].into_iter();
        let values = values.chain([number, status, refunded, customer].map(Option::as_ref));
        let moving = [&self.placed_at, &self.version, &self.lines].into_iter().flatten();
        values.flatten().filter_map(FieldSource::pointer).chain(moving.map(FieldPointer::as_str))
    }
}

impl LineFields {
    /// All pointers into a line.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, sku, title, quantity, unit_price, total } = self;
        let values = [id, sku, title, quantity, unit_price, total].into_iter().flatten();
        values.filter_map(FieldSource::pointer)
    }
}

impl InvoiceFields {
    /// All pointers into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { document_id, vendor, invoice_number, transaction_id, status, .. } = self;
        let values = [invoice_number, &self.currency, &self.total].map(Some).into_iter();
        let values =
            values.chain([document_id, vendor, transaction_id, status].map(Option::as_ref));
        let moving = [&self.due_on, &self.version].into_iter().flatten();
        values.flatten().filter_map(FieldSource::pointer).chain(moving.map(FieldPointer::as_str))
    }
}

impl RefundFields {
    /// All pointers into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, order_id, status, currency, amount, .. } = self;
        let values = [id, order_id, currency, amount].into_iter().chain(status);
        values.filter_map(FieldSource::pointer).chain(self.version.iter().map(FieldPointer::as_str))
    }
}
