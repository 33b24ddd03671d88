//! Reads CSV rows as JSON objects.
//!
//! A quote that is never closed would turn the rest of the file into one field. So records
//! are read line by line: if a record does not end properly, only its first line is
//! rejected, and reading continues with the second. An unclosed quote is recognized by what
//! no program writes: text after a closing quote, a quote within an unquoted field, too few
//! or too many fields, the end of the file or of the size limit.

mod quotes;

use std::io::{self, BufRead};

use bytes::Bytes;
use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};

use super::{
    FileError, FileItem, NOT_UTF8,
    line_reader::{LineEnd, LineReader, trim_line_end},
    too_large_message, truncate_raw, unreadable_item,
};
use crate::domain::CsvDialect;
use quotes::{QuoteState, QuoteTracker};

/// Maximum number of columns.
const MAX_COLUMNS: usize = 1000;

const UNCLOSED_QUOTE: &str = "a quote is not closed";
const TEXT_AFTER_QUOTE: &str = "there is text after a closing quote";

/// Reads the rows after the header.
pub(super) struct CsvReader<R> {
    lines: LineReader<R>,
    dialect: CsvDialect,
    fields: RecordFields,
    /// The start of each column's member in the object: `"name":`. Empty until the header
    /// was read.
    member_prefixes: Vec<String>,
}

/// The extent of a record.
enum RecordExtent {
    /// End of file; there is no record.
    EndOfFile,
    /// A blank line of this many bytes.
    Blank(usize),
    /// A line above the size limit.
    TooLong,
    /// A line of this many bytes that is not a record, and why.
    Malformed(usize, &'static str),
    /// A record of this many bytes and lines.
    Record(usize, u32),
}

impl<R: BufRead> CsvReader<R> {
    pub(super) fn new(input: R, dialect: CsvDialect, limit: usize) -> Self {
        let fields = RecordFields::new(dialect.delimiter);
        Self { lines: LineReader::new(input, limit), dialect, fields, member_prefixes: Vec::new() }
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<FileItem>, FileError> {
        if self.member_prefixes.is_empty() {
            self.read_header()?;
        }
        loop {
            let line = self.lines.line_number();
            match self.record_extent().map_err(|error| FileError::io(line, &error))? {
                RecordExtent::EndOfFile => return Ok(None),
                RecordExtent::Blank(length) => self.lines.advance(length, 1),
                RecordExtent::TooLong => {
                    let detail = too_large_message(self.lines.limit());
                    let item = unreadable_item(line, self.lines.buffered(), detail);
                    self.lines.skip_long_line().map_err(|error| FileError::io(line, &error))?;
                    return Ok(Some(item));
                }
                RecordExtent::Malformed(length, reason) => {
                    return Ok(Some(self.malformed_line(length, reason)));
                }
                RecordExtent::Record(length, lines) => return Ok(Some(self.row(length, lines))),
            }
        }
    }

    /// Rejects a line and advances to the next one.
    fn malformed_line(&mut self, length: usize, reason: impl Into<String>) -> FileItem {
        let record = trim_line_end(self.lines.bytes(length));
        let item = unreadable_item(self.lines.line_number(), record, reason);
        self.lines.advance(length, 1);
        item
    }

    fn row(&mut self, length: usize, lines: u32) -> FileItem {
        let line = self.lines.line_number();
        let record = trim_line_end(self.lines.bytes(length));
        self.fields.read(record);
        let (count, columns) = (self.fields.count(), self.member_prefixes.len());
        if count != columns {
            if lines > 1 {
                let first = self.lines.bytes(length).iter().position(|byte| *byte == b'\n');
                return self.malformed_line(first.map_or(length, |at| at + 1), UNCLOSED_QUOTE);
            }
            let fields = if count == 1 { "field" } else { "fields" };
            return self
                .malformed_line(length, format!("has {count} {fields}, the header has {columns}"));
        }
        let item = match self.fields.object(&self.member_prefixes) {
            None => unreadable_item(line, record, NOT_UTF8),
            Some(body) if body.len() > self.lines.limit() => {
                unreadable_item(line, record, too_large_message(self.lines.limit()))
            }
            Some(body) => FileItem { line, raw: truncate_raw(record), body: Ok(Bytes::from(body)) },
        };
        self.lines.advance(length, lines);
        item
    }

    /// Finds the end of the record that begins with the current line.
    fn record_extent(&mut self) -> io::Result<RecordExtent> {
        let columns =
            if self.member_prefixes.is_empty() { MAX_COLUMNS } else { self.member_prefixes.len() };
        let mut quotes = QuoteTracker::new(self.dialect.delimiter, columns);
        let (mut length, mut first, mut lines) = (0, 0, 0);
        loop {
            let end = match self.lines.line_end(length)? {
                LineEnd::At(end) if lines == 0 || end <= self.lines.limit() => end,
                LineEnd::EndOfFile if lines == 0 => return Ok(RecordExtent::EndOfFile),
                LineEnd::TooLong if lines == 0 => return Ok(RecordExtent::TooLong),
                LineEnd::At(_) | LineEnd::EndOfFile | LineEnd::TooLong => {
                    return Ok(RecordExtent::Malformed(first, UNCLOSED_QUOTE));
                }
            };
            let line = &self.lines.bytes(end)[length..];
            if lines == 0 {
                first = end;
                if self.is_blank(line) {
                    return Ok(RecordExtent::Blank(end));
                }
            }
            lines += 1;
            match quotes.read_line(trim_line_end(line)) {
                QuoteState::Closed => return Ok(RecordExtent::Record(end, lines)),
                QuoteState::Invalid if lines == 1 => {
                    return Ok(RecordExtent::Malformed(first, TEXT_AFTER_QUOTE));
                }
                QuoteState::Invalid => return Ok(RecordExtent::Malformed(first, UNCLOSED_QUOTE)),
                QuoteState::Open => length = end,
            }
        }
    }

    /// Whether a line is blank, without even a delimiter.
    fn is_blank(&self, line: &[u8]) -> bool {
        line.iter().all(|byte| byte.is_ascii_whitespace() && *byte != self.dialect.delimiter)
    }

    /// Reads the header and checks that it has the required columns.
    fn read_header(&mut self) -> Result<(), FileError> {
        let (line, length, lines) = loop {
            let line = self.lines.line_number();
            let header_error =
                |message: &str| FileError::new(line, format!("the header: {message}"));
            match self.record_extent().map_err(|error| FileError::io(line, &error))? {
                RecordExtent::EndOfFile => return Err(FileError::new(line, "the file is empty")),
                RecordExtent::Blank(length) => self.lines.advance(length, 1),
                RecordExtent::TooLong => {
                    return Err(header_error(&too_large_message(self.lines.limit())));
                }
                RecordExtent::Malformed(_, reason) => return Err(header_error(reason)),
                RecordExtent::Record(length, lines) => break (line, length, lines),
            }
        };
        self.fields.read(trim_line_end(self.lines.bytes(length)));
        let header_error = |message: String| FileError::new(line, format!("the header {message}"));
        let names: Vec<&str> = match self.fields.texts() {
            Some(texts) => texts.map(str::trim).collect(),
            None => return Err(header_error(NOT_UTF8.to_owned())),
        };
        check_names(&names, &self.dialect.required_columns).map_err(header_error)?;
        // Serializing a text to memory cannot fail.
        let member = |name: &&str| format!("{}:", serde_json::to_string(name).unwrap_or_default());
        self.member_prefixes = names.iter().map(member).collect();
        self.lines.advance(length, lines);
        Ok(())
    }

    /// Capacity of its buffers in bytes.
    #[cfg(test)]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.lines.buffer_capacity() + self.fields.text.capacity() + self.fields.ends.capacity() * 8
    }
}

/// Checks that the column names are unique and contain the required ones.
fn check_names(names: &[&str], needed: &[String]) -> Result<(), String> {
    if names.len() > MAX_COLUMNS {
        return Err(format!("has more than {MAX_COLUMNS} columns"));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("has no name for column {}", index + 1));
        }
        if name.contains('\r') {
            return Err("ends with a CR alone; lines must end with LF or CRLF".to_owned());
        }
        if names[..index].contains(name) {
            return Err(format!("names the column {} twice", quoted(name)));
        }
    }
    let missing: Vec<_> =
        needed.iter().filter(|name| !names.contains(&name.as_str())).map(|n| quoted(n)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let count: Vec<_> = names.iter().take(20).map(|name| quoted(name)).collect();
    Err(format!("lacks {}; it has {}", missing.join(", "), count.join(", ")))
}

/// A quoted column name for error messages, truncated because the line may not be a header.
fn quoted(name: &str) -> String {
    format!("{:?}", &name[..name.floor_char_boundary(60)])
}

/// The fields of one record.
struct RecordFields {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl RecordFields {
    fn new(delimiter: u8) -> Self {
        // A CR within a line is ordinary text.
        let terminator = Terminator::Any(b'\n');
        let reader = ReaderBuilder::new().delimiter(delimiter).terminator(terminator).build();
        Self { reader, text: Vec::new(), ends: Vec::new(), count: 0 }
    }

    /// Reads a record without its terminator.
    fn read(&mut self, record: &[u8]) {
        self.reader.reset();
        // Fields are never longer than their quoted form.
        self.text.resize(record.len() + 1, 0);
        self.count = 0;
        let (mut read, mut written) = (0, 0);
        loop {
            if self.count == self.ends.len() {
                self.ends.resize((self.count * 2).max(16), 0);
            }
            let (result, input, output, ends) = self.reader.read_record(
                &record[read..],
                &mut self.text[written..],
                &mut self.ends[self.count..],
            );
            read += input;
            written += output;
            self.count += ends;
            match result {
                ReadRecordResult::Record | ReadRecordResult::End => return,
                // After the last byte, an empty input ends the record.
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputEndsFull => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
            }
        }
    }

    fn count(&self) -> usize {
        self.count
    }

    /// The texts of the fields, if they are UTF-8.
    fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        let ends = &self.ends[..self.count];
        let text = std::str::from_utf8(&self.text[..ends.last().copied().unwrap_or(0)]).ok()?;
        let mut start = 0;
        Some(ends.iter().map(move |end| {
            let field = text.get(start..*end).unwrap_or_default();
            start = *end;
            field
        }))
    }

    /// The JSON object of the fields, if they are UTF-8.
    fn object(&self, members: &[String]) -> Option<Vec<u8>> {
        let texts = self.texts()?;
        let mut object = Vec::with_capacity(self.text.len() * 2);
        for (member, text) in members.iter().zip(texts) {
            object.push(if object.is_empty() { b'{' } else { b',' });
            object.extend_from_slice(member.as_bytes());
            // Serializing a text to memory cannot fail.
            let _ = serde_json::to_writer(&mut object, text);
        }
        object.push(b'}');
        Some(object)
    }
}
