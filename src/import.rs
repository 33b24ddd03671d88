//! Reading files of items: CSV rows, lines of JSON, elements of a JSON array.
//!
//! A file is read once, from its beginning, and held in memory by no more than
//! a few items. What is wrong with one item costs that item: a line that cannot
//! be read is told and stands alone. What makes the rest unreadable (a header
//! without the columns, a JSON array that is no JSON) breaks the reading off.

mod array;
mod lines;
mod objects;
mod rows;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

use bytes::Bytes;

use crate::domain::{CsvForm, Failure, ImportFormat, Reason};
use array::Array;
use objects::Objects;
use rows::Rows;

/// More of an item's own bytes is kept for nobody to read.
const LONGEST_RAW: usize = 65_536;

/// One item of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The line on which it begins, counted from 1.
    pub line: u32,
    /// As it stands in the file: its first 64 KiB, for people.
    pub raw: Bytes,
    /// The item as a JSON object: a row has a text for each column, in their
    /// order; or why it cannot be read.
    pub body: Result<Bytes, Failure>,
}

/// Nothing more of the file can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct Broken {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    pub message: String,
}

impl Broken {
    fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }

    /// The file itself cannot be read.
    fn unread(line: u32, error: &io::Error) -> Self {
        Self::new(line, format!("the file cannot be read further: {error}"))
    }
}

/// Reads a file's items, one after the other.
pub struct Reader<R> {
    items: Items<R>,
    is_done: bool,
}

enum Items<R> {
    Rows(Box<Rows<R>>),
    Objects(Objects<R>),
    Array(Array<R>),
}

impl<R: BufRead> Reader<R> {
    /// A reader that takes no item of more than `limit` bytes.
    pub fn new(input: R, format: ImportFormat, csv: &CsvForm, limit: usize) -> Self {
        let items = match format {
            ImportFormat::Csv => Items::Rows(Box::new(Rows::new(input, csv.clone(), limit))),
            ImportFormat::NdJson => Items::Objects(Objects::new(input, limit)),
            ImportFormat::Json => Items::Array(Array::new(input, limit)),
        };
        Self { items, is_done: false }
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    fn room(&self) -> usize {
        match &self.items {
            Items::Rows(rows) => rows.room(),
            Items::Objects(objects) => objects.room(),
            Items::Array(array) => array.room(),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Item, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let read = match &mut self.items {
            Items::Rows(rows) => rows.next(),
            Items::Objects(objects) => objects.next(),
            Items::Array(array) => array.next(),
        };
        self.is_done = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

/// The part of an item that is kept as it stands.
fn raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(LONGEST_RAW)])
}

/// An item that cannot be read.
fn unreadable(line: u32, bytes: &[u8], detail: impl Into<String>) -> Item {
    Item { line, raw: raw(bytes), body: Err(Failure::new(Reason::InvalidValue, detail)) }
}

/// An item that is larger than any may be.
fn too_large(limit: usize) -> String {
    format!("is larger than {limit} bytes")
}

/// Why bytes that are no UTF-8 cannot be read.
const NOT_UTF8: &str = "is not UTF-8";
