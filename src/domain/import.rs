//! Imports: files of invoices, each line of which is an event of its own.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::SourceName;

/// Where in which file an event stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImportItem {
    /// The import.
    pub import_id: Uuid,
    /// The line of the file on which it begins, counted from 1. In a JSON
    /// array as well: an editor shows lines, not elements.
    pub line: u32,
}

/// How far an import's file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportState {
    /// It still comes in; or its receiver died.
    Receiving,
    /// All of it was read.
    Received,
    /// It broke off, or cannot be read further. What was read stands.
    BrokenOff,
}

impl ImportState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Receiving, Self::Received, Self::BrokenOff];

    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiving => "receiving",
            Self::Received => "received",
            Self::BrokenOff => "broken_off",
        }
    }
}

/// What the receiver tells of an import, on its way to the worker. A later
/// note of an import tells all that an earlier one did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportNote {
    /// Names the import, also on the answer to the call that brought it.
    pub import_id: Uuid,
    /// Where it came in.
    pub source: SourceName,
    /// What the sender calls the file, if it has a name.
    pub name: Option<String>,
    /// How far it was read.
    pub state: ImportState,
    /// How many items were read, the rejected among them.
    pub items: u64,
    /// Why it broke off.
    pub error: Option<String>,
    /// When the call began.
    #[serde(with = "time::serde::rfc3339")]
    pub begun_at: OffsetDateTime,
    /// When the last of it was read.
    #[serde(with = "time::serde::rfc3339::option")]
    pub read_at: Option<OffsetDateTime>,
}
