//! The receiver's responses about imports, as far as the command uses them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ImportState;

/// The response to an upload.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AcceptedImport {
    pub(super) import_id: Uuid,
    pub(super) state: ImportState,
    /// Why the upload was interrupted.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// Items that were read, including rejected ones.
    pub(super) items: u64,
    /// Items that were published.
    pub(super) published: u64,
    pub(super) rejected: u64,
    /// The invalid fields of the first rejected lines.
    #[serde(default)]
    pub(super) rejections: Vec<RejectedField>,
}

/// An invalid field of a line.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RejectedField {
    pub(super) line: u32,
    /// Empty if the whole line is invalid.
    #[serde(default)]
    pub(super) field: String,
    pub(super) message: String,
}

/// The status of an import in the database.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ImportStatus {
    pub(super) import_id: Uuid,
    pub(super) source: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    pub(super) state: ImportState,
    #[serde(default)]
    pub(super) error: Option<String>,
    /// Items that were read, including rejected ones.
    pub(super) total: u64,
    /// Items without a final outcome.
    pub(super) waiting: u64,
    pub(super) rejected: u64,
    /// Items whose receipts are past retention: they are only counted.
    #[serde(default)]
    pub(super) past_retention: u64,
    #[serde(flatten)]
    pub(super) counts: OutcomeCounts,
    #[serde(flatten)]
    pub(super) timing: ImportTiming,
}

/// The outcomes of published items.
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
    /// Items with a final outcome.
    pub(super) fn sum(self) -> u64 {
        let Self { created, updated, duplicate, stale, ignored, dead } = self;
        created + updated + duplicate + stale + ignored + dead
    }
}

/// How long the import took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(super) struct ImportTiming {
    /// From the start of the upload to the last outcome so far.
    pub(super) elapsed_ms: Option<f64>,
    /// Transactions of the worker.
    pub(super) batches: Option<u64>,
    /// Average time per transaction.
    pub(super) average_batch_ms: Option<f64>,
}

/// A page of items.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ItemPage {
    pub(super) items: Vec<ItemOutcome>,
    /// The address of the next page, if there is one.
    #[serde(default)]
    pub(super) next: Option<String>,
}

/// The outcome of one item.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ItemOutcome {
    pub(super) line: u32,
    pub(super) outcome: String,
    #[serde(default)]
    pub(super) write_kind: Option<String>,
    /// The invoice number.
    #[serde(rename(serialize = "number"), default)]
    pub(super) business_key: Option<String>,
    #[serde(default)]
    pub(super) error: Option<String>,
    /// The receipt of the item's message; none if nothing was sent.
    #[serde(default)]
    pub(super) receipt_id: Option<Uuid>,
    #[serde(default)]
    pub(super) attempts: u32,
}
