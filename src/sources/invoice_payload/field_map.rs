//! The field map of an invoice.

use std::collections::BTreeMap;

use crate::{
    domain::{Currency, InvoiceStatus},
    sources::{
        mapping::{InvalidSettings, check_statuses},
        selector::{FieldPointer, FieldSource},
    },
};

/// Where the fields of an invoice are, and which are required.
#[derive(Clone, Debug)]
pub(in crate::sources) struct FieldMap {
    /// Whether vendor and currency are required. If not, they default to the source and to
    /// no currency.
    pub(in crate::sources) requires_vendor_and_currency: bool,
    /// Required.
    pub(in crate::sources) invoice_number: FieldPointer,
    /// Required if set.
    pub(in crate::sources) transaction_id: Option<FieldPointer>,
    /// Required.
    pub(in crate::sources) amount: FieldPointer,
    /// Whether the amount is in minor units.
    pub(in crate::sources) minor_units: bool,
    pub(in crate::sources) vendor: FieldSource,
    pub(in crate::sources) currency: FieldSource,
    pub(in crate::sources) due_on: FieldPointer,
    /// Default: `open`.
    pub(in crate::sources) status: Option<FieldSource>,
    /// Our status for each status of the sender.
    pub(in crate::sources) statuses: BTreeMap<String, String>,
    /// Default: the version of the event.
    pub(in crate::sources) version: Option<FieldPointer>,
}

impl FieldMap {
    /// Validates what the types do not.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        if let FieldSource::Constant(currency) = &self.currency {
            currency.parse::<Currency>().map_err(|error| {
                InvalidSettings::new("invoice.currency", format!("{currency:?}: {error}"))
            })?;
        }
        let words = InvoiceStatus::ALL.map(InvoiceStatus::as_str);
        check_statuses("invoice.statuses", &self.statuses, &words)
    }

    /// All pointers into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { invoice_number, transaction_id, amount, due_on, version, .. } = self;
        let moving = [invoice_number, amount, due_on].into_iter().chain(transaction_id);
        let moving = moving.chain(version).map(FieldPointer::as_str);
        let values = [&self.vendor, &self.currency].into_iter().chain(&self.status);
        values.filter_map(FieldSource::pointer).chain(moving)
    }
}
