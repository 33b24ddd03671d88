//! Authentic bodies that cannot be applied.

use serde_json::{Value, json};

use super::generate::payload_kind::PayloadKind;
use crate::domain::ReasonCode;

/// A defect of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Poison {
    /// The JSON is truncated.
    NotJson,
    /// The total is missing.
    NoTotal,
    /// The currency is invalid.
    BadCurrency,
    /// The number contains a NUL character, which PostgreSQL cannot store.
    NulCharacter,
    /// The total is not a number.
    BadTotal,
}

impl Poison {
    pub(crate) const ALL: [Self; 5] =
        [Self::NotJson, Self::NoTotal, Self::BadCurrency, Self::NulCharacter, Self::BadTotal];

    /// The reason of the dead letter.
    pub(crate) const fn reason(self) -> ReasonCode {
        match self {
            Self::NotJson => ReasonCode::InvalidJson,
            Self::NoTotal => ReasonCode::MissingField,
            Self::BadCurrency | Self::NulCharacter | Self::BadTotal => ReasonCode::InvalidValue,
        }
    }

    /// Applies the defect to a body.
    pub(super) fn apply(self, mut body: Value, kind: &PayloadKind) -> Vec<u8> {
        let mut set = |pointers: &[&str], value: &str| {
            for pointer in pointers {
                if let Some(field) = body.pointer_mut(pointer) {
                    *field = json!(value);
                }
            }
        };
        match self {
            Self::NotJson => {}
            Self::NoTotal => remove(&mut body, kind.total),
            Self::BadCurrency => set(kind.currency, "EURO"),
            Self::NulCharacter => set(kind.number, "10\u{0}01"),
            Self::BadTotal => set(kind.total, "12,50"),
        }
        let mut bytes = body.to_string().into_bytes();
        if self == Self::NotJson {
            bytes.truncate(bytes.len() * 2 / 3);
        }
        bytes
    }
}

fn remove(body: &mut Value, pointers: &[&str]) {
    for pointer in pointers {
        let Some((parent, field)) = pointer.rsplit_once('/') else { continue };
        if let Some(Value::Object(parent)) = body.pointer_mut(parent) {
            parent.remove(field);
        }
    }
}
