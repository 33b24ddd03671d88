//! Logs a warning when a source sends more duplicates than usual.

use std::{collections::BTreeSet, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::exceeds_percent;
use crate::observability::metrics::{Metrics, RecentOutcomes};

/// How often the recent outcomes are checked.
const INTERVAL: Duration = Duration::from_secs(5);
/// Fewer messages are no trend: one redelivery in ten is usual.
const MIN_SAMPLE: u32 = 100;

/// Checks every source until `stop` is cancelled, and warns above
/// `warning_percent` duplicates.
pub async fn run(metrics: Metrics, warning_percent: u8, stop: CancellationToken) {
    let mut alert = DuplicateAlert::new(warning_percent);
    let job = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            alert.check(&metrics);
        }
    };
    tokio::select! {
        () = job => {}
        () = stop.cancelled() => {}
    }
}

/// The share of duplicates of every source.
#[derive(Debug)]
struct DuplicateAlert {
    percent: u8,
    /// The sources above the limit, which have been warned about.
    alerting: BTreeSet<String>,
}

/// A change of a source's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AlertChange {
    /// The source is above the limit now and was not before.
    Raised,
    /// The source is not above the limit any more.
    Cleared,
}

impl DuplicateAlert {
    fn new(percent: u8) -> Self {
        Self { percent, alerting: BTreeSet::new() }
    }

    /// Logs each source that crossed the limit.
    fn check(&mut self, metrics: &Metrics) {
        for (source, recent) in metrics.recent_outcomes() {
            let RecentOutcomes { messages, duplicates } = recent;
            match self.update(&source, recent) {
                Some(AlertChange::Raised) => warn!(
                    source,
                    duplicates,
                    messages,
                    warning_percent = self.percent,
                    "the source sends many duplicates; check that it receives our responses"
                ),
                Some(AlertChange::Cleared) => {
                    info!(source, duplicates, messages, "the share of duplicates is normal again");
                }
                None => {}
            }
        }
    }

    fn update(&mut self, source: &str, recent: RecentOutcomes) -> Option<AlertChange> {
        let RecentOutcomes { messages, duplicates } = recent;
        let exceeds = exceeds_percent(duplicates.into(), messages.into(), self.percent);
        if !exceeds {
            return self.alerting.remove(source).then_some(AlertChange::Cleared);
        }
        if messages < MIN_SAMPLE {
            return None;
        }
        self.alerting.insert(source.to_owned()).then_some(AlertChange::Raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_alert_above_limit_is_raised_once_until_cleared() {
        let mut alert = DuplicateAlert::new(5);
        let mut update =
            |duplicates, messages| alert.update("shop", RecentOutcomes { messages, duplicates });
        assert_eq!(update(50, 99), None, "the sample is too small");
        assert_eq!(update(5, 100), None, "exactly the limit");
        assert_eq!(update(6, 100), Some(AlertChange::Raised));
        assert_eq!(update(60, 200), None, "raised already");
        assert_eq!(update(10, 200), Some(AlertChange::Cleared));
        assert_eq!(update(10, 300), None);
        assert_eq!(update(16, 300), Some(AlertChange::Raised));
        let other = alert.update("other", RecentOutcomes { messages: 100, duplicates: 100 });
        assert_eq!(other, Some(AlertChange::Raised), "each source by itself");
    }
}
