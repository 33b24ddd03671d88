//! JSON objects, each on a line of its own (NDJSON).

use std::io::BufRead;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{
    Broken, Item, NOT_UTF8,
    lines::{End, Lines},
    raw, too_large, unreadable,
};
use crate::domain::{Failure, Reason};

/// Lines of JSON.
pub(super) struct Objects<R> {
    lines: Lines<R>,
}

impl<R: BufRead> Objects<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { lines: Lines::new(input, limit) }
    }

    /// The next object; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Broken> {
        loop {
            let line = self.lines.number();
            let end = self.lines.end(0).map_err(|error| Broken::unread(line, &error))?;
            let length = match end {
                End::OfFile => return Ok(None),
                End::TooFar => {
                    let detail = too_large(self.lines.limit());
                    let item = unreadable(line, self.lines.rest(), detail);
                    self.lines.pass_too_far().map_err(|error| Broken::unread(line, &error))?;
                    return Ok(Some(item));
                }
                End::At(length) => length,
            };
            let text = self.lines.bytes(length).trim_ascii();
            let item = (!text.is_empty()).then(|| item(line, text));
            self.lines.pass(length, 1);
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.lines.room()
    }
}

fn item(line: u32, text: &[u8]) -> Item {
    match check(text) {
        Ok(()) => {
            let body = Bytes::copy_from_slice(text);
            Item { line, raw: body.slice(..body.len().min(super::LONGEST_RAW)), body: Ok(body) }
        }
        Err(Unfit::NotUtf8) => unreadable(line, text, NOT_UTF8),
        Err(Unfit::NoObject) => unreadable(line, text, NO_OBJECT),
        Err(Unfit::NotJson(error)) => {
            let detail = format!("is not JSON: {} at column {}", told(&error), error.column());
            Item { line, raw: raw(text), body: Err(Failure::new(Reason::InvalidJson, detail)) }
        }
    }
}

/// Why an item that must be a JSON object is none.
pub(super) enum Unfit {
    NotUtf8,
    NotJson(serde_json::Error),
    NoObject,
}

pub(super) const NO_OBJECT: &str = "is no JSON object";

/// Checks that these bytes are a JSON object.
pub(super) fn check(text: &[u8]) -> Result<(), Unfit> {
    let text = std::str::from_utf8(text).map_err(|_| Unfit::NotUtf8)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(Unfit::NotJson)?;
    if text.trim_start().starts_with('{') { Ok(()) } else { Err(Unfit::NoObject) }
}

/// What is wrong, without the place, which is told in lines of the file.
pub(super) fn told(error: &serde_json::Error) -> String {
    let told = error.to_string();
    told.split(" at line ").next().unwrap_or_default().to_owned()
}
