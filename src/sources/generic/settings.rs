//! Settings of a generic source.

use serde::Deserialize;

use crate::sources::{
    authentication::{AuthenticationMethod, SignatureSettings},
    event_extraction::EventSettings,
    mapping::{InvoiceFields, OrderFields, RefundFields},
};

/// Settings of a generic source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericSettings {
    /// How the sender authenticates: `hmac` (default), `bearer` or `basic`.
    #[serde(default)]
    pub authentication: AuthenticationMethod,
    /// How the sender signs.
    pub signature: Option<SignatureSettings>,
    /// The form field with the JSON, for senders of `application/x-www-form-urlencoded`.
    /// Default: none, bodies are JSON.
    pub form: Option<String>,
    /// Where the properties of an event are.
    #[serde(default)]
    pub event: EventSettings,
    /// Where the fields of an order are, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where the fields of an invoice are, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where the fields of a refund are, if the source sends refunds.
    pub refund: Option<RefundFields>,
    /// Whether a redelivery repeats the same bytes (default true). If so, other bytes under
    /// a known key are dead-lettered as `conflicting_duplicate`; if not, they are a
    /// duplicate.
    #[serde(default = "yes")]
    pub redelivers_identical_body: bool,
}

const fn yes() -> bool {
    true
}
