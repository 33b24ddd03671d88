//! How callers prove who they are, as it is written.

use serde::Deserialize;

use crate::sources::{
    selector::Selector,
    signature::{Algorithm, Encoding},
};

/// How the callers of a source prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMethod {
    /// Each call is signed with the secret, as the table `signature` says.
    #[default]
    Hmac,
    /// `Authorization: Bearer <secret>`.
    Bearer,
    /// `Authorization: Basic`; the secret's text is `user:password`.
    Basic,
}

/// How a sender signs: an HMAC over the raw body, or over a text with the
/// body in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// The header that carries the signature; default `X-Signature`.
    pub header: Option<String>,
    /// What stands before it, such as `sha256=`; default nothing.
    pub prefix: Option<String>,
    /// `sha256` (default) or `sha512`.
    pub algorithm: Algorithm,
    /// `hex` (default) or `base64`.
    pub encoding: Encoding,
    /// How the secret's text becomes the key: `utf8` (default), `hex` or `base64`.
    pub key: KeyEncoding,
    /// For a header such as `t=1,v1=abc,v1=def`: the item that is a signature,
    /// here `v1`. Of several, any may match. Default: the header is no list.
    pub item: Option<String>,
    /// Whether the header holds signatures with spaces between them, such as
    /// `v1,abc v1,def`. Any may match; those without the prefix are ignored.
    /// Default false.
    pub list: bool,
    /// What is signed: a text with `{body}`, and as needed `{timestamp}`,
    /// `{id}`, `{url}` and `{header:NAME}`. Default `{body}`.
    pub template: Option<String>,
    /// Where the signed time stands: `header:NAME`, or `item:t` for an item
    /// of the signature's header. Default: none is signed.
    pub timestamp: Option<String>,
    /// What the signed time counts since 1970: `s` (default) or `ms`.
    pub timestamp_unit: Option<TimestampUnit>,
    /// How many seconds the signed time may be from now, either way: 1 to
    /// 86400, default 300.
    pub tolerance_s: Option<u64>,
    /// Where the `{id}` of the template stands: `header:NAME` or `item:NAME`.
    /// Default: where the event's id does, if that is a header.
    pub id: Option<String>,
    /// The `{url}` of the template: the address as it is registered with the
    /// sender, byte for byte.
    pub url: Option<String>,
}

impl SignatureSettings {
    /// Takes the `{id}` of the template from where the event's id stands,
    /// unless something else is said.
    #[must_use]
    pub fn with_default_id(mut self, event_id: Option<&Selector>) -> Self {
        let named = self.template.as_ref().is_some_and(|template| template.contains("{id}"));
        if let (true, None, Some(Selector::Header(name))) = (named, &self.id, event_id) {
            self.id = Some(format!("header:{name}"));
        }
        self
    }
}

/// How a secret's text becomes the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// What a signed time counts since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
}
