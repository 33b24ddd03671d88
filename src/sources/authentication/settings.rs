//! Settings of the authentication of senders.

use serde::Deserialize;

use crate::sources::{
    selector::Selector,
    signature::{Algorithm, Encoding},
};

/// How the senders of a source authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthenticationMethod {
    /// Each request is signed with the secret, as the table `signature` describes.
    #[default]
    Hmac,
    /// `Authorization: Bearer <secret>`.
    Bearer,
    /// `Authorization: Basic`; the secret is `user:password`.
    Basic,
}

/// How a sender signs: an HMAC over the raw body, or over a text that contains the body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SignatureSettings {
    /// The header that carries the signature; default `X-Signature`.
    pub header: Option<String>,
    /// Prefix of the signature, such as `sha256=`; default none.
    pub prefix: Option<String>,
    /// `sha256` (default) or `sha512`.
    pub algorithm: Algorithm,
    /// `hex` (default) or `base64`.
    pub encoding: Encoding,
    /// Encoding of the secret's text: `utf8` (default), `hex` or `base64`.
    pub key: KeyEncoding,
    /// For a header such as `t=1,v1=abc,v1=def`: the key of its signatures, here `v1`. If
    /// there are several, any may match. Default: the header is not a list.
    pub item: Option<String>,
    /// Whether the header holds signatures separated by spaces, such as `v1,abc v1,def`.
    /// Any may match; those without the prefix are ignored. Default false.
    pub list: bool,
    /// The signed text, with `{body}` and optionally `{timestamp}`, `{id}`, `{url}` and
    /// `{header:NAME}`. Default `{body}`.
    pub template: Option<String>,
    /// Where the signed timestamp is: `header:NAME`, or `item:t` for a key of the
    /// signature's header. Default: no timestamp is signed.
    pub timestamp: Option<String>,
    /// Unit of the signed timestamp since 1970: `s` (default) or `ms`.
    pub timestamp_unit: Option<TimestampUnit>,
    /// Maximum difference of the signed timestamp from now, in seconds: 1 to 86400, default
    /// 300.
    pub tolerance_s: Option<u64>,
    /// Where the `{id}` of the template is: `header:NAME` or `item:NAME`. Default: the
    /// header of the event id, if it is in one.
    pub id: Option<String>,
    /// The `{url}` of the template: the URL as registered with the sender, byte for byte.
    pub url: Option<String>,
}

impl SignatureSettings {
    /// Uses the header of the event id for the `{id}` of the template, unless it is set.
    #[must_use]
    pub fn with_default_id(mut self, event_id: Option<&Selector>) -> Self {
        let named = self.template.as_ref().is_some_and(|template| template.contains("{id}"));
        if let (true, None, Some(Selector::Header(name))) = (named, &self.id, event_id) {
            self.id = Some(format!("header:{name}"));
        }
        self
    }
}

/// The encoding of a secret's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The bytes of the text.
    #[default]
    Utf8,
    /// Hexadecimal.
    Hex,
    /// Base64 with padding.
    Base64,
}

/// The unit of a signed timestamp since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds.
    #[default]
    S,
    /// Milliseconds.
    Ms,
}
