//! Secrets, signatures, and the proof that a request is authentic.

use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde::Deserialize;
use sha2::{Sha256, Sha512};

use super::{Platform, Rejection, WebhookRequest, mapping::InvalidSettings};

/// A key, decoded from the text of a secret.
#[derive(Debug)]
pub enum Key {
    /// A shared key: signs and verifies.
    Shared(SecretSlice<u8>),
    /// An ed25519 public key: verifies.
    Public(Vec<u8>),
    /// An ed25519 seed: signs and verifies.
    Seed(SecretSlice<u8>),
}

impl Key {
    /// A shared key of these bytes.
    pub fn shared(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Shared(bytes.into().into())
    }

    /// The bytes of the key.
    pub(super) fn expose(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) | Self::Seed(bytes) => bytes.expose_secret(),
            Self::Public(bytes) => bytes,
        }
    }
}

/// A secret: its key, and a label that may be shown.
#[derive(Debug)]
pub struct Secret {
    label: String,
    key: Key,
}

/// The secret is empty, so that anybody could sign with it.
#[derive(Debug, thiserror::Error)]
#[error("the secret is empty")]
pub struct EmptySecret;

impl Secret {
    /// A secret with a label such as `env:SHOP_SECRET`.
    ///
    /// # Errors
    /// [`EmptySecret`]. `WooCommerce` signs with an empty key if no secret is set, so an empty
    /// secret would accept forgeries.
    pub fn new(label: impl Into<String>, key: Key) -> Result<Self, EmptySecret> {
        if key.expose().is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self { label: label.into(), key })
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The HMAC of the concatenated parts; empty if the key is not shared.
    pub fn hmac(&self, algorithm: Algorithm, parts: &[&[u8]]) -> Vec<u8> {
        let Key::Shared(key) = &self.key else { return Vec::new() };
        match algorithm {
            Algorithm::Sha256 => hmac_bytes::<Hmac<Sha256>>(key.expose_secret(), parts),
            Algorithm::Sha512 => hmac_bytes::<Hmac<Sha512>>(key.expose_secret(), parts),
        }
    }

    /// Whether the signature is this secret's HMAC of the parts. Takes constant time.
    pub fn verifies(&self, algorithm: Algorithm, parts: &[&[u8]], signature: &[u8]) -> bool {
        let Key::Shared(key) = &self.key else { return false };
        match algorithm {
            Algorithm::Sha256 => {
                hmac_matches::<Hmac<Sha256>>(key.expose_secret(), parts, signature)
            }
            Algorithm::Sha512 => {
                hmac_matches::<Hmac<Sha512>>(key.expose_secret(), parts, signature)
            }
        }
    }

    /// Whether one of the signatures is this secret's HMAC of the parts: a sender that
    /// rotates its secret sends two. The parts are hashed once.
    pub fn verifies_any(
        &self,
        algorithm: Algorithm,
        parts: &[&[u8]],
        signatures: &[Vec<u8>],
    ) -> bool {
        let Key::Shared(key) = &self.key else { return false };
        match algorithm {
            Algorithm::Sha256 => {
                hmac_matches_any::<Hmac<Sha256>>(key.expose_secret(), parts, signatures)
            }
            Algorithm::Sha512 => {
                hmac_matches_any::<Hmac<Sha512>>(key.expose_secret(), parts, signatures)
            }
        }
    }

    /// The ed25519 signature of a message; empty if the key cannot sign.
    pub fn ed25519(&self, message: &[u8]) -> Vec<u8> {
        let Key::Seed(seed) = &self.key else { return Vec::new() };
        Ed25519KeyPair::from_seed_unchecked(seed.expose_secret())
            .map(|pair| pair.sign(message).as_ref().to_vec())
            .unwrap_or_default()
    }

    /// Whether one of the signatures is this key's ed25519 signature of the message.
    pub fn verifies_any_ed25519(&self, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        let by = |public: &[u8]| {
            let public = UnparsedPublicKey::new(&ED25519, public);
            // Each verification reads the whole message, which may be unauthenticated.
            let mut few = signatures.iter().take(MAX_ED25519_SIGNATURES);
            few.any(|signature| public.verify(message, signature).is_ok())
        };
        match &self.key {
            Key::Public(public) => by(public),
            Key::Seed(seed) => Ed25519KeyPair::from_seed_unchecked(seed.expose_secret())
                .is_ok_and(|pair| by(pair.public_key().as_ref())),
            Key::Shared(_) => false,
        }
    }

    /// The label, which never contains the value.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// An authentic request. Only `Verified::check` builds it, so that unverified bytes
/// cannot become events.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    request: WebhookRequest<'a>,
    secret: &'a Secret,
}

impl<'a> Verified<'a> {
    /// Lets the platform verify the request with each secret.
    ///
    /// # Errors
    /// [`Rejection::InvalidSignature`] if no secret verifies it.
    pub(super) fn check(
        platform: &dyn Platform,
        request: &WebhookRequest<'a>,
        secrets: &'a [Secret],
    ) -> Result<Self, Rejection> {
        let index = platform.verify(request, secrets)?;
        let secret = secrets.get(index).ok_or_else(|| {
            Rejection::InvalidSignature("no secret is configured for this source".to_owned())
        })?;
        Ok(Self { request: *request, secret })
    }

    /// The verified request.
    pub fn request(&self) -> &WebhookRequest<'a> {
        &self.request
    }

    /// The secret that verified it.
    pub fn secret(&self) -> &'a Secret {
        self.secret
    }
}

/// The hash function of an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// The text encoding of a signature or a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal, in either case.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Encoding {
    /// Decodes a text; `None` if it is malformed.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            Self::Base64 => BASE64.decode(text.as_bytes()).ok(),
        }
    }

    /// Encodes bytes.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
        }
    }
}

/// An HMAC of the body in a header.
#[derive(Clone, Copy, Debug)]
pub struct BodyHmac<'a> {
    /// Name of the header.
    pub header: &'a str,
    /// Prefix of the signature, such as `sha256=`.
    pub prefix: &'a str,
    /// The hash function.
    pub algorithm: Algorithm,
    /// The text encoding of the signature.
    pub encoding: Encoding,
}

impl<'a> BodyHmac<'a> {
    /// An HMAC-SHA256 in base64, which several platforms send.
    pub const fn sha256_base64(header: &'a str) -> Self {
        Self { header, prefix: "", algorithm: Algorithm::Sha256, encoding: Encoding::Base64 }
    }

    /// The index of the secret that verifies the body of the request.
    ///
    /// # Errors
    /// As [`BodyHmac::verify_parts`].
    pub fn verify(
        &self,
        request: &WebhookRequest<'_>,
        secrets: &[Secret],
    ) -> Result<usize, Rejection> {
        self.verify_parts(request, secrets, &[request.body])
    }

    /// The index of the secret that verifies the concatenated parts. Each secret is tried, and
    /// each comparison takes constant time.
    ///
    /// # Errors
    /// [`Rejection::InvalidSignature`], which never contains the expected signature.
    pub fn verify_parts(
        &self,
        request: &WebhookRequest<'_>,
        secrets: &[Secret],
        parts: &[&[u8]],
    ) -> Result<usize, Rejection> {
        let value = request.header(self.header).ok_or_else(|| {
            Rejection::InvalidSignature(format!("the header {} is missing or empty", self.header))
        })?;
        let signature = value
            .strip_prefix(self.prefix)
            .and_then(|text| self.encoding.decode(text))
            .ok_or_else(|| {
                Rejection::InvalidSignature(format!(
                    "the header {} is not a signature",
                    self.header
                ))
            })?;
        secrets
            .iter()
            .position(|secret| secret.verifies(self.algorithm, parts, &signature))
            .ok_or_else(Rejection::invalid_signature)
    }

    /// The value of the header for the concatenated parts.
    pub fn sign(&self, secret: &Secret, parts: &[&[u8]]) -> String {
        let bytes = secret.hmac(self.algorithm, parts);
        format!("{}{}", self.prefix, self.encoding.encode(&bytes))
    }
}

/// Rejects a signed timestamp that differs too much from the time of receipt: an
/// intercepted request must not be replayed later.
///
/// # Errors
/// [`Rejection::InvalidSignature`] with the difference.
pub fn check_timestamp(
    request: &WebhookRequest<'_>,
    unix: i64,
    tolerance: Duration,
) -> Result<(), Rejection> {
    let difference_s = request.received_at.unix_timestamp().abs_diff(unix);
    if difference_s > tolerance.as_secs() {
        return Err(Rejection::InvalidSignature(format!(
            "the signed timestamp differs from now by {difference_s} s, more than {} s: a replayed \
             request or a wrong clock",
            tolerance.as_secs()
        )));
    }
    Ok(())
}

/// Maximum number of signatures of a request that are verified. No sender has more active
/// secrets, and each costs a comparison.
pub const MAX_SIGNATURES: usize = 16;

/// The same for ed25519, where each verification reads the whole body.
const MAX_ED25519_SIGNATURES: usize = 4;

/// The tolerance of a setting `tolerance_s`; default 300 s, as in the platforms' own
/// libraries.
///
/// # Errors
/// [`InvalidSettings`] for more than a day: an intercepted request could be replayed for as
/// long.
pub fn parse_tolerance(seconds: Option<u64>) -> Result<Duration, InvalidSettings> {
    match seconds.unwrap_or(300) {
        seconds @ 0..=86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err(InvalidSettings::new("tolerance_s", "must be 0 to 86400 (a day)")),
    }
}

fn hmac_of<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Option<M> {
    // HMAC accepts keys of any length, so this cannot fail.
    let mac = <M as KeyInit>::new_from_slice(key).ok()?;
    Some(parts.iter().fold(mac, M::chain_update))
}

fn hmac_matches<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]], signature: &[u8]) -> bool {
    hmac_of::<M>(key, parts).is_some_and(|mac| mac.verify_slice(signature).is_ok())
}

fn hmac_matches_any<M: Mac + KeyInit + Clone>(
    key: &[u8],
    parts: &[&[u8]],
    signatures: &[Vec<u8>],
) -> bool {
    hmac_of::<M>(key, parts).is_some_and(|mac| {
        signatures.iter().any(|signature| mac.clone().verify_slice(signature).is_ok())
    })
}

fn hmac_bytes<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    hmac_of::<M>(key, parts).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_debug_output_hides_the_key() {
        let secret = Secret::new("env:X", Key::shared("hunter2")).unwrap();
        let shown = format!("{secret:?}");
        assert!(shown.contains("env:X") && shown.contains("REDACTED"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("104"), "{shown}");
    }

    #[test]
    fn secret_empty_key_is_rejected() {
        assert!(Secret::new("env:X", Key::shared("")).is_err());
    }

    #[test]
    fn body_hmac_matches_github_vector() {
        // docs.github.com, "Validating webhook deliveries".
        let scheme = BodyHmac {
            header: "X-Hub-Signature-256",
            prefix: "sha256=",
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
        };
        let secret = Secret::new("doc", Key::shared("It's a Secret to Everybody")).unwrap();
        assert_eq!(
            scheme.sign(&secret, &[b"Hello, World!"]),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
