//! Reading files of items: CSV rows, lines of JSON, elements of a JSON array.
//!
//! A file is read once, from its beginning, and held in memory by no more than
//! a few items. What is wrong with one item costs that item: a line that cannot
//! be read is told and stands alone. What makes the rest unreadable (a header
//! without the columns, a JSON array that is no JSON) breaks the reading off.

mod csv;
mod json_array;
mod line_reader;
mod ndjson;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

use bytes::Bytes;

use crate::domain::{CsvDialect, ImportFormat, PermanentFailure, ReasonCode};
use csv::CsvReader;
use json_array::JsonArrayReader;
use ndjson::NdJsonReader;

/// More of an item's own bytes is kept for nobody to read.
const MAX_RAW_BYTES: usize = 65_536;

/// One item of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileItem {
    /// The line on which it begins, counted from 1.
    pub line: u32,
    /// As it stands in the file: its first 64 KiB, for people.
    pub raw: Bytes,
    /// The item as a JSON object: a row has a text for each column, in their
    /// order; or why it cannot be read.
    pub body: Result<Bytes, PermanentFailure>,
}

/// Nothing more of the file can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct FileError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl FileError {
    fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }

    /// The file itself cannot be read.
    fn io(line: u32, error: &io::Error) -> Self {
        Self::new(line, format!("the file cannot be read further: {error}"))
    }
}

/// Reads a file's items, one after the other.
pub struct FileReader<R> {
    reader: FormatReader<R>,
    is_done: bool,
}

enum FormatReader<R> {
    Csv(Box<CsvReader<R>>),
    NdJson(NdJsonReader<R>),
    JsonArray(JsonArrayReader<R>),
}

impl<R: BufRead> FileReader<R> {
    /// A reader that takes no item of more than `limit` bytes.
    pub fn new(input: R, format: ImportFormat, csv: &CsvDialect, limit: usize) -> Self {
        let reader = match format {
            ImportFormat::Csv => {
                FormatReader::Csv(Box::new(CsvReader::new(input, csv.clone(), limit)))
            }
            ImportFormat::NdJson => FormatReader::NdJson(NdJsonReader::new(input, limit)),
            ImportFormat::Json => FormatReader::JsonArray(JsonArrayReader::new(input, limit)),
        };
        Self { reader, is_done: false }
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    fn buffer_capacity(&self) -> usize {
        match &self.reader {
            FormatReader::Csv(rows) => rows.buffer_capacity(),
            FormatReader::NdJson(objects) => objects.buffer_capacity(),
            FormatReader::JsonArray(array) => array.buffer_capacity(),
        }
    }
}

impl<R: BufRead> Iterator for FileReader<R> {
    type Item = Result<FileItem, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let read = match &mut self.reader {
            FormatReader::Csv(rows) => rows.next(),
            FormatReader::NdJson(objects) => objects.next(),
            FormatReader::JsonArray(array) => array.next(),
        };
        self.is_done = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

/// The part of an item that is kept as it stands.
fn truncate_raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_RAW_BYTES)])
}

/// An item that cannot be read.
fn unreadable_item(line: u32, bytes: &[u8], detail: impl Into<String>) -> FileItem {
    FileItem {
        line,
        raw: truncate_raw(bytes),
        body: Err(PermanentFailure::new(ReasonCode::InvalidValue, detail)),
    }
}

/// An item that is larger than any may be.
fn too_large_message(limit: usize) -> String {
    format!("is larger than {limit} bytes")
}

/// Why bytes that are no UTF-8 cannot be read.
const NOT_UTF8: &str = "is not UTF-8";
