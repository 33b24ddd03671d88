//! Secrets in the text format of Standard Webhooks; the prefix is the type.

use data_encoding::{BASE64, BASE64_NOPAD};
use ring::signature::Ed25519KeyPair;

use crate::sources::signature::Key;

/// Length of an ed25519 seed and of a public key, in bytes.
const ED25519_KEY_BYTES: usize = 32;

/// Decodes a secret: `whsec_` and base64, or base64 alone, is a shared key; `whpk_` is an
/// ed25519 public key; `whsk_` is an ed25519 seed, optionally followed by the public key.
///
/// # Errors
/// What is wrong with the text, without repeating it.
pub(super) fn parse_key(text: &str) -> Result<Key, String> {
    let text = text.trim();
    if let Some(text) = text.strip_prefix("whpk_") {
        let public = decode(text)?;
        return match public.len() {
            ED25519_KEY_BYTES => Ok(Key::Public(public)),
            other => Err(format!("a whpk_ public key is {ED25519_KEY_BYTES} bytes, not {other}")),
        };
    }
    if let Some(text) = text.strip_prefix("whsk_") {
        return parse_seed(decode(text)?);
    }
    let key = decode(text.strip_prefix("whsec_").unwrap_or(text))?;
    match key.len() {
        24..=64 => Ok(Key::shared(key)),
        other => Err(format!("a whsec_ secret is 24 to 64 bytes, not {other}, in base64")),
    }
}

fn parse_seed(mut bytes: Vec<u8>) -> Result<Key, String> {
    if bytes.len() == 2 * ED25519_KEY_BYTES {
        let public = bytes.split_off(ED25519_KEY_BYTES);
        Ed25519KeyPair::from_seed_and_public_key(&bytes, &public)
            .map_err(|_| "the two halves of the whsk_ secret are not a key pair".to_owned())?;
    }
    match bytes.len() {
        ED25519_KEY_BYTES => Ok(Key::Seed(bytes.into())),
        other => Err(format!(
            "a whsk_ secret is {ED25519_KEY_BYTES} or {} bytes, not {other}",
            2 * ED25519_KEY_BYTES
        )),
    }
}

/// Standard base64; padding is optional, because some consoles omit it.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let encoding = if text.ends_with('=') { BASE64 } else { BASE64_NOPAD };
    encoding.decode(text.as_bytes()).map_err(|_| {
        "after an optional prefix, a secret must be base64 with + and /, not - and _".to_owned()
    })
}
