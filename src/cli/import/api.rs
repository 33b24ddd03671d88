//! What the receiver answers about imports, as far as people are told of it.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ImportState;

/// The answer to a file that was read, as far as it could be.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AcceptedImport {
    pub(super) import_id: Uuid,
    pub(super) state: ImportState,
    /// Why it broke off.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// How many items were read, the rejected among them.
    pub(super) items: u64,
    /// How many of them are durable.
    pub(super) published: u64,
    pub(super) rejected: u64,
    /// Each field at fault of the first rejected lines.
    #[serde(default)]
    pub(super) rejections: Vec<RejectedField>,
}

/// A field that is wrong with a line.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RejectedField {
    pub(super) line: u32,
    /// Empty if it is the line as a whole.
    #[serde(default)]
    pub(super) field: String,
    pub(super) message: String,
}

/// How far an import has come, as the database knows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ImportStatus {
    pub(super) import_id: Uuid,
    pub(super) source: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    pub(super) state: ImportState,
    #[serde(default)]
    pub(super) error: Option<String>,
    /// How many items were read, the rejected among them.
    pub(super) total: u64,
    /// How many of them have no outcome yet.
    pub(super) waiting: u64,
    pub(super) rejected: u64,
    /// How many of all these are only counted: their receipts are gone.
    #[serde(default)]
    pub(super) past_retention: u64,
    #[serde(flatten)]
    pub(super) counts: OutcomeCounts,
    #[serde(flatten)]
    pub(super) timing: ImportTiming,
}

/// What became of items that were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct OutcomeCounts {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) duplicate: u64,
    pub(super) stale: u64,
    pub(super) ignored: u64,
    pub(super) dead: u64,
}

impl OutcomeCounts {
    /// All of them.
    pub(super) fn sum(self) -> u64 {
        let Self { created, updated, duplicate, stale, ignored, dead } = self;
        created + updated + duplicate + stale + ignored + dead
    }
}

/// How long it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct ImportTiming {
    /// From the call's begin to the last outcome so far.
    pub(super) elapsed_ms: Option<f64>,
    /// How many transactions it took.
    pub(super) batches: Option<u64>,
    /// How long each took.
    pub(super) average_batch_ms: Option<f64>,
}

/// Some lines of an import.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ItemPage {
    pub(super) items: Vec<ItemOutcome>,
    /// Where the lines behind these are, if there are any.
    #[serde(default)]
    pub(super) next: Option<String>,
}

/// What became of one line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ItemOutcome {
    pub(super) line: u32,
    pub(super) outcome: String,
    #[serde(default)]
    pub(super) write_kind: Option<String>,
    /// The number that people know the invoice by.
    #[serde(rename(serialize = "number"), default)]
    pub(super) business_key: Option<String>,
    #[serde(default)]
    pub(super) error: Option<String>,
    /// Names the line's message; none of a line that was not sent.
    #[serde(default)]
    pub(super) receipt_id: Option<Uuid>,
    #[serde(default)]
    pub(super) attempts: u32,
}
