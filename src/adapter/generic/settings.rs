//! The settings of a generic source, as they are written.

use http::HeaderName;
use serde::Deserialize;

use crate::adapter::{
    identity::EventSettings,
    mapping::{InvalidSettings, InvoiceFields, OrderFields, RefundFields},
    signature::{Algorithm, Encoding},
};

/// The settings of a generic source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How the sender signs.
    #[serde(default)]
    pub signature: SignatureSettings,
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

/// How a generic sender signs: an HMAC over the raw body.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// The header that carries the signature; default `X-Signature`.
    pub header: String,
    /// What stands before it, such as `sha256=`; default nothing.
    pub prefix: String,
    /// `sha256` (default) or `sha512`.
    pub algorithm: Algorithm,
    /// `hex` (default) or `base64`.
    pub encoding: Encoding,
    /// How the secret's text becomes the key: `utf8` (default), `hex` or `base64`.
    pub key: KeyEncoding,
}

impl Default for SignatureSettings {
    fn default() -> Self {
        Self {
            header: "X-Signature".to_owned(),
            prefix: String::new(),
            algorithm: Algorithm::default(),
            encoding: Encoding::default(),
            key: KeyEncoding::default(),
        }
    }
}

/// How a secret's text becomes the key.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The text's own bytes.
    #[default]
    Utf8,
    /// The bytes that the hexadecimal text stands for.
    Hex,
    /// The bytes that the base64 text stands for.
    Base64,
}

impl Settings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub(super) fn check(&self) -> Result<(), InvalidSettings> {
        if self.signature.header.parse::<HeaderName>().is_err() {
            return Err(InvalidSettings::new("signature.header", "is no header name"));
        }
        Ok(())
    }
}
