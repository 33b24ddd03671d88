//! The write-ahead log: one JSON object a line, written before the response.
//!
//! A written line survives `kill -9`. Nothing is synced: the mock need not
//! survive a power failure.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::state::WalEntry;

/// An open, locked log file.
#[derive(Debug)]
pub(crate) struct Wal {
    path: PathBuf,
    file: File,
    /// Length of all complete lines, in bytes.
    length: u64,
}

impl Wal {
    /// Opens the log and reads its entries. An incomplete last line is removed:
    /// its response was never sent.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, Vec<WalEntry>)> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another process uses {}", path.display()),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let complete = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let entries = bytes[..complete]
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_slice(line)
                    .with_context(|| format!("{}, line {}", path.display(), index + 1))
            })
            .collect::<anyhow::Result<_>>()?;
        let wal = Self { path: path.to_owned(), file, length: u64::try_from(complete)? };
        if complete < bytes.len() {
            wal.truncate_to_length()
                .with_context(|| format!("cannot truncate {}", path.display()))?;
        }
        Ok((wal, entries))
    }

    /// Appends one entry completely, or not at all.
    pub(crate) fn append(&mut self, entry: &WalEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        match &written {
            Ok(()) => self.length += line.len() as u64,
            // After a partial write (full disk) the next line must start clean.
            Err(_) => self.truncate_to_length()?,
        }
        written
    }

    fn truncate_to_length(&self) -> io::Result<()> {
        self.file.set_len(self.length)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    fn deleted(id: &str) -> WalEntry {
        WalEntry::Deleted { id: id.to_owned() }
    }

    #[test]
    fn wal_is_read_in_order_after_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        let (mut wal, entries) = Wal::open(&path).unwrap();
        assert_eq!(entries, []);
        wal.append(&deleted("one")).unwrap();
        wal.append(&deleted("two")).unwrap();
        drop(wal);
        assert_eq!(Wal::open(&path).unwrap().1, [deleted("one"), deleted("two")]);
    }

    #[test]
    fn wal_incomplete_last_line_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        let (mut wal, _) = Wal::open(&path).unwrap();
        wal.append(&deleted("first")).unwrap();
        drop(wal);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(br#"{"deleted":{"id":"to"#);
        fs::write(&path, &bytes).unwrap();

        let (mut wal, entries) = Wal::open(&path).unwrap();
        assert_eq!(entries, [deleted("first")]);
        wal.append(&deleted("next")).unwrap();
        drop(wal);
        assert_eq!(Wal::open(&path).unwrap().1, [deleted("first"), deleted("next")]);
    }

    #[test]
    fn wal_foreign_line_is_rejected_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        fs::write(&path, "{\"deleted\":{\"id\":\"a\"}}\nhello\n").unwrap();
        let error = format!("{:#}", Wal::open(&path).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn wal_second_process_cannot_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wal");
        let (_held, _) = Wal::open(&path).unwrap();
        let error = format!("{:#}", Wal::open(&path).unwrap_err());
        assert!(error.contains("another process"), "{error}");
    }
}
