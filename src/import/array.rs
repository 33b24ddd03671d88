//! The elements of one JSON array, which may be longer than fits into memory.

use std::io::{self, BufRead};

use bytes::Bytes;

use super::{
    Broken, Item, LONGEST_RAW, NOT_UTF8,
    objects::{NO_OBJECT, Unfit, check, told},
    too_large, unreadable,
};

/// An array's elements. The end of each is found by its brackets and quotes;
/// then it must be JSON as a whole, or nothing behind it can be told.
pub(super) struct Array<R> {
    input: R,
    line: u32,
    limit: usize,
    place: Place,
    /// The element that is read.
    held: Vec<u8>,
}

/// Where reading stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the array.
    Before,
    /// Behind its bracket.
    Opened,
    /// Behind an element.
    Between,
}

const BOM: char = '\u{feff}';

impl<R: BufRead> Array<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, line: 1, limit, place: Place::Before, held: Vec::new() }
    }

    /// The next element; `None` at the end of the array.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Broken> {
        if self.place == Place::Before {
            self.open()?;
        }
        match (self.place, self.peek()?) {
            (_, Some(b']')) => {
                self.input.consume(1);
                return self.close().map(|()| None);
            }
            (Place::Between, Some(b',')) => {
                self.input.consume(1);
                self.peek()?;
            }
            (Place::Between, Some(_)) => {
                return Err(self.broken("no comma stands behind an element"));
            }
            _ => {}
        }
        let line = self.line;
        self.read_element()?;
        self.place = Place::Between;
        self.element(line).map(Some)
    }

    fn open(&mut self) -> Result<(), Broken> {
        self.skip_bom()?;
        match self.peek()? {
            Some(b'[') => {
                self.input.consume(1);
                self.place = Place::Opened;
                Ok(())
            }
            Some(_) => Err(self.broken("the file is no JSON array")),
            None => Err(self.broken("the file is empty")),
        }
    }

    /// Nothing may stand behind the array: it would be lost.
    fn close(&mut self) -> Result<(), Broken> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(self.broken("something stands behind the array")),
        }
    }

    /// The element that was read.
    fn element(&self, line: u32) -> Result<Item, Broken> {
        let text = self.held.trim_ascii_end();
        if text.is_empty() {
            return Err(Broken::new(line, "an element is missing behind a comma"));
        }
        match check(text) {
            Ok(()) => {
                let body = Bytes::copy_from_slice(text);
                Ok(Item { line, raw: body.slice(..body.len().min(LONGEST_RAW)), body: Ok(body) })
            }
            Err(Unfit::NotUtf8) => Ok(unreadable(line, text, NOT_UTF8)),
            Err(Unfit::NoObject) => Ok(unreadable(line, text, NO_OBJECT)),
            Err(Unfit::NotJson(error)) => {
                let within = u32::try_from(error.line().saturating_sub(1)).unwrap_or(u32::MAX);
                let message = format!("is not JSON: {}", told(&error));
                Err(Broken::new(line.saturating_add(within), message))
            }
        }
    }

    /// Reads the element to its end.
    fn read_element(&mut self) -> Result<(), Broken> {
        self.held.clear();
        let line = self.line;
        let mut scan = Scan::default();
        loop {
            let chunk = self.input.fill_buf().map_err(|error| Broken::unread(self.line, &error))?;
            if chunk.is_empty() {
                return Err(self.broken("the file ends within the array"));
            }
            let room = self.limit - self.held.len();
            let end = chunk.iter().take(room + 1).enumerate().find_map(|(at, byte)| {
                match scan.see(*byte) {
                    Seen::Within => None,
                    Seen::Last => Some(at + 1),
                    Seen::Behind => Some(at),
                }
            });
            let part = &chunk[..end.unwrap_or(chunk.len().min(room + 1))];
            if part.len() > room {
                return Err(Broken::new(line, too_large(self.limit)));
            }
            self.held.extend_from_slice(part);
            self.line = self.line.saturating_add(newlines(part));
            let length = part.len();
            self.input.consume(length);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Result<Option<u8>, Broken> {
        loop {
            let chunk = self.input.fill_buf().map_err(|error| Broken::unread(self.line, &error))?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let space = chunk.iter().position(|byte| !byte.is_ascii_whitespace());
            let next = space.map(|at| chunk[at]);
            let length = space.unwrap_or(chunk.len());
            self.line = self.line.saturating_add(newlines(&chunk[..length]));
            self.input.consume(length);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    fn skip_bom(&mut self) -> Result<(), Broken> {
        let mut buffer = [0; 4];
        for expected in BOM.encode_utf8(&mut buffer).bytes() {
            let unread = |error: io::Error| Broken::unread(1, &error);
            let next = self.input.fill_buf().map_err(unread)?.first().copied();
            if next != Some(expected) {
                break;
            }
            self.input.consume(1);
        }
        Ok(())
    }

    fn broken(&self, message: &str) -> Broken {
        Broken::new(self.line, message)
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.held.capacity()
    }
}

fn newlines(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.split(|byte| *byte == b'\n').skip(1).count()).unwrap_or(u32::MAX)
}

/// Where in an element reading stands.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

/// Where a byte stands.
enum Seen {
    /// Within the element.
    Within,
    /// At its end.
    Last,
    /// Behind it.
    Behind,
}

impl Scan {
    fn see(&mut self, byte: u8) -> Seen {
        if self.in_text {
            self.in_text = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return Seen::Within;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            // What is no list and no object ends before what stands behind it.
            b',' | b']' if self.depth == 0 => return Seen::Behind,
            b'}' | b']' if self.depth == 1 => return Seen::Last,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        Seen::Within
    }
}
