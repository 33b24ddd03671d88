//! Settings of a `CloudEvents` source.

use serde::Deserialize;

use crate::sources::{
    authentication::{AuthenticationMethod, SignatureSettings},
    mapping::{InvoiceFields, OrderFields, RefundFields},
    selector::Selector,
};

/// Settings of a `CloudEvents` source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudEventsSettings {
    /// How the sender authenticates: `bearer` (default; in `Authorization` or in the query
    /// parameter `access_token`), `basic` or `hmac`.
    #[serde(default = "bearer")]
    pub authentication: AuthenticationMethod,
    /// How the sender signs, for `hmac`.
    pub signature: Option<SignatureSettings>,
    /// The origins that may send, for validation requests (OPTIONS); default `["*"]`, all.
    #[serde(default = "all")]
    pub allowed_origins: Vec<String>,
    /// Properties of an event that the standard attributes do not contain.
    #[serde(default)]
    pub event: CloudEventsEventSettings,
    /// Where the fields of an order are in the data, if the source sends orders.
    pub order: Option<OrderFields>,
    /// Where the fields of an invoice are in the data, if the source sends invoices.
    pub invoice: Option<InvoiceFields>,
    /// Where the fields of a refund are in the data, if the source sends refunds.
    pub refund: Option<RefundFields>,
}

const fn bearer() -> AuthenticationMethod {
    AuthenticationMethod::Bearer
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Properties of an event that the standard attributes do not contain.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudEventsEventSettings {
    /// The tenant: `attribute:NAME`, a pointer into the data, `header:NAME` or
    /// `const:TEXT`. Default: the source has only one.
    pub tenant: Option<TenantSource>,
}

/// Where the tenant of an event is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TenantSource {
    /// In this attribute.
    Attribute(String),
    /// In the data or in the request.
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
        let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || !name.bytes().all(is_valid) {
            return Err(format!(
                "{name:?} is not an attribute name, which consists of a to z and 0 to 9"
            ));
        }
        Ok(Self::Attribute(name.to_owned()))
    }
}
