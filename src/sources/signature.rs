//! Signatures: secrets, HMAC, and the proof that a call is authentic.

use std::{fmt, time::Duration};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Deserialize;
use sha2::{Sha256, Sha512};

use super::{Platform, Rejection, WebhookRequest, mapping::InvalidSettings};

/// A key, decoded from the secret's text as the platform writes it.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// Known to both sides: signs and verifies.
    Shared(Vec<u8>),
    /// The public half of an ed25519 pair: verifies.
    Public(Vec<u8>),
    /// The seed of an ed25519 pair: signs, and verifies.
    Seed(Vec<u8>),
}

impl Key {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) | Self::Public(bytes) | Self::Seed(bytes) => bytes,
        }
    }
}

/// A secret: its key, and the label that people may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    label: String,
    key: Key,
}

/// The secret is empty: it would verify what anybody can sign.
#[derive(Debug, thiserror::Error)]
#[error("the secret is empty: anybody could sign with it")]
pub struct EmptySecret;

impl Secret {
    /// A secret under the label (such as `env:SHOP_SECRET`) that names it.
    ///
    /// # Errors
    /// [`EmptySecret`]. `WooCommerce` really signs with an empty key when no
    /// secret is set, so an empty one here would let forgeries in.
    pub fn new(label: impl Into<String>, key: Key) -> Result<Self, EmptySecret> {
        if key.bytes().is_empty() {
            return Err(EmptySecret);
        }
        Ok(Self { label: label.into(), key })
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The HMAC of these parts, one behind the other; empty for a key that is
    /// not shared.
    pub fn hmac(&self, algorithm: Algorithm, parts: &[&[u8]]) -> Vec<u8> {
        let Key::Shared(key) = &self.key else { return Vec::new() };
        match algorithm {
            Algorithm::Sha256 => hmac_bytes::<Hmac<Sha256>>(key, parts),
            Algorithm::Sha512 => hmac_bytes::<Hmac<Sha512>>(key, parts),
        }
    }

    /// Whether this secret made that HMAC of these parts. Takes the same time
    /// whatever the bytes.
    pub fn verifies(&self, algorithm: Algorithm, parts: &[&[u8]], signature: &[u8]) -> bool {
        let Key::Shared(key) = &self.key else { return false };
        match algorithm {
            Algorithm::Sha256 => hmac_matches::<Hmac<Sha256>>(key, parts, signature),
            Algorithm::Sha512 => hmac_matches::<Hmac<Sha512>>(key, parts, signature),
        }
    }

    /// Whether this secret made one of these HMACs of these parts: what a
    /// sender that is changing its secret sends. The parts are hashed once.
    pub fn verifies_any(
        &self,
        algorithm: Algorithm,
        parts: &[&[u8]],
        signatures: &[Vec<u8>],
    ) -> bool {
        let Key::Shared(key) = &self.key else { return false };
        match algorithm {
            Algorithm::Sha256 => hmac_matches_any::<Hmac<Sha256>>(key, parts, signatures),
            Algorithm::Sha512 => hmac_matches_any::<Hmac<Sha512>>(key, parts, signatures),
        }
    }

    /// The ed25519 signature of a message; empty for a key that cannot sign.
    pub fn ed25519(&self, message: &[u8]) -> Vec<u8> {
        let Key::Seed(seed) = &self.key else { return Vec::new() };
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(|pair| pair.sign(message).as_ref().to_vec())
            .unwrap_or_default()
    }

    /// Whether the pair of this secret made one of these ed25519 signatures
    /// of a message.
    pub fn verifies_any_ed25519(&self, message: &[u8], signatures: &[Vec<u8>]) -> bool {
        let by = |public: &[u8]| {
            let public = UnparsedPublicKey::new(&ED25519, public);
            // Each is a look at the whole message, which a stranger may have sent.
            let mut few = signatures.iter().take(MAX_ED25519_SIGNATURES);
            few.any(|signature| public.verify(message, signature).is_ok())
        };
        match &self.key {
            Key::Public(public) => by(public),
            Key::Seed(seed) => Ed25519KeyPair::from_seed_unchecked(seed)
                .is_ok_and(|pair| by(pair.public_key().as_ref())),
            Key::Shared(_) => false,
        }
    }

    /// The name of the secret, never its value.
    pub fn label(&self) -> &str {
        &self.label
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.label)
    }
}

/// An authentic call: only a check of its signature makes one, so that nothing
/// unverified can be taken for an event.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    request: WebhookRequest<'a>,
    secret: &'a Secret,
}

impl<'a> Verified<'a> {
    /// Has the platform check the call against every secret.
    ///
    /// # Errors
    /// [`RejectedField::Signature`].
    pub(super) fn check(
        platform: &dyn Platform,
        call: &WebhookRequest<'a>,
        secrets: &'a [Secret],
    ) -> Result<Self, Rejection> {
        let index = platform.verify(call, secrets)?;
        let secret = secrets.get(index).ok_or_else(|| {
            Rejection::InvalidSignature("no secret is configured for this source".to_owned())
        })?;
        Ok(Self { request: *call, secret })
    }

    /// The call.
    pub fn request(&self) -> &WebhookRequest<'a> {
        &self.request
    }

    /// The secret that verified it.
    pub fn secret(&self) -> &'a Secret {
        self.secret
    }
}

/// The hash beneath an HMAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-256; what nearly everybody uses.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature or a key is written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal, either case.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

impl Encoding {
    /// The bytes that the text stands for, if it is well-formed.
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok(),
            Self::Base64 => BASE64.decode(text.as_bytes()).ok(),
        }
    }

    /// The bytes as text.
    pub fn encode(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => HEXLOWER_PERMISSIVE.encode(bytes),
            Self::Base64 => BASE64.encode(bytes),
        }
    }
}

/// An HMAC over a body, as it stands in a header.
#[derive(Clone, Copy, Debug)]
pub struct BodyHmac<'a> {
    /// The header that carries it.
    pub header: &'a str,
    /// What stands in front of it, such as `sha256=`.
    pub prefix: &'a str,
    /// The hash.
    pub algorithm: Algorithm,
    /// How the signature is written.
    pub encoding: Encoding,
}

impl BodyHmac<'_> {
    /// Finds the secret that made the call's signature; its index.
    ///
    /// Each secret is tried, and each comparison takes the same time whatever
    /// the bytes.
    ///
    /// # Errors
    /// [`RejectedField::Signature`] that says what was expected, never what a
    /// right signature would be.
    pub fn verify(
        &self,
        call: &WebhookRequest<'_>,
        secrets: &[Secret],
    ) -> Result<usize, Rejection> {
        let presented = call.header(self.header).ok_or_else(|| {
            Rejection::InvalidSignature(format!("the header {} is missing or empty", self.header))
        })?;
        let signature = presented
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
            .position(|secret| secret.verifies(self.algorithm, &[call.body], &signature))
            .ok_or_else(Rejection::invalid_signature)
    }

    /// The header's value for a body.
    pub fn sign(&self, secret: &Secret, body: &[u8]) -> String {
        let bytes = secret.hmac(self.algorithm, &[body]);
        format!("{}{}", self.prefix, self.encoding.encode(&bytes))
    }
}

/// Refuses a signed time that is further from now than a platform's tolerance:
/// what was recorded on the way must not be played again later.
///
/// # Errors
/// [`RejectedField::Signature`] that tells how far.
pub fn check_timestamp(
    call: &WebhookRequest<'_>,
    unix: i64,
    tolerance: Duration,
) -> Result<(), Rejection> {
    let away = call.received_at.unix_timestamp().abs_diff(unix);
    if away > tolerance.as_secs() {
        return Err(Rejection::InvalidSignature(format!(
            "the signed time is {away} s from now, more than {} s: an old call played again, or \
             a clock that is wrong",
            tolerance.as_secs()
        )));
    }
    Ok(())
}

/// Most signatures of a call that are looked at: no sender has more secrets
/// alive at a time, and each costs a look at the body.
pub const MAX_SIGNATURES: usize = 16;

/// The same for ed25519, where each signature costs a look of its own.
const MAX_ED25519_SIGNATURES: usize = 4;

/// The tolerance that a setting `tolerance_s` asks for: 300 s where it is left
/// out, as in the platforms' own libraries.
///
/// # Errors
/// [`InvalidSettings`] for more than a day: what was recorded on the way could
/// be played again for as long.
pub fn parse_tolerance(seconds: Option<u64>) -> Result<Duration, InvalidSettings> {
    match seconds.unwrap_or(300) {
        seconds @ 0..=86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err(InvalidSettings::new("tolerance_s", "must be 0 to 86400, which is a day")),
    }
}

fn hmac_of<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Option<M> {
    // HMAC takes keys of any length; the error cannot happen.
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
    fn a_secret_never_shows_its_value() {
        let secret = Secret::new("env:X", Key::Shared(b"hunter2".to_vec())).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(env:X)");
    }

    #[test]
    fn an_empty_secret_cannot_be_made() {
        assert!(Secret::new("env:X", Key::Shared(Vec::new())).is_err());
    }

    #[test]
    fn github_documents_this_vector() {
        // docs.github.com, "Validating webhook deliveries".
        let scheme = BodyHmac {
            header: "X-Hub-Signature-256",
            prefix: "sha256=",
            algorithm: Algorithm::Sha256,
            encoding: Encoding::Hex,
        };
        let secret =
            Secret::new("doc", Key::Shared(b"It's a Secret to Everybody".to_vec())).unwrap();
        assert_eq!(
            scheme.sign(&secret, b"Hello, World!"),
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        );
    }
}
