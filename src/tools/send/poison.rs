//! Bodies that an honest sender might send and that cannot be applied.

use serde_json::{Value, json};

use crate::domain::ReasonCode;

/// Where in a body the fields stand that a poison spoils.
#[derive(Clone, Copy, Debug)]
pub struct Anatomy {
    /// Every place of the total.
    pub total: &'static [&'static str],
    /// Every place of the currency.
    pub currency: &'static [&'static str],
    /// Every place of the number.
    pub number: &'static [&'static str],
}

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

    /// The reason under which it is a dead letter.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::NotJson => ReasonCode::InvalidJson,
            Self::NoTotal => ReasonCode::MissingField,
            Self::BadCurrency | Self::NulCharacter | Self::BadTotal => ReasonCode::InvalidValue,
        }
    }

    /// Spoils a body.
    pub(super) fn spoil(self, mut body: Value, anatomy: &Anatomy) -> Vec<u8> {
        let mut set = |places: &[&str], value: &str| {
            for place in places {
                if let Some(field) = body.pointer_mut(place) {
                    *field = json!(value);
                }
            }
        };
        match self {
            Self::NotJson => {}
            Self::NoTotal => remove(&mut body, anatomy.total),
            Self::BadCurrency => set(anatomy.currency, "EURO"),
            Self::NulCharacter => set(anatomy.number, "10\u{0}01"),
            Self::BadTotal => set(anatomy.total, "12,50"),
        }
        let mut bytes = body.to_string().into_bytes();
        if self == Self::NotJson {
            bytes.truncate(bytes.len() * 2 / 3);
        }
        bytes
    }
}

fn remove(body: &mut Value, places: &[&str]) {
    for place in places {
        let Some((parent, field)) = place.rsplit_once('/') else { continue };
        if let Some(Value::Object(parent)) = body.pointer_mut(parent) {
            parent.remove(field);
        }
    }
}
