//! What came of an import, and what that means for who waits for the exit code.

#[cfg(test)]
mod tests;

use serde::Serialize;
use uuid::Uuid;

use super::{
    super::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY},
    api::{AcceptedImport, ImportStatus, ImportTiming, ItemOutcome, OutcomeCounts, RejectedField},
};
use crate::domain::ImportState;

/// What came of an import, or would come of it; `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ImportReport {
    /// Why it ends here.
    pub(super) ended: EndReason,
    /// Where the file was sent to.
    pub(super) source: String,
    /// What the file is called.
    pub(super) name: Option<String>,
    /// Names the import for ever; none if nothing was sent.
    pub(super) import_id: Option<Uuid>,
    /// How far the file was read.
    pub(super) state: ImportState,
    /// Why it broke off.
    pub(super) error: Option<String>,
    /// How many items were read, the rejected among them.
    pub(super) total: u64,
    /// How many have no outcome yet, or none that could be seen.
    pub(super) waiting: u64,
    /// How many were refused before they became messages.
    pub(super) rejected: u64,
    /// How many of all these are only counted: no list has them any more.
    pub(super) past_retention: u64,
    /// What became of the others; absent if nobody could be asked.
    #[serde(flatten)]
    pub(super) counts: Option<OutcomeCounts>,
    #[serde(flatten)]
    pub(super) timing: ImportTiming,
    /// The first rejected lines.
    pub(super) rejections: Vec<ItemProblem>,
    /// The first lines that are dead letters.
    pub(super) dead_letters: Vec<ItemProblem>,
    /// Why more is not known.
    pub(super) status_error: Option<String>,
}

/// Why the report ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndReason {
    /// Every item has its outcome.
    Completed,
    /// The time to wait is over.
    TimedOut,
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// Nobody wanted to wait.
    NotWaited,
    /// Nothing was sent: this is what would have come of it.
    Checked,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ItemProblem {
    pub(super) line: u32,
    /// The number that people know the invoice by, if it can be told.
    pub(super) number: Option<String>,
    pub(super) error: String,
}

impl From<ItemOutcome> for ItemProblem {
    fn from(line: ItemOutcome) -> Self {
        let ItemOutcome { line, business_key, error, .. } = line;
        let error = error.unwrap_or_else(|| "nothing is known of why".to_owned());
        Self { line, number: business_key, error }
    }
}

impl ImportReport {
    /// From the answer to the file, and what the database knew last.
    pub(super) fn from_accepted(
        source: String,
        name: Option<String>,
        accepted: &AcceptedImport,
        known: Option<ImportStatus>,
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
            status_error: trouble,
        };
        match known {
            None => accepted_only,
            Some(known) => {
                // The database may not have heard of all rejected lines yet,
                // nor of the file's end.
                let counted = known.counts.sum() + accepted.rejected;
                Self {
                    waiting: accepted.items.saturating_sub(counted),
                    counts: Some(known.counts),
                    timing: known.timing,
                    ..accepted_only
                }
            }
        }
    }

    /// From what the database knows, at some later time.
    pub(super) fn from_status(known: ImportStatus) -> Self {
        let is_settled = known.is_complete();
        Self {
            ended: if is_settled { EndReason::Completed } else { EndReason::NotWaited },
            source: known.source,
            name: known.name,
            import_id: Some(known.import_id),
            state: known.state,
            error: known.error,
            total: known.total,
            waiting: known.waiting,
            rejected: known.rejected,
            past_retention: known.past_retention,
            counts: Some(known.counts),
            timing: known.timing,
            rejections: Vec::new(),
            dead_letters: Vec::new(),
            status_error: None,
        }
    }

    /// How many are dead letters, as far as that is known.
    pub(super) fn dead(&self) -> u64 {
        self.counts.map_or(0, |tally| tally.dead)
    }

    /// The exit code. An empty file is done; a file of which nothing came
    /// through has failed. What still waits counts only for who waited.
    pub(super) fn exit_code(&self) -> u8 {
        let bad = self.rejected + self.dead();
        let is_broken = self.state == ImportState::Interrupted;
        let is_open = match self.ended {
            EndReason::Completed | EndReason::Checked => false,
            // Durable is all that was asked for, unless it was asked later.
            EndReason::NotWaited => self.counts.is_some(),
            EndReason::TimedOut | EndReason::Interrupted => true,
        };
        if bad >= self.total && (bad > 0 || is_broken) {
            EXIT_FAILED
        } else if bad > 0 || is_broken || is_open {
            EXIT_PARTLY
        } else {
            EXIT_DONE
        }
    }
}

impl ImportStatus {
    /// Whether nothing will change any more.
    pub(super) fn is_complete(&self) -> bool {
        self.state != ImportState::Receiving && self.waiting == 0
    }
}

/// The fields at fault, put together item by item. Several items may begin on
/// one line; a field that was named already is one of the next item.
fn group_rejected_fields(rejections: &[RejectedField]) -> Vec<ItemProblem> {
    let mut problems: Vec<ItemProblem> = Vec::new();
    let mut fields: Vec<&str> = Vec::new();
    for RejectedField { line, field, message } in rejections {
        let told = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        match problems.last_mut().filter(|last| last.line == *line) {
            Some(last) if !fields.contains(&field.as_str()) => {
                last.error.push_str("; ");
                last.error.push_str(&told);
            }
            _ => {
                fields.clear();
                problems.push(ItemProblem { line: *line, number: None, error: told });
            }
        }
        fields.push(field);
    }
    problems
}
