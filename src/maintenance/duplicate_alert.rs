//! Who sends the same things again more often than is ordinary.

use std::collections::BTreeSet;

use tracing::{info, warn};

use crate::observability::metrics::{Metrics, RecentOutcomes};

/// Fewer messages say nothing: one redelivery among ten is no trend.
const MIN_SAMPLE: u32 = 100;

/// Whether so many duplicates among so many are more than so many percent.
/// What is counted stays a whole number, so that exactly as many are not more.
pub(crate) fn exceeds_percent(duplicates: i64, among: i64, percent: u8) -> bool {
    duplicates.saturating_mul(100) > among.saturating_mul(i64::from(percent))
}

/// Watches every source's share of duplicates.
#[derive(Debug)]
pub(crate) struct DuplicateAlert {
    percent: u8,
    /// The sources that are above, and were warned of.
    alerting: BTreeSet<String>,
}

/// What there is to say of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlertChange {
    /// It is above now, and was not before.
    Raised,
    /// It is not above any more.
    Cleared,
}

impl DuplicateAlert {
    /// Warns above so many percent.
    pub(crate) fn new(percent: u8) -> Self {
        Self { percent, alerting: BTreeSet::new() }
    }

    /// Warns of each source once, until it fell below again.
    pub(crate) fn check(&mut self, metrics: &Metrics) {
        for (source, seen) in metrics.recent_outcomes() {
            let RecentOutcomes { messages, duplicates } = seen;
            match self.update(&source, seen) {
                Some(AlertChange::Raised) => warn!(
                    source,
                    duplicates,
                    messages,
                    warning_percent = self.percent,
                    "many duplicates lately: does the sender see our answers?"
                ),
                Some(AlertChange::Cleared) => {
                    info!(source, duplicates, messages, "duplicates are back to ordinary");
                }
                None => {}
            }
        }
    }

    fn update(&mut self, source: &str, seen: RecentOutcomes) -> Option<AlertChange> {
        let exceeds = exceeds_percent(seen.duplicates.into(), seen.messages.into(), self.percent);
        if exceeds && seen.messages >= MIN_SAMPLE {
            self.alerting.insert(source.to_owned()).then_some(AlertChange::Raised)
        } else if exceeds {
            None
        } else {
            self.alerting.remove(source).then_some(AlertChange::Cleared)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_warned_of_once_until_it_fell_below() {
        let mut watch = DuplicateAlert::new(5);
        let mut turn =
            |duplicates, messages| watch.update("shop", RecentOutcomes { messages, duplicates });
        assert_eq!(turn(50, 99), None, "too few to tell");
        assert_eq!(turn(5, 100), None, "as many are not more");
        assert_eq!(turn(6, 100), Some(AlertChange::Raised));
        assert_eq!(turn(60, 200), None, "it is known");
        assert_eq!(turn(10, 200), Some(AlertChange::Cleared));
        assert_eq!(turn(10, 300), None);
        assert_eq!(turn(16, 300), Some(AlertChange::Raised));
        assert_eq!(
            watch.update("other", RecentOutcomes { messages: 100, duplicates: 100 }),
            Some(AlertChange::Raised)
        );
    }

    #[test]
    fn more_is_more_and_nothing_is_not() {
        assert!(!exceeds_percent(0, 0, 5));
        assert!(!exceeds_percent(1_000, 20_000, 5));
        assert!(exceeds_percent(1_001, 20_000, 5));
        assert!(!exceeds_percent(7, 7, 100));
    }
}
