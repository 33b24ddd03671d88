//! The settings of a callback source, as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    domain::InvoiceConflict,
    sources::{
        authentication::{AuthenticationMethod, SignatureSettings},
        invoice_payload::FieldMap,
        selector::{FieldPointer, FieldSource, Selector},
    },
};

/// The settings of a callback source. A robot that posts the documented names
/// needs none but its secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackSettings {
    /// How robots prove who they are: `bearer` (default), `basic` or `hmac`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// How robots sign, for `authentication = "hmac"`.
    pub signature: Option<SignatureSettings>,
    /// The company; default: there is only one.
    pub tenant: Option<Selector>,
    /// What to do with an invoice number that comes again with another
    /// transaction: `review` (default) puts it before a person, `update` takes
    /// it for a newer state, `duplicate` leaves the first as it is.
    #[serde(default = "review")]
    pub on_conflict: InvoiceConflict,
    /// Whether a retry carries the same bytes (default false: robots write
    /// their bodies anew). If so, other bytes for a known transaction go to
    /// review as `conflicting_duplicate`.
    #[serde(default)]
    pub repeats_same_bytes: bool,
    /// Where an invoice's fields stand.
    #[serde(default)]
    pub invoice: InvoiceSettings,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

const fn review() -> InvoiceConflict {
    InvoiceConflict::Review
}

/// Where an invoice's fields stand. Number, transaction and amount must be in
/// every body; the others may be left out of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvoiceSettings {
    /// The vendor's number for the invoice; default `/invoiceNumber`.
    pub invoice_number: FieldPointer,
    /// The robot's id of the transaction: the same on each retry. Default
    /// `/transactionId`.
    pub transaction_id: FieldPointer,
    /// What it is over; default `/amount`. Less than nothing is a credit note.
    /// `total`, as other kinds call it, is taken too.
    #[serde(alias = "total")]
    pub amount: FieldPointer,
    /// Whether the amount is a whole number of the currency's smallest unit
    /// (cents); default false. If so, the currency must be told.
    pub minor_units: bool,
    /// The vendor; default `/vendor`. Where none is told, the source is the
    /// vendor.
    pub vendor: FieldSource,
    /// The currency, ISO 4217; default `/currency`. Where none is told: `XXX`,
    /// ISO's code for no currency.
    pub currency: FieldSource,
    /// The day by which it is to be paid; default `/dueDate`.
    pub due_on: FieldPointer,
    /// The robot's word for its state. Default: `open`.
    pub status: Option<FieldSource>,
    /// Our word for each of the robot's; a word that is not listed and not
    /// one of ours is `other`.
    pub statuses: BTreeMap<String, String>,
    /// The version for the stale guard: a time. Default: when the call was
    /// received.
    pub version: Option<FieldPointer>,
}

impl Default for InvoiceSettings {
    fn default() -> Self {
        Self {
            invoice_number: FieldPointer::from_static("/invoiceNumber"),
            transaction_id: FieldPointer::from_static("/transactionId"),
            amount: FieldPointer::from_static("/amount"),
            minor_units: false,
            vendor: FieldSource::Pointer("/vendor".to_owned()),
            currency: FieldSource::Pointer("/currency".to_owned()),
            due_on: FieldPointer::from_static("/dueDate"),
            status: None,
            statuses: BTreeMap::new(),
            version: None,
        }
    }
}

impl From<InvoiceSettings> for FieldMap {
    fn from(settings: InvoiceSettings) -> Self {
        Self {
            requires_vendor_and_currency: false,
            invoice_number: settings.invoice_number,
            transaction_id: Some(settings.transaction_id),
            amount: settings.amount,
            minor_units: settings.minor_units,
            vendor: settings.vendor,
            currency: settings.currency,
            due_on: settings.due_on,
            status: settings.status,
            statuses: settings.statuses,
            version: settings.version,
        }
    }
}
