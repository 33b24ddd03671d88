//! A file's lines, with those that were read ahead.

use std::io::{self, BufRead, Read as _};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// So many bytes behind the current line's beginning, its terminator
    /// included.
    At(usize),
    /// Beyond the limit.
    TooFar,
    /// There is no such line: the file is at its end.
    OfFile,
}

/// Lines of a file. It holds at most a record of `limit` bytes and one line
/// that was read ahead.
pub(super) struct Lines<R> {
    input: R,
    /// What was read; the current line begins at `start`.
    held: Vec<u8>,
    start: usize,
    number: u32,
    limit: usize,
    has_begun: bool,
    has_ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, limit: usize) -> Self {
        Self {
            input,
            held: Vec::new(),
            start: 0,
            number: 1,
            limit,
            has_begun: false,
            has_ended: false,
        }
    }

    /// The number of the current line.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The largest item that is taken.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The end of the line that begins so many bytes behind the current line's
    /// beginning.
    pub(super) fn end(&mut self, behind: usize) -> io::Result<End> {
        if !self.has_begun {
            self.skip_bom()?;
        }
        let begin = self.start + behind;
        if let Some(length) = self.held[begin..].iter().position(|byte| *byte == b'\n') {
            return Ok(End::At(behind + length + 1));
        }
        while !self.has_ended {
            // One more for the terminator.
            let room = (self.limit + 1).saturating_sub(self.held.len() - begin);
            if room == 0 {
                return Ok(End::TooFar);
            }
            let mut part = self.input.by_ref().take(u64::try_from(room).unwrap_or(u64::MAX));
            let read = part.read_until(b'\n', &mut self.held)?;
            if read > 0 && self.held.last() == Some(&b'\n') {
                return Ok(End::At(self.held.len() - self.start));
            }
            self.has_ended = read == 0;
        }
        let rest = self.held.len() - self.start;
        Ok(if rest > behind { End::At(rest) } else { End::OfFile })
    }

    fn skip_bom(&mut self) -> io::Result<()> {
        let length = u64::try_from(BOM.len()).unwrap_or(u64::MAX);
        self.input.by_ref().take(length).read_to_end(&mut self.held)?;
        if self.held == BOM {
            self.held.clear();
        }
        self.has_begun = true;
        Ok(())
    }

    /// What stands from the current line's beginning to so many bytes behind it.
    pub(super) fn bytes(&self, length: usize) -> &[u8] {
        &self.held[self.start..self.start + length]
    }

    /// What is held of the current line and of those behind it.
    pub(super) fn rest(&self) -> &[u8] {
        &self.held[self.start..]
    }

    /// Goes on behind so many bytes, which are so many lines.
    pub(super) fn pass(&mut self, length: usize, lines: u32) {
        self.start += length;
        self.number = self.number.saturating_add(lines);
        // What is moved is less than what was passed.
        if self.start * 2 >= self.held.len() {
            self.held.drain(..self.start);
            self.start = 0;
        }
    }

    /// Goes on behind a line that ends too far, of which nothing more is held.
    pub(super) fn pass_too_far(&mut self) -> io::Result<()> {
        self.held.clear();
        self.start = 0;
        self.input.skip_until(b'\n')?;
        self.number = self.number.saturating_add(1);
        Ok(())
    }

    /// How many bytes it holds room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.held.capacity()
    }
}

/// A line without its terminator, LF or CRLF.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
