//! What became of a message: one word, the same in code, SQL, metrics and CLI.

use std::fmt;

use serde::Serialize;

/// What became of one received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It changed the books.
    Applied,
    /// Its key had been settled before; it changed nothing.
    Duplicate,
    /// A newer state stands already; it changed nothing.
    Stale,
    /// Nobody maps its topic (a ping, a test, a topic without a table).
    Ignored,
    /// It failed and waits in a retry queue for its next attempt.
    Retried,
    /// It is a dead letter and waits for a person.
    Dead,
    /// It was refused with an answer that says why; it changed nothing.
    Rejected,
}

impl Outcome {
    /// Every outcome, in the order in which people are shown them.
    pub const ALL: [Self; 7] = [
        Self::Applied,
        Self::Duplicate,
        Self::Stale,
        Self::Ignored,
        Self::Retried,
        Self::Dead,
        Self::Rejected,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Ignored => "ignored",
            Self::Retried => "retried",
            Self::Dead => "dead",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an event that was applied did to its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteKind {
    /// It is new.
    Created,
    /// It stood before.
    Updated,
}

impl WriteKind {
    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
        }
    }
}
