//! The idempotency key of an event.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::SourceName;

/// AMQP carries `message_id` as a short string of at most 255 bytes.
const MAX_TEXT_BYTES: usize = 255;

/// The identity of an event: `(source, tenant, event id, generation)`.
///
/// Its text is the AMQP `message_id`, and the text by which operators search:
/// `source|tenant|event id`, followed by `|gN` from generation 1 on. `|`, `%` and control
/// characters inside a part are percent-encoded, so that different keys have different
/// texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    text: String,
}

impl EventKey {
    /// Builds the key of an event from its parts.
    ///
    /// `event_id` is the platform's own id if it is stable across redeliveries, else a
    /// composite that the source builds. If the text is too long for AMQP, everything after
    /// the source is replaced by its SHA-256.
    pub fn new(source: &SourceName, tenant: &str, event_id: &str, generation: u32) -> Self {
        let (tenant, event_id) = (Escaped(tenant), Escaped(event_id));
        let mut text = match generation {
            0 => format!("{source}|{tenant}|{event_id}"),
            _ => format!("{source}|{tenant}|{event_id}|g{generation}"),
        };
        if text.len() > MAX_TEXT_BYTES {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
            text = format!("{source}|sha256|{digest}");
        }
        Self { text }
    }

    /// Builds the key of an AMQP message from its `message_id`.
    ///
    /// A text that [`EventKey::new`] built for this source is used unchanged. The id of any
    /// other producer becomes an event id within `(source, tenant)`, so that equal ids of
    /// two sources stay different keys.
    pub fn from_message_id(source: &SourceName, tenant: &str, message_id: &str) -> Self {
        let ours = message_id
            .strip_prefix(source.as_str())
            .is_some_and(|rest| rest.starts_with('|') && rest.matches('|').count() >= 2)
            && !message_id.chars().any(char::is_control);
        if ours {
            Self { text: message_id.to_owned() }
        } else {
            Self::new(source, tenant, message_id, 0)
        }
    }

    /// The key as text, at most 255 bytes.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key as the inbox stores it: the first 16 bytes of the SHA-256 of the text. Its
    /// index is half the size of an index of texts.
    pub fn inbox_id(&self) -> Uuid {
        let digest = Sha256::digest(self.text.as_bytes());
        let mut first = [0; 16];
        first.copy_from_slice(&digest[..16]);
        Uuid::from_bytes(first)
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Formats a part of a key with separators and control characters percent-encoded.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character == '|' || character == '%' || character.is_control() {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    write!(f, "%{byte:02X}")?;
                }
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(name: &str) -> SourceName {
        name.parse().unwrap()
    }

    #[test]
    fn event_key_text_is_readable() {
        let key = EventKey::new(&source("shop"), "demo.myshopify.com", "orders/create:17", 0);
        assert_eq!(key.as_str(), "shop|demo.myshopify.com|orders/create:17");
        let again = EventKey::new(&source("shop"), "demo.myshopify.com", "orders/create:17", 2);
        assert_eq!(again.as_str(), "shop|demo.myshopify.com|orders/create:17|g2");
        assert_eq!(again.to_string(), again.as_str());
    }

    #[test]
    fn event_key_separators_and_control_characters_are_escaped() {
        let key = EventKey::new(&source("s"), "a|b", "100%\n\u{85}ü", 0);
        assert_eq!(key.as_str(), "s|a%7Cb|100%25%0A%C2%85ü");
    }

    #[test]
    fn event_key_generation_differs_from_id_suffix() {
        let plain = EventKey::new(&source("s"), "t", "1|g1", 0);
        let second = EventKey::new(&source("s"), "t", "1", 1);
        assert_ne!(plain, second);
    }

    #[test]
    fn event_key_too_long_is_hashed() {
        let long = "x".repeat(400);
        let first = EventKey::new(&source("s"), "t", &format!("{long}1"), 0);
        let second = EventKey::new(&source("s"), "t", &format!("{long}2"), 0);
        assert!(first.as_str().len() <= MAX_TEXT_BYTES);
        assert_ne!(first, second);
        assert!(first.as_str().starts_with("s|"));
        let longest = "x".repeat(MAX_TEXT_BYTES - "s|t|".len());
        let unchanged = EventKey::new(&source("s"), "t", &longest, 0);
        assert_eq!(unchanged.as_str(), format!("s|t|{longest}"));
    }

    #[test]
    fn event_key_foreign_message_id_stays_within_its_source() {
        let (a, b) = (source("a"), source("b"));
        assert_ne!(
            EventKey::from_message_id(&a, "", "order-1").inbox_id(),
            EventKey::from_message_id(&b, "", "order-1").inbox_id()
        );
        let ours = EventKey::new(&a, "t", "1", 0);
        assert_eq!(EventKey::from_message_id(&a, "other", ours.as_str()), ours);
        assert_ne!(EventKey::from_message_id(&b, "t", ours.as_str()), ours);
        for (foreign, expected) in [
            // The key of another source whose name begins like ours.
            ("ab|t|1", "a|t|ab%7Ct%7C1"),
            ("a|1", "a|t|a%7C1"),
            ("a|t|1\n", "a|t|a%7Ct%7C1%0A"),
        ] {
            assert_eq!(EventKey::from_message_id(&a, "t", foreign).as_str(), expected);
        }
    }

    proptest! {
        #[test]
        fn event_key_different_parts_have_different_texts(
            one in ("[a|%\u{1}-]{0,4}", "[a|%g0-9]{0,4}", 0_u32..3),
            two in ("[a|%\u{1}-]{0,4}", "[a|%g0-9]{0,4}", 0_u32..3),
        ) {
            let key = |parts: &(String, String, u32)| EventKey::new(&source("s"), &parts.0, &parts.1, parts.2);
            prop_assert_eq!(key(&one) == key(&two), one == two);
        }

        #[test]
        fn event_key_round_trips_as_message_id(tenant in ".{0,20}", id in ".{0,40}", generation in 0_u32..3) {
            let key = EventKey::new(&source("s"), &tenant, &id, generation);
            prop_assert_eq!(EventKey::from_message_id(&source("s"), "else", key.as_str()), key);
        }
    }

    #[test]
    fn event_key_inbox_id_derivation_is_stable() {
        // A different derivation would process every event in the inbox again.
        let key = EventKey::new(&source("s"), "t", "1", 0);
        assert_eq!(key.inbox_id().to_string(), "898a0db3-996d-1d89-eca4-04a29ee5dd0f");
    }
}
