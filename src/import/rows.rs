//! CSV rows, as JSON objects.
//!
//! A quote that is never closed would make the rest of the file one field. So
//! records are looked for line by line: one that does not end well within the
//! lines that it takes gives up its first line alone, and reading goes on with
//! the second. Unclosed is told by what no program writes: text behind a
//! closing quote, a quote within an unquoted field, too few or too many fields,
//! the end of the file or of what an item may hold.

mod quotes;

use std::io::{self, BufRead};

use bytes::Bytes;
use csv_core::{ReadRecordResult, ReaderBuilder, Terminator};

use super::{
    Broken, Item, NOT_UTF8,
    lines::{End, Lines, without_end},
    raw, too_large, unreadable,
};
use crate::domain::CsvForm;
use quotes::{Quotes, Seen};

/// No file has more columns.
const MOST_COLUMNS: usize = 1000;

const UNCLOSED: &str = "a quote is not closed";
const BEHIND: &str = "text stands behind a closing quote";

/// The rows behind a header.
pub(super) struct Rows<R> {
    lines: Lines<R>,
    form: CsvForm,
    fields: Fields,
    /// Each column's name as it begins its member of an object: `"name":`.
    /// Empty before the header was read.
    members: Vec<String>,
}

/// How far a record reaches.
enum Reach {
    /// There is none.
    End,
    /// A line without anything.
    Blank(usize),
    /// A line beyond the limit.
    TooFar,
    /// A line that is no record, and why.
    No(usize, &'static str),
    /// A record of so many bytes and lines.
    Record(usize, u32),
}

impl<R: BufRead> Rows<R> {
    pub(super) fn new(input: R, form: CsvForm, limit: usize) -> Self {
        let fields = Fields::new(form.delimiter);
        Self { lines: Lines::new(input, limit), form, fields, members: Vec::new() }
    }

    /// The next row; `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Broken> {
        if self.members.is_empty() {
            self.read_header()?;
        }
        loop {
            let line = self.lines.number();
            match self.reach().map_err(|error| Broken::unread(line, &error))? {
                Reach::End => return Ok(None),
                Reach::Blank(length) => self.lines.pass(length, 1),
                Reach::TooFar => {
                    let detail = too_large(self.lines.limit());
                    let item = unreadable(line, self.lines.rest(), detail);
                    self.lines.pass_too_far().map_err(|error| Broken::unread(line, &error))?;
                    return Ok(Some(item));
                }
                Reach::No(length, why) => return Ok(Some(self.give_up(length, why))),
                Reach::Record(length, lines) => return Ok(Some(self.row(length, lines))),
            }
        }
    }

    /// Gives a line up.
    fn give_up(&mut self, length: usize, why: impl Into<String>) -> Item {
        let record = without_end(self.lines.bytes(length));
        let item = unreadable(self.lines.number(), record, why);
        self.lines.pass(length, 1);
        item
    }

    fn row(&mut self, length: usize, lines: u32) -> Item {
        let line = self.lines.number();
        let record = without_end(self.lines.bytes(length));
        self.fields.read(record);
        let (told, columns) = (self.fields.count(), self.members.len());
        if told != columns {
            if lines > 1 {
                let first = self.lines.bytes(length).iter().position(|byte| *byte == b'\n');
                return self.give_up(first.map_or(length, |at| at + 1), UNCLOSED);
            }
            let fields = if told == 1 { "field" } else { "fields" };
            return self.give_up(length, format!("has {told} {fields}, the header has {columns}"));
        }
        let item = match self.fields.object(&self.members) {
            None => unreadable(line, record, NOT_UTF8),
            Some(body) if body.len() > self.lines.limit() => {
                unreadable(line, record, too_large(self.lines.limit()))
            }
            Some(body) => Item { line, raw: raw(record), body: Ok(Bytes::from(body)) },
        };
        self.lines.pass(length, lines);
        item
    }

    /// Looks where the record ends that begins with the current line.
    fn reach(&mut self) -> io::Result<Reach> {
        let columns = if self.members.is_empty() { MOST_COLUMNS } else { self.members.len() };
        let mut quotes = Quotes::new(self.form.delimiter, columns);
        let (mut length, mut first, mut lines) = (0, 0, 0);
        loop {
            let end = match self.lines.end(length)? {
                End::At(end) if lines == 0 || end <= self.lines.limit() => end,
                End::OfFile if lines == 0 => return Ok(Reach::End),
                End::TooFar if lines == 0 => return Ok(Reach::TooFar),
                End::At(_) | End::OfFile | End::TooFar => return Ok(Reach::No(first, UNCLOSED)),
            };
            let line = &self.lines.bytes(end)[length..];
            if lines == 0 {
                first = end;
                if self.is_blank(line) {
                    return Ok(Reach::Blank(end));
                }
            }
            lines += 1;
            match quotes.see(without_end(line)) {
                Seen::Closed => return Ok(Reach::Record(end, lines)),
                Seen::Wrong if lines == 1 => return Ok(Reach::No(first, BEHIND)),
                Seen::Wrong => return Ok(Reach::No(first, UNCLOSED)),
                Seen::Open => length = end,
            }
        }
    }

    /// Whether nothing stands on a line, not even a delimiter.
    fn is_blank(&self, line: &[u8]) -> bool {
        line.iter().all(|byte| byte.is_ascii_whitespace() && *byte != self.form.delimiter)
    }

    /// Reads the header, and checks that it has what rows need.
    fn read_header(&mut self) -> Result<(), Broken> {
        let (line, length, lines) = loop {
            let line = self.lines.number();
            let broken = |message: &str| Broken::new(line, format!("the header: {message}"));
            match self.reach().map_err(|error| Broken::unread(line, &error))? {
                Reach::End => return Err(Broken::new(line, "the file is empty")),
                Reach::Blank(length) => self.lines.pass(length, 1),
                Reach::TooFar => return Err(broken(&too_large(self.lines.limit()))),
                Reach::No(_, why) => return Err(broken(why)),
                Reach::Record(length, lines) => break (line, length, lines),
            }
        };
        self.fields.read(without_end(self.lines.bytes(length)));
        let broken = |message: String| Broken::new(line, format!("the header {message}"));
        let names: Vec<&str> = match self.fields.texts() {
            Some(texts) => texts.map(str::trim).collect(),
            None => return Err(broken(NOT_UTF8.to_owned())),
        };
        check_names(&names, &self.form.columns).map_err(broken)?;
        // Writing a text to memory cannot fail.
        let member = |name: &&str| format!("{}:", serde_json::to_string(name).unwrap_or_default());
        self.members = names.iter().map(member).collect();
        self.lines.pass(length, lines);
        Ok(())
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.lines.room() + self.fields.text.capacity() + self.fields.ends.capacity() * 8
    }
}

/// Checks that each column has a name of its own, and those that are needed.
fn check_names(names: &[&str], needed: &[String]) -> Result<(), String> {
    if names.len() > MOST_COLUMNS {
        return Err(format!("has more than {MOST_COLUMNS} columns"));
    }
    for (index, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(format!("has no name for column {}", index + 1));
        }
        if name.contains('\r') {
            return Err("ends with CR alone: lines must end with LF or CRLF".to_owned());
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
    let told: Vec<_> = names.iter().take(20).map(|name| quoted(name)).collect();
    Err(format!("lacks {}; it has {}", missing.join(", "), told.join(", ")))
}

/// A column's name for people; of a line that is no header, not all of it.
fn quoted(name: &str) -> String {
    format!("{:?}", &name[..name.floor_char_boundary(60)])
}

/// The fields of one record.
struct Fields {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
}

impl Fields {
    fn new(delimiter: u8) -> Self {
        // A CR within a line is text like any other.
        let terminator = Terminator::Any(b'\n');
        let reader = ReaderBuilder::new().delimiter(delimiter).terminator(terminator).build();
        Self { reader, text: Vec::new(), ends: Vec::new(), count: 0 }
    }

    /// Reads a record without its terminator.
    fn read(&mut self, record: &[u8]) {
        self.reader.reset();
        // Fields are shorter than what they are written as.
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
                // At its end, an empty input ends the record too.
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputEndsFull => {}
                ReadRecordResult::OutputFull => self.text.resize(self.text.len() * 2, 0),
            }
        }
    }

    fn count(&self) -> usize {
        self.count
    }

    /// The fields' texts, if they are UTF-8.
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

    /// The object that has these members, if the fields are UTF-8.
    fn object(&self, members: &[String]) -> Option<Vec<u8>> {
        let texts = self.texts()?;
        let mut object = Vec::with_capacity(self.text.len() * 2);
        for (member, text) in members.iter().zip(texts) {
            object.push(if object.is_empty() { b'{' } else { b',' });
            object.extend_from_slice(member.as_bytes());
            // Writing a text to memory cannot fail.
            let _ = serde_json::to_writer(&mut object, text);
        }
        object.push(b'}');
        Some(object)
    }
}
