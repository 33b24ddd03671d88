//! The journal: one JSON object a line, written before the answer.
//!
//! A line that is written is safe from `kill -9`, since the kernel has it. A
//! power cut is nothing that a stand-in must survive, so nothing is synced.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::books::Entry;

/// The open file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    /// How long the file is with all its whole lines.
    length: u64,
}

impl Journal {
    /// Opens the journal, and gives what stands in it, in order.
    ///
    /// A last line without its end was never answered for, and goes.
    ///
    /// # Errors
    /// A file that cannot be read or that another process has; a whole line
    /// that is none of ours, with its number.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Self, Vec<Entry>)> {
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
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let entries = bytes[..whole]
            .split_inclusive(|byte| *byte == b'\n')
            .enumerate()
            .map(|(index, line)| {
                serde_json::from_slice(line)
                    .with_context(|| format!("{}, line {}", path.display(), index + 1))
            })
            .collect::<anyhow::Result<_>>()?;
        let journal = Self { path: path.to_owned(), file, length: u64::try_from(whole)? };
        if whole < bytes.len() {
            journal.cut().with_context(|| format!("cannot mend {}", path.display()))?;
        }
        Ok((journal, entries))
    }

    /// Appends one entry; all of it, or nothing that counts.
    pub(crate) fn append(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        match &written {
            Ok(()) => self.length += line.len() as u64,
            // What a full disk took of it must not stand before the next line.
            Err(_) => self.cut()?,
        }
        written
    }

    /// Brings the file back to its whole lines.
    fn cut(&self) -> io::Result<()> {
        self.file.set_len(self.length)
    }

    /// The file, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    fn deleted(id: &str) -> Entry {
        Entry::Deleted { id: id.to_owned() }
    }

    #[test]
    fn what_was_appended_is_read_again_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, []);
        journal.append(&deleted("one")).unwrap();
        journal.append(&deleted("two")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1, [deleted("one"), deleted("two")]);
    }

    #[test]
    fn a_torn_last_line_goes_and_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.append(&deleted("kept")).unwrap();
        drop(journal);
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(br#"{"deleted":{"id":"to"#);
        fs::write(&path, &bytes).unwrap();

        let (mut journal, entries) = Journal::open(&path).unwrap();
        assert_eq!(entries, [deleted("kept")]);
        journal.append(&deleted("next")).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1, [deleted("kept"), deleted("next")]);
    }

    #[test]
    fn a_whole_line_of_somebody_else_is_refused_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        fs::write(&path, "{\"deleted\":{\"id\":\"a\"}}\nhello\n").unwrap();
        let error = format!("{:#}", Journal::open(&path).unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn two_cannot_have_one_journal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (_held, _) = Journal::open(&path).unwrap();
        let error = format!("{:#}", Journal::open(&path).unwrap_err());
        assert!(error.contains("another process"), "{error}");
    }
}
