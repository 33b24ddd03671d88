//! Reads lines with look-ahead.

use std::io::{self, BufRead, Read as _};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// Offset from the start of the current line, including the terminator.
    At(usize),
    /// Beyond the size limit.
    TooLong,
    /// There is no such line: the file has ended.
    EndOfFile,
}

/// Reads lines. It buffers at most a record of `limit` bytes and one line of look-ahead.
pub(super) struct LineReader<R> {
    input: R,
    /// Bytes read so far; the current line begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    number: u32,
    limit: usize,
    bom_checked: bool,
    at_end: bool,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self {
            input,
            buffer: Vec::new(),
            start: 0,
            number: 1,
            limit,
            bom_checked: false,
            at_end: false,
        }
    }

    /// Number of the current line, counted from 1.
    pub(super) fn line_number(&self) -> u32 {
        self.number
    }

    /// Maximum size of an item in bytes.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The end of the line that begins `offset` bytes after the start of the current line.
    pub(super) fn line_end(&mut self, offset: usize) -> io::Result<LineEnd> {
        if !self.bom_checked {
            self.skip_bom()?;
        }
        let begin = self.start + offset;
        if let Some(length) = self.buffer[begin..].iter().position(|byte| *byte == b'\n') {
            return Ok(LineEnd::At(offset + length + 1));
        }
        while !self.at_end {
            // One more for the terminator.
            let remaining = (self.limit + 1).saturating_sub(self.buffer.len() - begin);
            if remaining == 0 {
                return Ok(LineEnd::TooLong);
            }
            let mut part = self.input.by_ref().take(u64::try_from(remaining).unwrap_or(u64::MAX));
            let read = part.read_until(b'\n', &mut self.buffer)?;
            if read > 0 && self.buffer.last() == Some(&b'\n') {
                return Ok(LineEnd::At(self.buffer.len() - self.start));
            }
            self.at_end = read == 0;
        }
        let rest = self.buffer.len() - self.start;
        Ok(if rest > offset { LineEnd::At(rest) } else { LineEnd::EndOfFile })
    }

    fn skip_bom(&mut self) -> io::Result<()> {
        let length = u64::try_from(BOM.len()).unwrap_or(u64::MAX);
        self.input.by_ref().take(length).read_to_end(&mut self.buffer)?;
        if self.buffer == BOM {
            self.buffer.clear();
        }
        self.bom_checked = true;
        Ok(())
    }

    /// The first `length` bytes from the start of the current line.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    /// All buffered bytes from the start of the current line.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Advances by `length` bytes, which contain `lines` lines.
    pub(super) fn advance(&mut self, length: usize, lines: u32) {
        self.start += length;
        self.number = self.number.saturating_add(lines);
        // Moving the rest costs less than what was read already.
        if self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// Skips the current line, which is too long and not fully buffered.
    pub(super) fn skip_long_line(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.start = 0;
        self.input.skip_until(b'\n')?;
        self.number = self.number.saturating_add(1);
        Ok(())
    }

    /// Capacity of its buffers in bytes.
    #[cfg(test)]
    pub(super) fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// A line without its terminator, LF or CRLF.
pub(super) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
