//! The response to an uploaded file: how many items are accepted, and what is wrong with the rest.

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    domain::{ImportState, PermanentFailure, SourceName},
    receiver::response::json_response,
};

/// The most rejected fields in a response. The call log has all of them.
const MAX_REPORTED: usize = 1000;
/// Longer messages are truncated, in bytes.
const MAX_MESSAGE_BYTES: usize = 500;

/// The items of an import so far.
#[derive(Debug, Default)]
pub(super) struct ImportCounts {
    /// Items whose publish is confirmed.
    pub(super) published: u64,
    /// Items whose rejection is recorded.
    pub(super) rejected: u64,
    rejections: Vec<RejectedField>,
    omitted: u64,
}

/// An invalid field of a line.
#[derive(Debug, Serialize)]
struct RejectedField {
    line: u32,
    /// The sender's name of the field; empty for the whole line.
    field: String,
    message: String,
}

impl ImportCounts {
    /// All durable items.
    pub(super) fn items(&self) -> u64 {
        self.published.saturating_add(self.rejected)
    }

    /// Adds the invalid fields of a line, up to [`MAX_REPORTED`] in total.
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

/// The body of the response.
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
    /// The summary of a file that was read to its end, or to this error.
    pub(super) fn new(
        import_id: Uuid,
        source: &'a SourceName,
        counts: &'a ImportCounts,
        error: Option<String>,
    ) -> Self {
        Self {
            import_id,
            source,
            state: if error.is_some() { ImportState::Interrupted } else { ImportState::Received },
            items: counts.items(),
            published: counts.published,
            rejected: counts.rejected,
            rejections: &counts.rejections,
            rejections_omitted: counts.omitted,
            error,
            status: format!("/imports/{import_id}"),
        }
    }

    /// 202: the items are durable and not yet applied.
    pub(super) fn response(&self) -> Response<Body> {
        json_response(StatusCode::ACCEPTED, self.import_id, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_summary_rejections_are_listed_up_to_maximum() {
        let mut counts = ImportCounts::default();
        let failures = [
            PermanentFailure::missing("amount"),
            PermanentFailure::invalid("due_date", "x".repeat(999)),
        ];
        for line in 1..=501 {
            counts.add_rejections(line, &failures);
        }
        let source = "vendors".parse().unwrap();
        let summary = ImportSummary::new(Uuid::nil(), &source, &counts, None);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["rejections"].as_array().unwrap().len(), 1000);
        assert_eq!(json["rejections_omitted"], 2);
        assert_eq!(
            json["rejections"][0],
            serde_json::json!({"line": 1, "field": "amount", "message": "is missing or null"})
        );
        assert_eq!(json["rejections"][1]["message"].as_str().unwrap().len(), 500);
        assert_eq!((&json["state"], json.get("error")), (&"received".into(), None));
        let error = Some("line 7: why".to_owned());
        let interrupted = ImportSummary::new(Uuid::nil(), &source, &counts, error);
        let json = serde_json::to_value(&interrupted).unwrap();
        assert_eq!(
            (&json["state"], &json["error"]),
            (&"interrupted".into(), &"line 7: why".into())
        );
    }
}
