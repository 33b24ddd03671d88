//! What is sent: webhooks of three shapes, padded to the sizes of real ones.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::domain::SourceName;

/// A shape and size of webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Payload {
    /// A small event of a system of one's own.
    Generic,
    /// `WooCommerce`'s order.
    WooCommerce,
    /// Shopify's order with a handful of lines.
    Shopify,
}

/// What people write into notes, more or less: text that compresses as text
/// does.
const WORDS: [&str; 32] = [
    "please",
    "deliver",
    "to",
    "the",
    "back",
    "door",
    "after",
    "noon",
    "gift",
    "wrap",
    "with",
    "card",
    "for",
    "Anna",
    "and",
    "ring",
    "twice",
    "no",
    "substitutes",
    "size",
    "exchange",
    "ordered",
    "before",
    "holiday",
    "leave",
    "at",
    "neighbour",
    "invoice",
    "number",
    "4711",
    "by",
    "mail",
];

impl Payload {
    /// All of them, the smallest first.
    pub const ALL: [Self; 3] = [Self::Generic, Self::WooCommerce, Self::Shopify];

    /// The name of its source.
    pub const fn source_name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::WooCommerce => "woocommerce",
            Self::Shopify => "shopify",
        }
    }

    /// Its source.
    ///
    /// # Errors
    /// None: the names are good.
    pub fn source(self) -> anyhow::Result<SourceName> {
        Ok(self.source_name().parse()?)
    }

    /// How people call it.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Generic => "generic, 2 kB",
            Self::WooCommerce => "WooCommerce, 3.5 kB",
            Self::Shopify => "Shopify, 28 kB",
        }
    }

    /// How its figures are called in JSON.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Generic => "generic_2kb",
            Self::WooCommerce => "woocommerce_3_5kb",
            Self::Shopify => "shopify_28kb",
        }
    }

    /// The size to which a body is padded, in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Generic => 2_000,
            Self::WooCommerce => 3_500,
            Self::Shopify => 28_000,
        }
    }

    /// A body padded to the size, by a field that no adapter reads; the same
    /// for the same number. What is no object, such as one that breaks off, or
    /// is large enough, stays as it is.
    pub fn pad(self, body: &Bytes, number: u32) -> Bytes {
        const FIELD: &[u8] = br#","bench_note":""#;
        const END: &[u8] = b"\"}";
        let Some(open) = body.strip_suffix(b"}").filter(|open| open.len() > 1) else {
            return body.clone();
        };
        let room = self.bytes().saturating_sub(open.len() + FIELD.len() + END.len());
        if room == 0 {
            return body.clone();
        }
        let mut rng = StdRng::seed_from_u64(u64::from(number));
        let mut note = String::with_capacity(room + 16);
        while note.len() < room {
            note.push_str(WORDS[rng.random_range(0..WORDS.len())]);
            note.push(' ');
        }
        // Words are ASCII.
        [open, FIELD, &note.as_bytes()[..room], END].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_keeps_the_rest_and_meets_the_size() {
        let body = Bytes::from_static(br#"{"id":7,"total":"1.00"}"#);
        for payload in Payload::ALL {
            let padded = payload.pad(&body, 3);
            assert_eq!(padded.len(), payload.bytes());
            let read: serde_json::Value = serde_json::from_slice(&padded).unwrap();
            assert_eq!((&read["id"], &read["total"]), (&7.into(), &"1.00".into()));
            assert_eq!(padded, payload.pad(&body, 3));
            assert_ne!(padded, payload.pad(&body, 4));
        }
    }

    #[test]
    fn what_breaks_off_or_is_large_stays_as_it_is() {
        let broken = Bytes::from_static(br#"{"id":7,"tot"#);
        assert_eq!(Payload::Generic.pad(&broken, 1), broken);
        let large = Bytes::from(format!("{{\"id\":\"{}\"}}", "x".repeat(2_000)));
        assert_eq!(Payload::Generic.pad(&large, 1), large);
    }
}
