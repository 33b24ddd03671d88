//! The report of an import, and its exit code.

#[cfg(test)]
mod tests;

use serde::Serialize;
use uuid::Uuid;

use super::{
    super::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY},
    api::{AcceptedImport, ImportStatus, ImportTiming, ItemOutcome, OutcomeCounts, RejectedField},
};
use crate::domain::ImportState;

/// The report of an import or a check, as `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ImportReport {
    /// Why the command stopped waiting.
    pub(super) ended: EndReason,
    pub(super) source: String,
    /// The file's name.
    pub(super) name: Option<String>,
    /// None if nothing was sent.
    pub(super) import_id: Option<Uuid>,
    pub(super) state: ImportState,
    /// Why the upload was interrupted.
    pub(super) error: Option<String>,
    /// Items that were read, including rejected ones.
    pub(super) total: u64,
    /// Items without a known final outcome.
    pub(super) waiting: u64,
    /// Items that were rejected and not published.
    pub(super) rejected: u64,
    /// Items whose receipts are past retention: they are only counted.
    pub(super) past_retention: u64,
    /// Outcomes of the published items; absent if unknown.
    #[serde(flatten)]
    pub(super) counts: Option<OutcomeCounts>,
    #[serde(flatten)]
    pub(super) timing: ImportTiming,
    /// The first rejected items.
    pub(super) rejections: Vec<ItemProblem>,
    /// The first items that are dead letters.
    pub(super) dead_letters: Vec<ItemProblem>,
    /// The first items whose result a check does not know: the database fails
    /// with an error that may pass. Empty for an import.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) retries: Vec<ItemProblem>,
    /// Why the report is incomplete.
    pub(super) status_error: Option<String>,
}

/// Why the command stopped waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndReason {
    /// Every item has a final outcome.
    Completed,
    /// `--timeout` has passed.
    TimedOut,
    /// Ctrl-C was pressed.
    Interrupted,
    /// `--no-wait` or `--status`.
    NotWaited,
    /// `--check`: nothing was sent.
    Checked,
}

/// An item that was rejected or dead-lettered, or would be retried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ItemProblem {
    pub(super) line: u32,
    /// The invoice number, if it could be read.
    pub(super) number: Option<String>,
    pub(super) error: String,
}

impl From<ItemOutcome> for ItemProblem {
    fn from(item: ItemOutcome) -> Self {
        let ItemOutcome { line, business_key, error, .. } = item;
        let error = error.unwrap_or_else(|| "the cause is unknown".to_owned());
        Self { line, number: business_key, error }
    }
}

impl ImportReport {
    /// A report from the response to the upload and the last known status.
    pub(super) fn from_accepted(
        source: String,
        name: Option<String>,
        accepted: &AcceptedImport,
        status: Option<ImportStatus>,
        ended: EndReason,
        trouble: Option<String>,
    ) -> Self {
        let accepted_only = Self {
            ended,
            source,
            name,
            import_id: Some(accepted.import_id),
            state: accepted.state,
            error: accepted.error.clone(),
            total: accepted.items,
            waiting: accepted.published,
            rejected: accepted.rejected,
            past_retention: 0,
            counts: None,
            timing: ImportTiming::default(),
            rejections: group_rejected_fields(&accepted.rejections),
            dead_letters: Vec::new(),
            retries: Vec::new(),
            status_error: trouble,
        };
        match status {
            None => accepted_only,
            Some(status) => {
                // The database may not have all rejected items or the end of
                // the file yet.
                let counted = status.counts.sum() + accepted.rejected;
                Self {
                    waiting: accepted.items.saturating_sub(counted),
                    counts: Some(status.counts),
                    timing: status.timing,
                    ..accepted_only
                }
            }
        }
    }

    /// A report from the status alone.
    pub(super) fn from_status(status: ImportStatus) -> Self {
        let is_complete = status.is_complete();
        Self {
            ended: if is_complete { EndReason::Completed } else { EndReason::NotWaited },
            source: status.source,
            name: status.name,
            import_id: Some(status.import_id),
            state: status.state,
            error: status.error,
            total: status.total,
            waiting: status.waiting,
            rejected: status.rejected,
            past_retention: status.past_retention,
            counts: Some(status.counts),
            timing: status.timing,
            rejections: Vec::new(),
            dead_letters: Vec::new(),
            retries: Vec::new(),
            status_error: None,
        }
    }

    /// The number of dead letters, 0 if unknown.
    pub(super) fn dead(&self) -> u64 {
        self.counts.map_or(0, |tally| tally.dead)
    }

    /// An empty file is done; a file without any applied item has failed.
    /// Waiting items matter only if the command waited for them.
    pub(super) fn exit_code(&self) -> u8 {
        let failed = self.rejected + self.dead();
        let is_interrupted = self.state == ImportState::Interrupted;
        let is_waiting = match self.ended {
            EndReason::Completed => false,
            EndReason::Checked => self.waiting > 0,
            // `--no-wait` only wants the items published; `--status` has counts.
            EndReason::NotWaited => self.counts.is_some(),
            EndReason::TimedOut | EndReason::Interrupted => true,
        };
        if failed >= self.total && (failed > 0 || is_interrupted) {
            EXIT_FAILED
        } else if failed > 0 || is_interrupted || is_waiting {
            EXIT_PARTLY
        } else {
            EXIT_DONE
        }
    }
}

impl ImportStatus {
    /// Whether every item has a final outcome.
    pub(super) fn is_complete(&self) -> bool {
        self.state != ImportState::Receiving && self.waiting == 0
    }
}

/// Groups invalid fields by item. Several items may begin on one line: a field
/// that repeats belongs to the next item.
fn group_rejected_fields(rejections: &[RejectedField]) -> Vec<ItemProblem> {
    let mut problems: Vec<ItemProblem> = Vec::new();
    let mut fields: Vec<&str> = Vec::new();
    for RejectedField { line, field, message } in rejections {
        let error = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        match problems.last_mut().filter(|last| last.line == *line) {
            Some(last) if !fields.contains(&field.as_str()) => {
                last.error.push_str("; ");
                last.error.push_str(&error);
            }
            _ => {
                fields.clear();
                problems.push(ItemProblem { line: *line, number: None, error });
            }
        }
        fields.push(field);
    }
    problems
}
