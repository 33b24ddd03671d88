//! The settings of a generic source, as they are written.

use serde::Deserialize;

use crate::sources::{
    authentication::{AuthenticationMethod, SignatureSettings},
    event_extraction::EventSettings,
    mapping::{InvoiceFields, OrderFields, RefundFields},
};

/// The settings of a generic source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericSettings {
    /// How the sender proves who it is: `hmac` (default), `bearer` or `basic`.
    #[serde(default)]
    pub authentication: AuthenticationMethod,
    /// How the sender signs.
    pub signature: Option<SignatureSettings>,
    /// The field of a form that holds the JSON, for senders that post
    /// `application/x-www-form-urlencoded`. Default: none, bodies are JSON.
    pub form: Option<String>,
    /// What tells events apart.
    #[serde(default)]
    pub event: EventSettings,
    /// Where an order's fields stand, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where an invoice's fields stand, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where a refund's fields stand, if the source sends refunds.
    pub refund: Option<RefundFields>,
    /// Whether a redelivery carries the same bytes (default true). If so,
    /// other bytes under a known key go to review as `conflicting_duplicate`;
    /// if not, the key alone decides.
    #[serde(default = "yes")]
    pub repeats_same_bytes: bool,
}

const fn yes() -> bool {
    true
}
