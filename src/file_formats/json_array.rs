//! Reads the elements of one JSON array, which may be larger than memory.

use std::io::{self, BufRead};

use bytes::Bytes;

use super::{
    FileError, FileItem, MAX_RAW_BYTES, NOT_UTF8,
    ndjson::{NOT_AN_OBJECT, NotAnObject, check_object, message_without_position},
    too_large_message, unreadable_item,
};

/// Finds the end of each element by its brackets and quotes. Each element must be valid
/// JSON, or the rest of the array cannot be separated into elements.
pub(super) struct JsonArrayReader<R> {
    input: R,
    line: u32,
    limit: usize,
    position: Position,
    /// The current element.
    buffer: Vec<u8>,
}

/// The position between elements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before the array.
    BeforeArray,
    /// After the opening bracket.
    ArrayStart,
    /// After an element.
    AfterElement,
}

const BOM: char = '\u{feff}';

impl<R: BufRead> JsonArrayReader<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self { input, line: 1, limit, position: Position::BeforeArray, buffer: Vec::new() }
    }

    /// The next element; `None` at the end of the array.
    pub(super) fn next(&mut self) -> Result<Option<FileItem>, FileError> {
        if self.position == Position::BeforeArray {
            self.open()?;
        }
        match (self.position, self.skip_white_space()?) {
            (_, Some(b']')) => {
                self.input.consume(1);
                return self.close().map(|()| None);
            }
            (Position::AfterElement, Some(b',')) => {
                self.input.consume(1);
                self.skip_white_space()?;
            }
            (Position::AfterElement, Some(_)) => {
                return Err(self.error("a comma is missing after an element"));
            }
            _ => {}
        }
        let line = self.line;
        self.read_element()?;
        self.position = Position::AfterElement;
        self.element(line).map(Some)
    }

    fn open(&mut self) -> Result<(), FileError> {
        self.skip_bom()?;
        match self.skip_white_space()? {
            Some(b'[') => {
                self.input.consume(1);
                self.position = Position::ArrayStart;
                Ok(())
            }
            Some(_) => Err(self.error("the file is not a JSON array")),
            None => Err(self.error("the file is empty")),
        }
    }

    /// Fails if anything follows the array; it would be lost.
    fn close(&mut self) -> Result<(), FileError> {
        match self.skip_white_space()? {
            None => Ok(()),
            Some(_) => Err(self.error("there is text after the array")),
        }
    }

    /// The item of the current element.
    fn element(&self, line: u32) -> Result<FileItem, FileError> {
        let text = self.buffer.trim_ascii_end();
        if text.is_empty() {
            return Err(FileError::new(line, "an element is missing after a comma"));
        }
        match check_object(text) {
            Ok(()) => {
                let body = Bytes::copy_from_slice(text);
                Ok(FileItem {
                    line,
                    raw: body.slice(..body.len().min(MAX_RAW_BYTES)),
                    body: Ok(body),
                })
            }
            Err(NotAnObject::NotUtf8) => Ok(unreadable_item(line, text, NOT_UTF8)),
            Err(NotAnObject::OtherJson) => Ok(unreadable_item(line, text, NOT_AN_OBJECT)),
            Err(NotAnObject::NotJson(error)) => {
                let within = u32::try_from(error.line().saturating_sub(1)).unwrap_or(u32::MAX);
                let message = format!("is not JSON: {}", message_without_position(&error));
                Err(FileError::new(line.saturating_add(within), message))
            }
        }
    }

    /// Reads the current element to its end.
    fn read_element(&mut self) -> Result<(), FileError> {
        self.buffer.clear();
        let line = self.line;
        let mut scan = ElementScanner::default();
        loop {
            let chunk = self.input.fill_buf().map_err(|error| FileError::io(self.line, &error))?;
            if chunk.is_empty() {
                return Err(self.error("the file ends within the array"));
            }
            let remaining = self.limit - self.buffer.len();
            let end =
                chunk.iter().take(remaining + 1).enumerate().find_map(|(at, byte)| {
                    match scan.advance(*byte) {
                        BytePosition::InElement => None,
                        BytePosition::ElementEnd => Some(at + 1),
                        BytePosition::AfterElement => Some(at),
                    }
                });
            let part = &chunk[..end.unwrap_or(chunk.len().min(remaining + 1))];
            if part.len() > remaining {
                return Err(FileError::new(line, too_large_message(self.limit)));
            }
            self.buffer.extend_from_slice(part);
            self.line = self.line.saturating_add(newlines(part));
            let length = part.len();
            self.input.consume(length);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Skips white space and returns the next byte without consuming it.
    fn skip_white_space(&mut self) -> Result<Option<u8>, FileError> {
        loop {
            let chunk = self.input.fill_buf().map_err(|error| FileError::io(self.line, &error))?;
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

    fn skip_bom(&mut self) -> Result<(), FileError> {
        let mut buffer = [0; 4];
        for expected in BOM.encode_utf8(&mut buffer).bytes() {
            let unread = |error: io::Error| FileError::io(1, &error);
            let next = self.input.fill_buf().map_err(unread)?.first().copied();
            if next != Some(expected) {
                break;
            }
            self.input.consume(1);
        }
        Ok(())
    }

    fn error(&self, message: &str) -> FileError {
        FileError::new(self.line, message)
    }

    /// Capacity of its buffers in bytes.
    #[cfg(test)]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

fn newlines(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.split(|byte| *byte == b'\n').skip(1).count()).unwrap_or(u32::MAX)
}

/// Scans an element for its end.
#[derive(Default)]
struct ElementScanner {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

/// The position of a byte relative to the element.
enum BytePosition {
    /// Within the element.
    InElement,
    /// The last byte of the element.
    ElementEnd,
    /// After the element.
    AfterElement,
}

impl ElementScanner {
    fn advance(&mut self, byte: u8) -> BytePosition {
        if self.in_text {
            self.in_text = self.is_escaped || byte != b'"';
            self.is_escaped = !self.is_escaped && byte == b'\\';
            return BytePosition::InElement;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            // A scalar ends before the comma or bracket that follows it.
            b',' | b']' if self.depth == 0 => return BytePosition::AfterElement,
            b'}' | b']' if self.depth == 1 => return BytePosition::ElementEnd,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        BytePosition::InElement
    }
}
