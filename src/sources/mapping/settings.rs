//! Where an order's, an invoice's or a refund's fields stand, as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::sources::selector::{FieldPointer, FieldSource};

/// Where an order's fields stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderFields {
    /// The topics that carry a whole order; a `*` at the end stands for any
    /// rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The topics that tell of a deletion; of the body, only the id is read.
    #[serde(default)]
    pub deleted_topics: Vec<String>,
    /// The sender's id of the order.
    pub id: FieldSource,
    /// The number that people know it by; default: the id.
    pub number: Option<FieldSource>,
    /// The sender's word for its state.
    pub status: Option<FieldSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// What it costs.
    pub total: FieldSource,
    /// Whether amounts are whole numbers of the currency's smallest unit
    /// (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// How much of it was paid back; default: nothing.
    pub refunded: Option<FieldSource>,
    /// The sender's reference to the customer.
    pub customer: Option<FieldSource>,
    /// When it was placed.
    pub placed_at: Option<FieldPointer>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldPointer>,
    /// The list of lines.
    pub lines: Option<FieldPointer>,
    /// Where a line's fields stand within it.
    #[serde(default)]
    pub line: LineFields,
}

/// Where a line's fields stand, as pointers within the line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LineFields {
    /// The sender's id of the line.
    pub id: Option<FieldSource>,
    /// The article number.
    pub sku: Option<FieldSource>,
    /// What the customer was shown.
    pub title: Option<FieldSource>,
    /// How many.
    pub quantity: Option<FieldSource>,
    /// Price of one.
    pub unit_price: Option<FieldSource>,
    /// Price of all.
    pub total: Option<FieldSource>,
}

/// Where an invoice's fields stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceFields {
    /// The topics that carry an invoice; a `*` at the end stands for any
    /// rest. Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The sender's own id of the document, where it stays while the number
    /// may change; default: vendor and number tell which invoice it is.
    pub document_id: Option<FieldSource>,
    /// The vendor; default: the source is the vendor.
    pub vendor: Option<FieldSource>,
    /// The vendor's number for the invoice.
    pub invoice_number: FieldSource,
    /// The sender's id of the transaction behind it.
    pub transaction_id: Option<FieldSource>,
    /// The sender's word for its state; default `open`.
    pub status: Option<FieldSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// What it is over.
    pub total: FieldSource,
    /// Whether amounts are whole numbers of the currency's smallest unit
    /// (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// The day by which it is to be paid.
    pub due_on: Option<FieldPointer>,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldPointer>,
}

/// Where a refund's fields stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefundFields {
    /// The topics that carry a refund; a `*` at the end stands for any rest.
    /// Default: all.
    #[serde(default = "all")]
    pub topics: Vec<String>,
    /// The sender's id of the refund: it is applied once.
    pub id: FieldSource,
    /// The sender's id of the order.
    pub order_id: FieldSource,
    /// The sender's word for its state; default `succeeded`.
    pub status: Option<FieldSource>,
    /// Our word for each of the sender's; a word that is not listed and not
    /// one of ours is `other`. Only `succeeded` counts.
    #[serde(default)]
    pub statuses: BTreeMap<String, String>,
    /// The currency, ISO 4217.
    pub currency: FieldSource,
    /// How much went back.
    pub amount: FieldSource,
    /// Whether amounts are whole numbers of the currency's smallest unit
    /// (cents); default false.
    #[serde(default)]
    pub minor_units: bool,
    /// The version for the stale guard: a time. Default: the event's
    /// version, else when it was received.
    pub version: Option<FieldPointer>,
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// The settings contradict themselves.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidSettings {
    /// The key within the source.
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

/// Checks that statuses are translated to words of ours.
///
/// # Errors
/// [`InvalidSettings`] that names the sender's word.
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
    /// Every pointer into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, number, status, currency, total, refunded, customer, .. } = self;
        let values = [Some(id), Some(currency), Some(total)].into_iter();
        let values = values.chain([number, status, refunded, customer].map(Option::as_ref));
        let moving = [&self.placed_at, &self.version, &self.lines].into_iter().flatten();
        values.flatten().filter_map(FieldSource::pointer).chain(moving.map(FieldPointer::as_str))
    }
}

impl LineFields {
    /// Every pointer into a line.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, sku, title, quantity, unit_price, total } = self;
        let values = [id, sku, title, quantity, unit_price, total].into_iter().flatten();
        values.filter_map(FieldSource::pointer)
    }
}

impl InvoiceFields {
    /// Every pointer into the body.
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
    /// Every pointer into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { id, order_id, status, currency, amount, .. } = self;
        let values = [id, order_id, currency, amount].into_iter().chain(status);
        values.filter_map(FieldSource::pointer).chain(self.version.iter().map(FieldPointer::as_str))
    }
}
