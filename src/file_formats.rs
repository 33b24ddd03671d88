//! Readers of imported files: CSV rows, lines of JSON, elements of a JSON array.
//!
//! A file is read once, front to back; at most a few items are in memory. An unreadable
//! item is reported and the rest is read. Reading ends early only if the rest cannot be
//! separated into items: a header without the required columns, or an array that is not
//! valid JSON.

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

/// Maximum length of the stored raw bytes of an item.
const MAX_RAW_BYTES: usize = 65_536;

/// One item of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileItem {
    /// The line on which it begins, counted from 1.
    pub line: u32,
    /// The raw bytes in the file, at most 64 KiB, for operators.
    pub raw: Bytes,
    /// The item as a JSON object, in which a CSV row has a text for each column in their
    /// order; or why it is unreadable.
    pub body: Result<Bytes, PermanentFailure>,
}

/// The rest of the file cannot be read.
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

    /// An I/O error.
    fn io(line: u32, error: &io::Error) -> Self {
        Self::new(line, format!("cannot read the file: {error}"))
    }
}

/// Reads the items of a file in their order.
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
    /// A reader that accepts items of at most `limit` bytes.
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

    /// Capacity of its buffers in bytes.
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

/// The stored raw bytes of an item.
fn truncate_raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_RAW_BYTES)])
}

/// An unreadable item.
fn unreadable_item(line: u32, bytes: &[u8], detail: impl Into<String>) -> FileItem {
    FileItem {
        line,
        raw: truncate_raw(bytes),
        body: Err(PermanentFailure::new(ReasonCode::InvalidValue, detail)),
    }
}

/// The error of an item above the size limit.
fn too_large_message(limit: usize) -> String {
    format!("is larger than {limit} bytes")
}

/// The error of bytes that are not UTF-8.
const NOT_UTF8: &str = "is not UTF-8";
