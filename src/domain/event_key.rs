//! What makes two deliveries the same event.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::SourceName;

/// AMQP carries `message_id` as a short string: 255 bytes at the most.
const MAX_TEXT_BYTES: usize = 255;

/// The identity of an event: `(source, tenant, event id, generation)`.
///
/// Its text is the AMQP `message_id` and what people see and search for:
/// `source|tenant|event id`, and `|gN` behind it from generation 1 on. `|`,
/// `%` and control characters inside a part are percent-encoded, so that no
/// two keys share a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    text: String,
}

impl EventKey {
    /// The key of an event, from its parts.
    ///
    /// `event_id` is the platform's own where it is stable across
    /// redeliveries, else a composite that the adapter makes. A key too long
    /// for AMQP keeps its source; the rest is replaced by its SHA-256.
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

    /// The key of a message that came over AMQP, from its `message_id`.
    ///
    /// A text that [`EventKey::from_accepted`] made for this source is taken as it is.
    /// Any other producer's id is an event id within `(source, tenant)`, so
    /// that equal ids of two sources never meet.
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

    /// The key as it stands in the inbox: the first 16 bytes of the SHA-256
    /// of the text. Half the size of the text's index, and the same bytes for
    /// the same key on every worker.
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

/// Shows a part of a key with its separators and control characters
/// percent-encoded.
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
    fn the_text_is_what_people_search_for() {
        let key = EventKey::new(&source("shop"), "demo.myshopify.com", "orders/create:17", 0);
        assert_eq!(key.as_str(), "shop|demo.myshopify.com|orders/create:17");
        let again = EventKey::new(&source("shop"), "demo.myshopify.com", "orders/create:17", 2);
        assert_eq!(again.as_str(), "shop|demo.myshopify.com|orders/create:17|g2");
    }

    #[test]
    fn a_generation_is_never_taken_for_part_of_an_id() {
        let plain = EventKey::new(&source("s"), "t", "1|g1", 0);
        let second = EventKey::new(&source("s"), "t", "1", 1);
        assert_ne!(plain, second);
    }

    #[test]
    fn a_long_key_still_fits_and_still_differs() {
        let long = "x".repeat(400);
        let one = EventKey::new(&source("s"), "t", &format!("{long}1"), 0);
        let two = EventKey::new(&source("s"), "t", &format!("{long}2"), 0);
        assert!(one.as_str().len() <= MAX_TEXT_BYTES);
        assert_ne!(one, two);
        assert!(one.as_str().starts_with("s|"));
    }

    #[test]
    fn a_foreign_producers_id_stays_within_its_source() {
        let (a, b) = (source("a"), source("b"));
        assert_ne!(
            EventKey::from_message_id(&a, "", "order-1").inbox_id(),
            EventKey::from_message_id(&b, "", "order-1").inbox_id()
        );
        let ours = EventKey::new(&a, "t", "1", 0);
        assert_eq!(EventKey::from_message_id(&a, "other", ours.as_str()), ours);
        assert_ne!(EventKey::from_message_id(&b, "t", ours.as_str()), ours);
    }

    proptest! {
        #[test]
        fn different_parts_never_share_a_text(
            one in ("[a|%\u{1}-]{0,4}", "[a|%g0-9]{0,4}", 0_u32..3),
            two in ("[a|%\u{1}-]{0,4}", "[a|%g0-9]{0,4}", 0_u32..3),
        ) {
            let key = |parts: &(String, String, u32)| EventKey::new(&source("s"), &parts.0, &parts.1, parts.2);
            prop_assert_eq!(key(&one) == key(&two), one == two);
        }

        #[test]
        fn the_text_survives_the_wire(tenant in ".{0,20}", id in ".{0,40}", generation in 0_u32..3) {
            let key = EventKey::new(&source("s"), &tenant, &id, generation);
            prop_assert_eq!(EventKey::from_message_id(&source("s"), "else", key.as_str()), key);
        }
    }
}
