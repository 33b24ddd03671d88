//! The readers need the memory of a few items, however long the file is.

use std::io::{self, BufRead, Read};

use super::{super::*, form};

/// A start, followed by many repetitions of another part.
struct Long {
    part: Vec<u8>,
    at: usize,
    again: Vec<u8>,
    left: usize,
}

impl Long {
    fn new(beginning: &str, again: &str) -> Self {
        Self { part: beginning.into(), at: 0, again: again.into(), left: LENGTH / again.len() }
    }
}

impl Read for Long {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for Long {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.part.len() && self.left > 0 {
            self.left -= 1;
            self.at = 0;
            self.part.clone_from(&self.again);
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

/// Length of the file: more than a hundred times the allowed buffers.
const LENGTH: usize = 4 << 20;
const LIMIT: usize = 4 << 10;
const ROOM: usize = 8 * LIMIT;

/// The number of readable and unreadable items, and whether reading ended early.
fn read(format: ImportFormat, beginning: &str, again: &str) -> (usize, usize, bool) {
    let mut reader = FileReader::new(Long::new(beginning, again), format, &form(&[]), LIMIT);
    let (mut good, mut bad, mut is_broken) = (0, 0, false);
    while let Some(read) = reader.next() {
        match read {
            Ok(FileItem { body: Ok(_), .. }) => good += 1,
            Ok(FileItem { body: Err(_), .. }) => bad += 1,
            Err(_) => is_broken = true,
        }
        let room = reader.buffer_capacity();
        assert!(room <= ROOM, "{format:?}: {room} bytes are buffered");
    }
    (good, bad, is_broken)
}

#[test]
fn reader_long_file_uses_constant_memory() {
    let text = "x".repeat(1000);
    let row = format!("{text},{text}\n");
    let rows = LENGTH / row.len();
    assert_eq!(read(ImportFormat::Csv, "a,b\n", &row), (rows, 0, false));
    // The possible rest of a quoted field is read ahead.
    assert_eq!(read(ImportFormat::Csv, "a,b\n\"1,2\n", &row), (rows, 1, false));
    let line = format!("{{\"a\":\"{text}\"}}\n");
    assert_eq!(read(ImportFormat::NdJson, "", &line), (LENGTH / line.len(), 0, false));
    let element = format!(",{{\"a\":\"{text}\"}}");
    let elements = LENGTH / element.len();
    assert_eq!(read(ImportFormat::Json, "[{}", &element), (elements + 1, 0, true));
}

#[test]
fn reader_endless_line_uses_constant_memory() {
    let text = "x".repeat(1000);
    assert_eq!(read(ImportFormat::Csv, "a,b\n1,2\n", &text), (1, 1, false));
    assert_eq!(read(ImportFormat::NdJson, "{}\n", &text), (1, 1, false));
    assert_eq!(read(ImportFormat::Json, "[{},\"", &text), (1, 0, true));
    // Also with many blank lines.
    assert_eq!(read(ImportFormat::Json, "[{}", &" ".repeat(1000)), (1, 0, true));
    let blank = format!("{}\n", " ".repeat(1000));
    assert_eq!(read(ImportFormat::Csv, "a,b\n1,2\n", &blank), (1, 0, false));
}

#[test]
fn csv_open_quotes_scan_at_most_one_row_ahead() {
    // Each line leaves a quote open, whether a row begins or continues with it. If
    // everything after each were scanned, a file would take days.
    let file = Long::new("a,b\n", "x\",\"x\n");
    let mut reader = FileReader::new(file, ImportFormat::Csv, &form(&[]), LIMIT);
    for line in 2..1000 {
        let item = reader.next().unwrap().unwrap();
        assert_eq!((item.line, &item.raw[..]), (line, &b"x\",\"x"[..]));
        assert!(item.body.is_err());
    }
    let room = reader.buffer_capacity();
    assert!(room < LIMIT / 4, "{room} bytes were scanned");
}
