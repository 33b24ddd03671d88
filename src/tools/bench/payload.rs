//! Webhook bodies of three kinds, padded to realistic sizes.

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::domain::SourceName;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Payload {
    /// A small event of an in-house system.
    Generic,
    /// An order of `WooCommerce`.
    WooCommerce,
    /// An order of Shopify with a few lines.
    Shopify,
}

/// Padding text that compresses like prose.
const WORDS: &str = "please deliver to the back door after noon gift wrap with card for Anna and \
    ring twice no substitutes size exchange ordered before holiday leave at neighbour invoice \
    number 4711 by mail";

impl Payload {
    /// All payloads, the smallest first.
    pub(super) const ALL: [Self; 3] = [Self::Generic, Self::WooCommerce, Self::Shopify];

    /// The source that receives it.
    pub(super) fn source_name(self) -> anyhow::Result<SourceName> {
        let name = match self {
            Self::Generic => "generic",
            Self::WooCommerce => "woocommerce",
            Self::Shopify => "shopify",
        };
        Ok(name.parse()?)
    }

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Generic => "generic, 2 kB",
            Self::WooCommerce => "WooCommerce, 3.5 kB",
            Self::Shopify => "Shopify, 28 kB",
        }
    }

    /// The key of its figures in JSON.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Generic => "generic_2kb",
            Self::WooCommerce => "woocommerce_3_5kb",
            Self::Shopify => "shopify_28kb",
        }
    }

    /// The size of a padded body.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Generic => 2_000,
            Self::WooCommerce => 3_500,
            Self::Shopify => 28_000,
        }
    }

    /// Pads a body with a field that no source reads. The same number gives
    /// the same padding. Truncated or larger bodies stay as they are.
    pub(super) fn pad(self, body: &Bytes, number: u32) -> Bytes {
        const FIELD: &[u8] = br#","bench_note":""#;
        const END: &[u8] = b"\"}";
        let Some(open) = body.strip_suffix(b"}").filter(|open| open.len() > 1) else {
            return body.clone();
        };
        let room = self.bytes().saturating_sub(open.len() + FIELD.len() + END.len());
        if room == 0 {
            return body.clone();
        }
        let words: Vec<&str> = WORDS.split(' ').collect();
        let mut rng = StdRng::seed_from_u64(u64::from(number));
        let mut note = String::with_capacity(room + 16);
        while note.len() < room {
            note.push_str(words[rng.random_range(0..words.len())]);
            note.push(' ');
        }
        [open, FIELD, &note.as_bytes()[..room], END].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pad_reaches_the_size_of_complete_small_bodies() {
        let body = Bytes::from_static(br#"{"id":7,"total":"1.00"}"#);
        for payload in Payload::ALL {
            let padded = payload.pad(&body, 3);
            assert_eq!(padded.len(), payload.bytes());
            let read: serde_json::Value = serde_json::from_slice(&padded).unwrap();
            assert_eq!((&read["id"], &read["total"]), (&7.into(), &"1.00".into()));
            assert_eq!(padded, payload.pad(&body, 3));
            assert_ne!(padded, payload.pad(&body, 4));
        }
        let truncated = Bytes::from_static(br#"{"id":7,"tot"#);
        assert_eq!(Payload::Generic.pad(&truncated, 1), truncated);
        let large = Bytes::from(format!("{{\"id\":\"{}\"}}", "x".repeat(2_000)));
        assert_eq!(Payload::Generic.pad(&large, 1), large);
    }
}
