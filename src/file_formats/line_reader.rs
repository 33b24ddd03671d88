//! A file's lines, with those that were read ahead.

use std::io::{self, BufRead, Read as _};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// So many bytes behind the current line's beginning, its terminator
    /// included.
    At(usize),
    /// Beyond the limit.
    TooLong,
    /// There is no such line: the file is at its end.
    EndOfFile,
}

/// Lines of a file. It holds at most a record of `limit` bytes and one line
/// that was read ahead.
pub(super) struct LineReader<R> {
    input: R,
    /// What was read; the current line begins at `start`.
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

    /// The number of the current line.
    pub(super) fn line_number(&self) -> u32 {
        self.number
    }

    /// The largest item that is taken.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The end of the line that begins so many bytes behind the current line's
    /// beginning.
    pub(super) fn line_end(&mut self, behind: usize) -> io::Result<LineEnd> {
        if !self.bom_checked {
            self.skip_bom()?;
        }
        let begin = self.start + behind;
        if let Some(length) = self.buffer[begin..].iter().position(|byte| *byte == b'\n') {
            return Ok(LineEnd::At(behind + length + 1));
        }
        while !self.at_end {
            // One more for the terminator.
            let room = (self.limit + 1).saturating_sub(self.buffer.len() - begin);
            if room == 0 {
                return Ok(LineEnd::TooLong);
            }
            let mut part = self.input.by_ref().take(u64::try_from(room).unwrap_or(u64::MAX));
            let read = part.read_until(b'\n', &mut self.buffer)?;
            if read > 0 && self.buffer.last() == Some(&b'\n') {
                return Ok(LineEnd::At(self.buffer.len() - self.start));
            }
            self.at_end = read == 0;
        }
        let rest = self.buffer.len() - self.start;
        Ok(if rest > behind { LineEnd::At(rest) } else { LineEnd::EndOfFile })
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

    /// What stands from the current line's beginning to so many bytes behind it.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.buffer[self.start..self.start + length]
    }

    /// What is held of the current line and of those behind it.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Goes on behind so many bytes, which are so many lines.
    pub(super) fn advance(&mut self, length: usize, lines: u32) {
        self.start += length;
        self.number = self.number.saturating_add(lines);
        // What is moved is less than what was passed.
        if self.start * 2 >= self.buffer.len() {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// Goes on behind a line that ends too far, of which nothing more is held.
    pub(super) fn skip_long_line(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.start = 0;
        self.input.skip_until(b'\n')?;
        self.number = self.number.saturating_add(1);
        Ok(())
    }

    /// How many bytes it holds room for.
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
