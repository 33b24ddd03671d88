//! Reads the invoice out of a robot's body, and tells every field that is
//! wrong with it: whoever waits for the answer shall mend them all at once.

use rust_decimal::Decimal;
use time::{Date, OffsetDateTime};

use super::settings::InvoiceSettings;
use crate::{
    adapter::{
        fields::Fields,
        selector::{FieldPointer, FieldSource},
    },
    domain::{Currency, Failure, Money},
};

/// Longer names are no numbers or ids; and the index of the invoices would
/// not take all of them.
const LONGEST_NAME: usize = 255;

/// An invoice as a body tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bill {
    /// Empty where the source is the vendor.
    pub(super) vendor: String,
    pub(super) invoice_number: String,
    pub(super) transaction_id: String,
    pub(super) platform_status: String,
    pub(super) total: Money,
    pub(super) due_on: Option<Date>,
    pub(super) version: Option<OffsetDateTime>,
}

impl Bill {
    /// Reads an invoice.
    ///
    /// # Errors
    /// What is wrong, field by field.
    pub(super) fn read(from: &InvoiceSettings, fields: &Fields<'_>) -> Result<Self, Vec<Failure>> {
        let mut failures = Vec::new();
        let invoice_number = kept(required_name(&from.invoice_number, fields), &mut failures);
        let transaction_id = kept(required_name(&from.transaction_id, fields), &mut failures);
        let vendor = kept(name(&from.vendor, fields), &mut failures);
        let amount = fields.required_decimal(from.amount.as_str());
        let amount = kept(amount, &mut failures);
        let currency = kept(currency(from, fields), &mut failures);
        let due_on = kept(fields.day(from.due_on.as_str()), &mut failures);
        let platform_status = match &from.status {
            Some(status) => kept(name(status, fields), &mut failures),
            None => Some(None),
        };
        let version = match &from.version {
            Some(version) => kept(fields.moment(version.as_str()), &mut failures),
            None => Some(None),
        };
        let total = amount
            .zip(currency)
            .and_then(|(amount, currency)| kept(total(from, amount, currency), &mut failures));
        // One that was not kept has left its failure.
        let whole = || {
            Some(Self {
                vendor: vendor?.unwrap_or_default(),
                invoice_number: invoice_number?,
                transaction_id: transaction_id?,
                platform_status: platform_status?.unwrap_or_else(|| "open".to_owned()),
                total: total?,
                due_on: due_on?,
                version: version?,
            })
        };
        whole().ok_or(failures)
    }
}

/// The value, if there is one; else its failure is kept.
fn kept<T>(read: Result<T, Failure>, failures: &mut Vec<Failure>) -> Option<T> {
    read.map_err(|failure| failures.push(failure)).ok()
}

/// The name that a pointer leads to.
pub(super) fn name_at(pointer: &str, fields: &Fields<'_>) -> Result<Option<String>, Failure> {
    fields.text(pointer)?.map_or(Ok(None), |text| checked(&text, pointer))
}

/// A name without the white space around it, which makes no other invoice;
/// `None` if nothing is left.
pub(super) fn checked(text: &str, field: &str) -> Result<Option<String>, Failure> {
    let text = text.trim();
    if text.len() > LONGEST_NAME {
        return Err(Failure::invalid(field, format!("is longer than {LONGEST_NAME} bytes")));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn name(from: &FieldSource, fields: &Fields<'_>) -> Result<Option<String>, Failure> {
    match from {
        FieldSource::Pointer(pointer) => name_at(pointer, fields),
        FieldSource::Constant(constant) => Ok(Some(constant.clone())),
    }
}

fn required_name(from: &FieldPointer, fields: &Fields<'_>) -> Result<String, Failure> {
    let pointer = from.as_str();
    name_at(pointer, fields)?.ok_or_else(|| Failure::missing(pointer))
}

/// The currency; [`Currency::NONE`] if none is told, unless the amount means
/// nothing without one.
fn currency(from: &InvoiceSettings, fields: &Fields<'_>) -> Result<Currency, Failure> {
    match name(&from.currency, fields)? {
        Some(code) => {
            code.parse().map_err(|error| Failure::invalid(from.currency.name(), format!("{error}")))
        }
        None if from.minor_units => Err(Failure::missing(from.currency.name())),
        None => Ok(Currency::NONE),
    }
}

fn total(from: &InvoiceSettings, amount: Decimal, currency: Currency) -> Result<Money, Failure> {
    if !from.minor_units {
        return Ok(Money { amount, currency });
    }
    Money::from_minor(amount, currency, currency.minor_digits())
        .map_err(|error| Failure::invalid(from.amount.as_str(), format!("is {error}")))
}
