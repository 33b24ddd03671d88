//! Where a bill's fields stand.

use std::collections::BTreeMap;

use crate::{
    domain::{Currency, InvoiceStatus},
    sources::{
        mapping::{InvalidSettings, check_statuses},
        selector::{FieldPointer, FieldSource},
    },
};

/// Where a bill's fields stand, and what must be told.
#[derive(Clone, Debug)]
pub(in crate::sources) struct FieldMap {
    /// Whether vendor and currency must be told. If not, the source is the
    /// vendor, and the currency is none.
    pub(in crate::sources) requires_vendor_and_currency: bool,
    /// Must be told.
    pub(in crate::sources) invoice_number: FieldPointer,
    /// Must be told, if bills have one.
    pub(in crate::sources) transaction_id: Option<FieldPointer>,
    /// Must be told.
    pub(in crate::sources) amount: FieldPointer,
    /// Whether the amount counts the currency's smallest unit.
    pub(in crate::sources) minor_units: bool,
    pub(in crate::sources) vendor: FieldSource,
    pub(in crate::sources) currency: FieldSource,
    pub(in crate::sources) due_on: FieldPointer,
    /// Default: `open`.
    pub(in crate::sources) status: Option<FieldSource>,
    /// Our word for each of the sender's.
    pub(in crate::sources) statuses: BTreeMap<String, String>,
    /// Default: the event's.
    pub(in crate::sources) version: Option<FieldPointer>,
}

impl FieldMap {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        if let FieldSource::Constant(currency) = &self.currency {
            currency.parse::<Currency>().map_err(|error| {
                InvalidSettings::new("invoice.currency", format!("{currency:?}: {error}"))
            })?;
        }
        let words = InvoiceStatus::ALL.map(InvoiceStatus::as_str);
        check_statuses("invoice.statuses", &self.statuses, &words)
    }

    /// Every pointer into the body.
    pub(super) fn pointers(&self) -> impl Iterator<Item = &str> {
        let Self { invoice_number, transaction_id, amount, due_on, version, .. } = self;
        let moving = [invoice_number, amount, due_on].into_iter().chain(transaction_id);
        let moving = moving.chain(version).map(FieldPointer::as_str);
        let values = [&self.vendor, &self.currency].into_iter().chain(&self.status);
        values.filter_map(FieldSource::pointer).chain(moving)
    }
}
