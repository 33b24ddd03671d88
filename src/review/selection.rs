//! What an action is applied to: never more than the operator has seen.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{
    dead_letters::{DeadLetterFilter, DeadLetterSummary},
    deliveries::{Delivery, DeliveryFilter},
    quarantine::{QuarantineFilter, QuarantineSummary},
};

/// A filter of dead letters, deliveries or quarantined requests.
pub trait Filter {
    /// Whether a condition other than the state is given.
    fn has_condition(&self) -> bool;
    /// The ids that the operator named.
    fn ids(&self) -> &[Uuid];
}

impl Filter for DeadLetterFilter {
    fn has_condition(&self) -> bool {
        let Self { ids, state: _, source, reason, topic, since, until, number, destination } = self;
        let texts = [source, reason, topic, number, destination];
        !ids.is_empty() || texts.iter().any(|text| text.is_some()) || since.or(*until).is_some()
    }

    fn ids(&self) -> &[Uuid] {
        &self.ids
    }
}

impl Filter for DeliveryFilter {
    fn has_condition(&self) -> bool {
        let Self { ids, state: _, destination, source, reason, number } = self;
        let texts = [destination, source, reason, number];
        !ids.is_empty() || texts.iter().any(|text| text.is_some())
    }

    fn ids(&self) -> &[Uuid] {
        &self.ids
    }
}

impl Filter for QuarantineFilter {
    fn has_condition(&self) -> bool {
        let Self { ids, source } = self;
        !ids.is_empty() || source.is_some()
    }

    fn ids(&self) -> &[Uuid] {
        &self.ids
    }
}

/// A filter that an action may use: it has a condition, or the operator wants all on purpose.
#[derive(Clone, Debug)]
pub struct Selection<F>(F);

/// Neither a condition nor all: an empty filter never means everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing is selected: name ids, give a condition, or pass --all")]
pub struct EmptySelection;

impl<F: Filter> Selection<F> {
    /// Accepts a filter with a condition, or any filter if `all` is set.
    ///
    /// # Errors
    /// [`EmptySelection`].
    pub fn new(filter: F, all: bool) -> Result<Self, EmptySelection> {
        if all || filter.has_condition() { Ok(Self(filter)) } else { Err(EmptySelection) }
    }

    /// The filter.
    pub fn filter(&self) -> &F {
        &self.0
    }
}

/// The rows that a selection found. An action is applied to these rows only, not to rows that
/// appear later.
#[derive(Clone, Debug)]
pub struct Selected<F, R> {
    filter: F,
    rows: Vec<R>,
}

impl<F, R> Selected<F, R> {
    pub(super) fn new(selection: Selection<F>, rows: Vec<R>) -> Self {
        Self { filter: selection.0, rows }
    }

    /// The filter that selected the rows.
    pub fn filter(&self) -> &F {
        &self.filter
    }

    /// The rows.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// A row that a summary counts.
pub trait Summarize {
    /// The id that operators use.
    fn id(&self) -> Uuid;
    /// When it failed or was received.
    fn time(&self) -> OffsetDateTime;
    /// Why it failed: a code, or the error if there is no code.
    fn reason(&self) -> &str;
}

impl Summarize for DeadLetterSummary {
    fn id(&self) -> Uuid {
        self.dead_letter_id
    }

    fn time(&self) -> OffsetDateTime {
        self.first_failed_at
    }

    fn reason(&self) -> &str {
        &self.reason
    }
}

impl Summarize for Delivery {
    fn id(&self) -> Uuid {
        self.delivery_id
    }

    fn time(&self) -> OffsetDateTime {
        self.created_at
    }

    fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or(&self.state)
    }
}

impl Summarize for QuarantineSummary {
    fn id(&self) -> Uuid {
        self.receipt_id
    }

    fn time(&self) -> OffsetDateTime {
        self.received_at
    }

    fn reason(&self) -> &str {
        &self.error
    }
}

/// What an operator confirms before an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SelectionSummary {
    /// The number of rows.
    pub count: usize,
    /// The earliest time of a row.
    #[serde(with = "time::serde::rfc3339::option")]
    pub oldest: Option<OffsetDateTime>,
    /// The latest time of a row.
    #[serde(with = "time::serde::rfc3339::option")]
    pub newest: Option<OffsetDateTime>,
    /// The reasons with their numbers of rows, the most frequent first.
    pub reasons: Vec<(String, usize)>,
}

impl<F: Filter, R: Summarize> Selected<F, R> {
    /// The ids that the operator named and that the selection did not find.
    pub fn missing_ids(&self) -> Vec<Uuid> {
        let is_missing = |id: &Uuid| !self.rows.iter().any(|row| row.id() == *id);
        self.filter.ids().iter().copied().filter(is_missing).collect()
    }

    /// Counts the rows by reason.
    pub fn summary(&self) -> SelectionSummary {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(row.reason()).or_default() += 1;
        }
        let mut reasons: Vec<(String, usize)> =
            counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect();
        // A stable sort: equally frequent reasons stay in alphabetical order.
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        SelectionSummary {
            count: self.rows.len(),
            oldest: self.rows.iter().map(Summarize::time).min(),
            newest: self.rows.iter().map(Summarize::time).max(),
            reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    fn request(minutes: i64, error: &str) -> QuarantineSummary {
        QuarantineSummary {
            receipt_id: Uuid::nil(),
            source: "shop".to_owned(),
            received_at: datetime!(2026-11-01 12:00 UTC) + Duration::minutes(minutes),
            error: error.to_owned(),
            payload_bytes: 0,
        }
    }

    #[test]
    fn selection_without_condition_needs_all() {
        let open = DeadLetterFilter { state: Some("open".to_owned()), ..Default::default() };
        assert_eq!(Selection::new(open.clone(), false).unwrap_err(), EmptySelection);
        assert!(Selection::new(open, true).is_ok());
        assert!(Selection::new(DeliveryFilter::default(), false).is_err());
        assert!(Selection::new(QuarantineFilter::default(), false).is_err());
        let reason = Some("invalid_value".to_owned());
        let dead_letters = DeadLetterFilter { reason: reason.clone(), ..Default::default() };
        assert!(Selection::new(dead_letters, false).is_ok());
        let since = Some(datetime!(2026-11-01 12:00 UTC));
        let dead_letters = DeadLetterFilter { since, ..Default::default() };
        assert!(Selection::new(dead_letters, false).is_ok());
        assert!(Selection::new(DeliveryFilter { reason, ..Default::default() }, false).is_ok());
        let ids = vec![Uuid::nil()];
        assert!(Selection::new(QuarantineFilter { ids, source: None }, false).is_ok());
    }

    #[test]
    fn selected_reports_missing_ids() {
        let (found, missing) = (Uuid::nil(), Uuid::max());
        let filter = QuarantineFilter { ids: vec![found, missing], source: None };
        let selection = Selection::new(filter, false).unwrap();
        let selected = Selected::new(selection, vec![request(1, "wrong")]);
        assert_eq!(selected.missing_ids(), [missing]);
    }

    #[test]
    fn summary_counts_by_reason() {
        let rows = vec![request(5, "stale"), request(1, "wrong"), request(9, "wrong")];
        let selection = Selection::new(QuarantineFilter::default(), true).unwrap();
        let summary = Selected::new(selection, rows).summary();
        assert_eq!(summary.count, 3);
        assert_eq!(summary.oldest, Some(datetime!(2026-11-01 12:01 UTC)));
        assert_eq!(summary.newest, Some(datetime!(2026-11-01 12:09 UTC)));
        assert_eq!(summary.reasons, [("wrong".to_owned(), 2), ("stale".to_owned(), 1)]);
    }

    #[test]
    fn summary_of_no_rows_has_no_times() {
        let selection = Selection::new(QuarantineFilter::default(), true).unwrap();
        let summary = Selected::new(selection, Vec::<QuarantineSummary>::new()).summary();
        assert_eq!((summary.count, summary.oldest, summary.newest), (0, None, None));
        assert!(summary.reasons.is_empty());
    }
}
