//! Reads the few fields that a mapping needs from a JSON body, in one pass.
//!
//! A Shopify order has about 600 fields; a mapping needs 15. [`JsonPointers`] are JSON
//! pointers (RFC 6901), compiled once. [`JsonFields`] holds the raw literals at these
//! pointers; everything else is skipped. Numbers stay literals, so money and ids above 2^53
//! are exact.

mod pointers;
#[cfg(test)]
mod tests;

use std::ops::Range;

use rust_decimal::Decimal;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use time::{Date, OffsetDateTime, macros::format_description};

use super::timestamp::parse_timestamp;
use crate::domain::{Currency, PermanentFailure, ReasonCode, money::parse_decimal};
pub use pointers::{JsonPointers, is_json_pointer};

/// Maximum length of a text in bytes; ids, numbers and names are shorter.
const MAX_TEXT_BYTES: usize = 2048;

/// Maximum number of elements of a list; no order has more lines. Reading 4 MB of `0,0,0`
/// would take half a gigabyte.
const MAX_ELEMENTS: usize = 10_000;

/// The literals at [`JsonPointers`] in one JSON document.
#[derive(Debug)]
pub struct JsonFields<'a> {
    text: &'a str,
    pointers: &'a JsonPointers,
    values: Vec<Option<&'a RawValue>>,
    /// Pointer to this document within the body; empty for the body itself.
    path: String,
}

impl<'a> JsonFields<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidJson`] with line and column.
    pub fn read(body: &'a [u8], pointers: &'a JsonPointers) -> Result<Self, PermanentFailure> {
        let text = std::str::from_utf8(body).map_err(|error| {
            PermanentFailure::new(
                ReasonCode::InvalidJson,
                format!("the body is not UTF-8 from byte {} on", error.valid_up_to()),
            )
        })?;
        Self::read_text(text, pointers, String::new())
    }

    fn read_text(
        text: &'a str,
        pointers: &'a JsonPointers,
        path: String,
    ) -> Result<Self, PermanentFailure> {
        let values = pointers.read(text).map_err(|error| {
            PermanentFailure::new(ReasonCode::InvalidJson, format!("the body is not JSON: {error}"))
        })?;
        Ok(Self { text, pointers, values, path })
    }

    /// The raw JSON of the document, a part of the body.
    pub fn raw_json(&self) -> &'a str {
        self.text
    }

    /// Whether there is a value other than null at a pointer.
    pub fn has(&self, pointer: &str) -> bool {
        self.raw(pointer).is_some()
    }

    /// Whether there is a value other than null at one of the pointers.
    pub fn has_any(&self, pointers: &[&str]) -> bool {
        pointers.iter().any(|pointer| self.has(pointer))
    }

    /// The raw value at a pointer; `None` if it is missing or null.
    fn raw(&self, pointer: &str) -> Option<&'a RawValue> {
        let slot = self.pointers.slot(pointer)?;
        self.values[slot].filter(|value| value.get() != "null")
    }

    /// The byte range of the text at a pointer, with its quotes; `None` if there is no
    /// text.
    pub(super) fn text_range(&self, pointer: &str) -> Option<Range<usize>> {
        let literal = self.raw(pointer)?.get();
        // Each literal borrows from the document.
        let start = literal.as_ptr().addr().checked_sub(self.text.as_ptr().addr())?;
        literal.starts_with('"').then(|| start..start + literal.len())
    }

    /// The pointer from the body's root, for error messages.
    pub fn path_of(&self, pointer: &str) -> String {
        format!("{}{pointer}", self.path)
    }

    /// A text; a number or boolean as its literal. `None` if it is missing, null or empty.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] for lists and objects, for texts that PostgreSQL cannot
    /// store (NUL), and for texts of more than 2048 bytes.
    pub fn text(&self, pointer: &str) -> Result<Option<String>, PermanentFailure> {
        let Some(raw) = self.raw(pointer) else {
            return Ok(None);
        };
        let text = match raw.get().as_bytes().first() {
            Some(b'"') => serde_json::from_str::<String>(raw.get()).map_err(|_| {
                PermanentFailure::invalid(self.path_of(pointer), "is not a readable text")
            })?,
            Some(b'{' | b'[') => {
                return Err(PermanentFailure::invalid(
                    self.path_of(pointer),
                    "is a list or an object",
                ));
            }
            _ => raw.get().to_owned(),
        };
        if text.contains('\0') {
            return Err(PermanentFailure::invalid(
                self.path_of(pointer),
                "contains a NUL character",
            ));
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(PermanentFailure::invalid(
                self.path_of(pointer),
                format!("is longer than {MAX_TEXT_BYTES} bytes"),
            ));
        }
        Ok((!text.is_empty()).then_some(text))
    }

    /// A text, or `None` if it is missing or invalid.
    pub fn optional_text(&self, pointer: &str) -> Option<String> {
        self.text(pointer).ok().flatten()
    }

    /// A trimmed text; `None` if nothing is left.
    fn trimmed(&self, pointer: &str) -> Result<Option<String>, PermanentFailure> {
        let text = self.text(pointer)?;
        Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
    }

    /// A required text.
    ///
    /// # Errors
    /// As [`JsonFields::text`], and [`ReasonCode::MissingField`].
    pub fn required_text(&self, pointer: &str) -> Result<String, PermanentFailure> {
        self.text(pointer)?.ok_or_else(|| PermanentFailure::missing(self.path_of(pointer)))
    }

    /// An exact decimal, from a string or a JSON number.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if it is not a number.
    pub fn decimal(&self, pointer: &str) -> Result<Option<Decimal>, PermanentFailure> {
        let Some(text) = self.text(pointer)? else {
            return Ok(None);
        };
        parse_decimal(text.trim()).map(Some).map_err(|error| {
            PermanentFailure::invalid(self.path_of(pointer), format!("is {error}"))
        })
    }

    /// A required exact decimal.
    ///
    /// # Errors
    /// As [`JsonFields::decimal`], and [`ReasonCode::MissingField`].
    pub fn required_decimal(&self, pointer: &str) -> Result<Decimal, PermanentFailure> {
        self.decimal(pointer)?.ok_or_else(|| PermanentFailure::missing(self.path_of(pointer)))
    }

    /// A whole number, such as a version; `None` if it is missing or null.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if it is not a 64-bit integer.
    pub fn integer(&self, pointer: &str) -> Result<Option<i64>, PermanentFailure> {
        let Some(text) = self.text(pointer)? else {
            return Ok(None);
        };
        text.trim().parse().map(Some).map_err(|_| {
            PermanentFailure::invalid(self.path_of(pointer), "is not a 64-bit integer")
        })
    }

    /// A required currency.
    ///
    /// # Errors
    /// [`ReasonCode::MissingField`], [`ReasonCode::InvalidValue`].
    pub fn required_currency(&self, pointer: &str) -> Result<Currency, PermanentFailure> {
        self.required_text(pointer)?
            .parse()
            .map_err(|error| PermanentFailure::invalid(self.path_of(pointer), format!("{error}")))
    }

    /// A timestamp in one of the formats of [`parse_timestamp`].
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if it is not a timestamp.
    pub fn timestamp(&self, pointer: &str) -> Result<Option<OffsetDateTime>, PermanentFailure> {
        let Some(text) = self.trimmed(pointer)? else {
            return Ok(None);
        };
        parse_timestamp(&text).map(Some).ok_or_else(|| {
            let detail = "is not a timestamp (RFC 3339, RFC 2822 or seconds since 1970)";
            PermanentFailure::invalid(self.path_of(pointer), detail)
        })
    }

    /// A date: `YYYY-MM-DD`, or the date of a timestamp.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if it is neither.
    pub fn date(&self, pointer: &str) -> Result<Option<Date>, PermanentFailure> {
        let Some(text) = self.trimmed(pointer)? else {
            return Ok(None);
        };
        Date::parse(&text, format_description!("[year]-[month]-[day]"))
            .ok()
            .filter(|day| day.year() > 0)
            .or_else(|| parse_timestamp(&text).map(OffsetDateTime::date))
            .map(Some)
            .ok_or_else(|| {
                PermanentFailure::invalid(self.path_of(pointer), "is not a date (YYYY-MM-DD)")
            })
    }

    /// The number of elements of a list; 0 if there is no list.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if the value is not a list.
    pub fn count(&self, pointer: &str) -> Result<usize, PermanentFailure> {
        let Some(raw) = self.raw(pointer) else {
            return Ok(0);
        };
        // `IgnoredAny` has no size, so a long list takes no memory.
        serde_json::from_str::<Vec<IgnoredAny>>(raw.get())
            .map(|elements| elements.len())
            .map_err(|_| PermanentFailure::invalid(self.path_of(pointer), "is not a list"))
    }

    /// The elements of a list, each read at `within`; empty if there is no list.
    ///
    /// # Errors
    /// [`ReasonCode::InvalidValue`] if the value is not a list.
    pub fn list(
        &self,
        pointer: &str,
        within: &'a JsonPointers,
    ) -> Result<Vec<Self>, PermanentFailure> {
        let Some(raw) = self.raw(pointer) else {
            return Ok(Vec::new());
        };
        let elements: Vec<&'a RawValue> = serde_json::from_str(raw.get())
            .map_err(|_| PermanentFailure::invalid(self.path_of(pointer), "is not a list"))?;
        if elements.len() > MAX_ELEMENTS {
            let detail = format!("has more than {MAX_ELEMENTS} elements");
            return Err(PermanentFailure::invalid(self.path_of(pointer), detail));
        }
        elements
            .into_iter()
            .enumerate()
            .map(|(index, element)| {
                let path = format!("{}/{index}", self.path_of(pointer));
                Self::read_text(element.get(), within, path)
            })
            .collect()
    }
}
