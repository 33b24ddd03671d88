//! Settings of a callback source.

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

/// Settings of a callback source. A client that posts the documented names needs only its
/// secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackSettings {
    /// How clients authenticate: `bearer` (default), `basic` or `hmac`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// How clients sign, for `authentication = "hmac"`.
    pub signature: Option<SignatureSettings>,
    /// The tenant. Default: the source has only one.
    pub tenant: Option<Selector>,
    /// What to do if an invoice number arrives again with another transaction: `review`
    /// (default) dead-letters the later one, `update` applies it as a newer state,
    /// `duplicate` keeps the first one.
    #[serde(default = "review")]
    pub on_conflict: InvoiceConflict,
    /// Whether a retry repeats the same bytes (default false). If so, other bytes for a
    /// known transaction are dead-lettered as `conflicting_duplicate`.
    #[serde(default)]
    pub redelivers_identical_body: bool,
    /// Where the fields of an invoice are.
    #[serde(default)]
    pub invoice: InvoiceSettings,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

const fn review() -> InvoiceConflict {
    InvoiceConflict::Review
}

/// Where the fields of an invoice are. Number, transaction and amount are required in each
/// body; the others are optional.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InvoiceSettings {
    /// The vendor's invoice number; default `/invoiceNumber`.
    pub invoice_number: FieldPointer,
    /// The client's id of the transaction, equal on each retry; default `/transactionId`.
    pub transaction_id: FieldPointer,
    /// Total; default `/amount`. A negative amount is a credit note. The key may also be
    /// called `total`, as in other kinds of sources.
    #[serde(alias = "total")]
    pub amount: FieldPointer,
    /// Whether the amount is in minor units (cents); default false. If so, the currency is
    /// required.
    pub minor_units: bool,
    /// The vendor; default `/vendor`. If the body has none, the source is the vendor.
    pub vendor: FieldSource,
    /// The currency, ISO 4217; default `/currency`. If the body has none: `XXX`, ISO's code
    /// for no currency.
    pub currency: FieldSource,
    /// Due date; default `/dueDate`.
    pub due_on: FieldPointer,
    /// The client's status. Default: `open`.
    pub status: Option<FieldSource>,
    /// Our status for each status of the client; an unlisted status that is not one of ours
    /// becomes `other`.
    pub statuses: BTreeMap<String, String>,
    /// The version for the stale check: a timestamp. Default: the time of receipt.
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
