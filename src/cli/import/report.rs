//! What came of an import, and what that means for who waits for the exit code.

#[cfg(test)]
mod tests;

use serde::Serialize;
use uuid::Uuid;

use super::{
    super::{DONE, FAILED, PARTLY},
    answer::{Accepted, Item, Progress, Rejection, Tally, Times},
};
use crate::domain::ImportState;

/// What came of an import, or would come of it; `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// Why it ends here.
    pub(super) ended: End,
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
    pub(super) tally: Option<Tally>,
    #[serde(flatten)]
    pub(super) times: Times,
    /// The first rejected lines.
    pub(super) rejections: Vec<Problem>,
    /// The first lines that are dead letters.
    pub(super) dead_letters: Vec<Problem>,
    /// Why more is not known.
    pub(super) trouble: Option<String>,
}

/// Why the report ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    /// Every item has its outcome.
    Settled,
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
pub(super) struct Problem {
    pub(super) line: u32,
    /// The number that people know the invoice by, if it can be told.
    pub(super) number: Option<String>,
    pub(super) error: String,
}

impl From<Item> for Problem {
    fn from(line: Item) -> Self {
        let Item { line, business_key, error, .. } = line;
        let error = error.unwrap_or_else(|| "nothing is known of why".to_owned());
        Self { line, number: business_key, error }
    }
}

impl Report {
    /// From the answer to the file, and what the database knew last.
    pub(super) fn new(
        source: String,
        name: Option<String>,
        accepted: &Accepted,
        known: Option<Progress>,
        ended: End,
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
            tally: None,
            times: Times::default(),
            rejections: problems(&accepted.rejections),
            dead_letters: Vec::new(),
            trouble,
        };
        match known {
            None => accepted_only,
            Some(known) => {
                // The database may not have heard of all rejected lines yet,
                // nor of the file's end.
                let counted = known.tally.sum() + accepted.rejected;
                Self {
                    waiting: accepted.items.saturating_sub(counted),
                    tally: Some(known.tally),
                    times: known.times,
                    ..accepted_only
                }
            }
        }
    }

    /// From what the database knows, at some later time.
    pub(super) fn later(known: Progress) -> Self {
        let is_settled = known.is_settled();
        Self {
            ended: if is_settled { End::Settled } else { End::NotWaited },
            source: known.source,
            name: known.name,
            import_id: Some(known.import_id),
            state: known.state,
            error: known.error,
            total: known.total,
            waiting: known.waiting,
            rejected: known.rejected,
            past_retention: known.past_retention,
            tally: Some(known.tally),
            times: known.times,
            rejections: Vec::new(),
            dead_letters: Vec::new(),
            trouble: None,
        }
    }

    /// How many are dead letters, as far as that is known.
    pub(super) fn dead(&self) -> u64 {
        self.tally.map_or(0, |tally| tally.dead)
    }

    /// The exit code. An empty file is done; a file of which nothing came
    /// through has failed. What still waits counts only for who waited.
    pub(super) fn code(&self) -> u8 {
        let bad = self.rejected + self.dead();
        let is_broken = self.state == ImportState::BrokenOff;
        let is_open = match self.ended {
            End::Settled | End::Checked => false,
            // Durable is all that was asked for, unless it was asked later.
            End::NotWaited => self.tally.is_some(),
            End::TimedOut | End::Interrupted => true,
        };
        if bad >= self.total && (bad > 0 || is_broken) {
            FAILED
        } else if bad > 0 || is_broken || is_open {
            PARTLY
        } else {
            DONE
        }
    }
}

impl Progress {
    /// Whether nothing will change any more.
    pub(super) fn is_settled(&self) -> bool {
        self.state != ImportState::Receiving && self.waiting == 0
    }
}

/// The fields at fault, put together item by item. Several items may begin on
/// one line; a field that was named already is one of the next item.
fn problems(rejections: &[Rejection]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut fields: Vec<&str> = Vec::new();
    for Rejection { line, field, message } in rejections {
        let told = if field.is_empty() { message.clone() } else { format!("{field}: {message}") };
        match problems.last_mut().filter(|last| last.line == *line) {
            Some(last) if !fields.contains(&field.as_str()) => {
                last.error.push_str("; ");
                last.error.push_str(&told);
            }
            _ => {
                fields.clear();
                problems.push(Problem { line: *line, number: None, error: told });
            }
        }
        fields.push(field);
    }
    problems
}
