//! The settings of a `CloudEvents` source, as they are written.

use serde::Deserialize;

use crate::sources::{
    authentication::{AuthenticationMethod, SignatureSettings},
    mapping::{InvoiceFields, OrderFields, RefundFields},
    selector::Selector,
};

/// The settings of a `CloudEvents` source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudEventsSettings {
    /// How the sender proves who it is: `bearer` (default; in `Authorization`
    /// or in the query as `access_token`), `basic` or `hmac`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// How the sender signs, for `hmac`.
    pub signature: Option<SignatureSettings>,
    /// The origins that are given leave to send when they ask with OPTIONS;
    /// default `["*"]`, all.
    #[serde(default = "all")]
    pub allowed_origins: Vec<String>,
    /// What the attributes every event has do not tell.
    #[serde(default)]
    pub event: CloudEventsEventSettings,
    /// Where an order's fields stand in the data, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where an invoice's fields stand in the data, if the source sends
    /// invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where a refund's fields stand in the data, if the source sends refunds.
    pub refund: Option<RefundFields>,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// What the attributes every event has do not tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudEventsEventSettings {
    /// The shop or company: `attribute:NAME`, a pointer into the data,
    /// `header:NAME` or `const:TEXT`. Default: there is only one.
    pub tenant: Option<TenantSource>,
}

/// Where the tenant of an event is told.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TenantSource {
    /// In this attribute of the event.
    Attribute(String),
    /// In the data or in the call.
    Selector(Selector),
}

impl TryFrom<String> for TenantSource {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let Some(name) = text.strip_prefix("attribute:") else {
            return Selector::try_from(text)
                .map(Self::Selector)
                .map_err(|error| format!("{error} nor attribute:NAME"));
        };
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(legal) {
            return Err(format!("{name:?} is no attribute's name: they are of a to z and 0 to 9"));
        }
        Ok(Self::Attribute(name.to_owned()))
    }
}
