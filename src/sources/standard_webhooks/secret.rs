//! Secrets as Standard Webhooks writes them: the text's start tells its kind.

use data_encoding::{BASE64, BASE64_NOPAD};
use ring::signature::Ed25519KeyPair;

use crate::sources::signature::Key;

/// The length of an ed25519 seed, and of a public key.
const ED25519_KEY_BYTES: usize = 32;

/// The key that a secret's text stands for: `whsec_` and base64, or base64
/// alone, is shared; `whpk_` is an ed25519 public key; `whsk_` is a seed, or
/// the seed with the public key behind it.
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
        24..=64 => Ok(Key::Shared(key)),
        other => Err(format!("a whsec_ secret is 24 to 64 bytes, not {other}, in base64")),
    }
}

fn parse_seed(mut bytes: Vec<u8>) -> Result<Key, String> {
    if bytes.len() == 2 * ED25519_KEY_BYTES {
        let public = bytes.split_off(ED25519_KEY_BYTES);
        Ed25519KeyPair::from_seed_and_public_key(&bytes, &public)
            .map_err(|_| "the two halves of the whsk_ secret are not of one pair".to_owned())?;
    }
    match bytes.len() {
        ED25519_KEY_BYTES => Ok(Key::Seed(bytes)),
        other => Err(format!(
            "a whsk_ secret is {ED25519_KEY_BYTES} or {} bytes, not {other}",
            2 * ED25519_KEY_BYTES
        )),
    }
}

/// Standard base64; the padding may be left out, as some consoles do.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let encoding = if text.ends_with('=') { BASE64 } else { BASE64_NOPAD };
    encoding.decode(text.as_bytes()).map_err(|_| {
        "behind its prefix, if it has one, a secret is base64 with + and /, never - and _"
            .to_owned()
    })
}
