//! Reads JSON objects, one per line (NDJSON).

use std::io::BufRead;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{
    FileError, FileItem, NOT_UTF8,
    line_reader::{LineEnd, LineReader},
    too_large_message, truncate_raw, unreadable_item,
};
use crate::domain::{PermanentFailure, ReasonCode};

/// Reads lines of JSON.
pub(super) struct NdJsonReader<R> {
    lines: LineReader<R>,
}

impl<R: BufRead> NdJsonReader<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { lines: LineReader::new(input, limit) }
    }

    /// The next object; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<FileItem>, FileError> {
        loop {
            let line = self.lines.line_number();
            let end = self.lines.line_end(0).map_err(|error| FileError::io(line, &error))?;
            let length = match end {
                LineEnd::EndOfFile => return Ok(None),
                LineEnd::TooLong => {
                    let detail = too_large_message(self.lines.limit());
                    let item = unreadable_item(line, self.lines.buffered(), detail);
                    self.lines.skip_long_line().map_err(|error| FileError::io(line, &error))?;
                    return Ok(Some(item));
                }
                LineEnd::At(length) => length,
            };
            let text = self.lines.bytes(length).trim_ascii();
            let item = (!text.is_empty()).then(|| item(line, text));
            self.lines.advance(length, 1);
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// Capacity of its buffers in bytes.
    #[cfg(test)]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.lines.buffer_capacity()
    }
}

fn item(line: u32, text: &[u8]) -> FileItem {
    match check_object(text) {
        Ok(()) => {
            let body = Bytes::copy_from_slice(text);
            FileItem {
                line,
                raw: body.slice(..body.len().min(super::MAX_RAW_BYTES)),
                body: Ok(body),
            }
        }
        Err(NotAnObject::NotUtf8) => unreadable_item(line, text, NOT_UTF8),
        Err(NotAnObject::OtherJson) => unreadable_item(line, text, NOT_AN_OBJECT),
        Err(NotAnObject::NotJson(error)) => {
            let detail = format!(
                "is not JSON: {} at column {}",
                message_without_position(&error),
                error.column()
            );
            FileItem {
                line,
                raw: truncate_raw(text),
                body: Err(PermanentFailure::new(ReasonCode::InvalidJson, detail)),
            }
        }
    }
}

/// Why an item is not a JSON object.
pub(super) enum NotAnObject {
    NotUtf8,
    NotJson(serde_json::Error),
    OtherJson,
}

pub(super) const NOT_AN_OBJECT: &str = "is not a JSON object";

/// Checks that these bytes are a JSON object.
pub(super) fn check_object(text: &[u8]) -> Result<(), NotAnObject> {
    let text = std::str::from_utf8(text).map_err(|_| NotAnObject::NotUtf8)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(NotAnObject::NotJson)?;
    if text.trim_start().starts_with('{') { Ok(()) } else { Err(NotAnObject::OtherJson) }
}

/// The message of a JSON error without its position, which is reported as a line of the
/// file.
pub(super) fn message_without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or_default().to_owned()
}
