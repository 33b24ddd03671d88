//! Bodies that an honest sender might send and that cannot be applied.

use serde_json::{Value, json};

use crate::domain::Reason;

/// What is wrong with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poison {
    /// It breaks off in the middle.
    NotJson,
    /// It has no total.
    NoTotal,
    /// Its currency is none.
    BadCurrency,
    /// A text contains a NUL character, which PostgreSQL cannot store.
    NulCharacter,
    /// Its total is no number.
    BadTotal,
}

impl Poison {
    /// Every poison.
    pub const ALL: [Self; 5] =
        [Self::NotJson, Self::NoTotal, Self::BadCurrency, Self::NulCharacter, Self::BadTotal];

    /// The poison of the nth event, in turn.
    pub fn nth(nth: u32) -> Self {
        Self::ALL[usize::try_from(nth).unwrap_or_default() % Self::ALL.len()]
    }

    /// The reason under which it is a dead letter.
    pub const fn reason(self) -> Reason {
        match self {
            Self::NotJson => Reason::InvalidJson,
            Self::NoTotal => Reason::MissingField,
            Self::BadCurrency | Self::NulCharacter | Self::BadTotal => Reason::InvalidValue,
        }
    }

    /// Spoils a document, which stands at `within` the body.
    pub(super) fn spoil(self, mut body: Value, within: &str) -> Vec<u8> {
        if let Some(Value::Object(document)) = body.pointer_mut(within) {
            match self {
                Self::NotJson => {}
                Self::NoTotal => {
                    for total in TOTALS {
                        document.remove(total);
                    }
                }
                Self::BadCurrency => {
                    document.insert("currency".to_owned(), json!("EURO"));
                }
                Self::NulCharacter => {
                    // Shopify's `name` is what the others call `number`.
                    let number = if document.contains_key("name") { "name" } else { "number" };
                    document.insert(number.to_owned(), json!("10\u{0}01"));
                }
                Self::BadTotal => {
                    for total in TOTALS {
                        document.entry(total).and_modify(|value| *value = json!("12,50"));
                    }
                }
            }
        }
        let mut bytes = body.to_string().into_bytes();
        if self == Self::NotJson {
            bytes.truncate(bytes.len() * 2 / 3);
        }
        bytes
    }
}

const TOTALS: [&str; 3] = ["current_total_price", "total_price", "total"];
