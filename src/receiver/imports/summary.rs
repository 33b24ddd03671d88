//! What the sender of a file is told: how many items are in, and which lines
//! are not, and why.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    domain::{ImportState, PermanentFailure, SourceName},
    receiver::response,
};

/// More mistakes are counted, and stand in the call log.
const MAX_REPORTED: usize = 1000;
/// A message of more bytes is cut.
const MAX_MESSAGE_BYTES: usize = 500;

/// What was counted of an import.
#[derive(Debug, Default)]
pub(super) struct ImportCounts {
    /// Items that are durable in their source's queue.
    pub(super) published: u64,
    /// Lines whose rejection is durable.
    pub(super) rejected: u64,
    rejections: Vec<RejectedField>,
    omitted: u64,
}

/// What is wrong with a line.
#[derive(Debug, Serialize)]
struct RejectedField {
    line: u32,
    /// As the sender names it; empty if it is the line as a whole.
    field: String,
    message: String,
}

impl ImportCounts {
    /// All that are durable.
    pub(super) fn items(&self) -> u64 {
        self.published.saturating_add(self.rejected)
    }

    /// Keeps what is wrong with a line, if not too much is known already.
    pub(super) fn add_rejections(&mut self, line: u32, failures: &[PermanentFailure]) {
        for PermanentFailure { field, detail, .. } in failures {
            if self.rejections.len() == MAX_REPORTED {
                self.omitted += 1;
                continue;
            }
            self.rejections.push(RejectedField {
                line,
                field: truncate(field).to_owned(),
                message: truncate(detail).to_owned(),
            });
        }
    }
}

fn truncate(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

/// The answer to a file that was read, as far as it could be.
#[derive(Serialize)]
pub(super) struct ImportSummary<'a> {
    import_id: Uuid,
    source: &'a SourceName,
    state: ImportState,
    items: u64,
    published: u64,
    rejected: u64,
    rejections: &'a [RejectedField],
    rejections_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    status: String,
}

impl<'a> ImportSummary<'a> {
    /// Of a file that was read to its end, or to this error.
    pub(super) fn new(
        import_id: Uuid,
        source: &'a SourceName,
        tally: &'a ImportCounts,
        error: Option<String>,
    ) -> Self {
        Self {
            import_id,
            source,
            state: if error.is_some() { ImportState::Interrupted } else { ImportState::Received },
            items: tally.items(),
            published: tally.published,
            rejected: tally.rejected,
            rejections: &tally.rejections,
            rejections_omitted: tally.omitted,
            error,
            status: format!("/imports/{import_id}"),
        }
    }

    /// 202: everything that it tells is durable, and not yet applied.
    pub(super) fn response(&self) -> Response<Body> {
        response::json_response(StatusCode::ACCEPTED, self.import_id, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_line_is_told_and_too_many_are_counted() {
        let mut tally = ImportCounts::default();
        let failures = [
            PermanentFailure::missing("amount"),
            PermanentFailure::invalid("due_date", "x".repeat(999)),
        ];
        for line in 1..=501 {
            tally.add_rejections(line, &failures);
        }
        let source = "vendors".parse().unwrap();
        let report = ImportSummary::new(Uuid::nil(), &source, &tally, None);
        let told = serde_json::to_value(&report).unwrap();
        assert_eq!(told["rejections"].as_array().unwrap().len(), 1000);
        assert_eq!(told["rejections_omitted"], 2);
        assert_eq!(
            told["rejections"][0],
            serde_json::json!({"line": 1, "field": "amount", "message": "is missing or null"})
        );
        assert_eq!(told["rejections"][1]["message"].as_str().unwrap().len(), 500);
        assert_eq!((&told["state"], told.get("error")), (&"received".into(), None));
        let broken =
            ImportSummary::new(Uuid::nil(), &source, &tally, Some("line 7: why".to_owned()));
        let told = serde_json::to_value(&broken).unwrap();
        assert_eq!(
            (&told["state"], &told["error"]),
            (&"interrupted".into(), &"line 7: why".into())
        );
    }
}
