//! Who sends the same things again more often than is ordinary.

use std::collections::BTreeSet;

use tracing::{info, warn};

use crate::metrics::{Metrics, Recent};

/// Fewer messages say nothing: one redelivery among ten is no trend.
const FEWEST: u32 = 100;

/// Whether so many duplicates among so many are more than so many percent.
/// What is counted stays a whole number, so that exactly as many are not more.
pub(super) fn exceed(duplicates: i64, among: i64, percent: u8) -> bool {
    duplicates.saturating_mul(100) > among.saturating_mul(i64::from(percent))
}

/// Watches every source's share of duplicates.
#[derive(Debug)]
pub(super) struct Watch {
    percent: u8,
    /// The sources that are above, and were warned of.
    above: BTreeSet<String>,
}

/// What there is to say of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It is above now, and was not before.
    Above,
    /// It is not above any more.
    Below,
}

impl Watch {
    /// Warns above so many percent.
    pub(super) fn new(percent: u8) -> Self {
        Self { percent, above: BTreeSet::new() }
    }

    /// Warns of each source once, until it fell below again.
    pub(super) fn warn(&mut self, metrics: &Metrics) {
        for (source, seen) in metrics.recent() {
            let Recent { messages, duplicates } = seen;
            match self.turn(&source, seen) {
                Some(Turn::Above) => warn!(
                    source,
                    duplicates,
                    messages,
                    warning_percent = self.percent,
                    "many duplicates lately: does the sender see our answers?"
                ),
                Some(Turn::Below) => {
                    info!(source, duplicates, messages, "duplicates are back to ordinary");
                }
                None => {}
            }
        }
    }

    fn turn(&mut self, source: &str, seen: Recent) -> Option<Turn> {
        let exceeds = exceed(seen.duplicates.into(), seen.messages.into(), self.percent);
        if exceeds && seen.messages >= FEWEST {
            self.above.insert(source.to_owned()).then_some(Turn::Above)
        } else if exceeds {
            None
        } else {
            self.above.remove(source).then_some(Turn::Below)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_warned_of_once_until_it_fell_below() {
        let mut watch = Watch::new(5);
        let mut turn = |duplicates, messages| watch.turn("shop", Recent { messages, duplicates });
        assert_eq!(turn(50, 99), None, "too few to tell");
        assert_eq!(turn(5, 100), None, "as many are not more");
        assert_eq!(turn(6, 100), Some(Turn::Above));
        assert_eq!(turn(60, 200), None, "it is known");
        assert_eq!(turn(10, 200), Some(Turn::Below));
        assert_eq!(turn(10, 300), None);
        assert_eq!(turn(16, 300), Some(Turn::Above));
        assert_eq!(
            watch.turn("other", Recent { messages: 100, duplicates: 100 }),
            Some(Turn::Above)
        );
    }

    #[test]
    fn more_is_more_and_nothing_is_not() {
        assert!(!exceed(0, 0, 5));
        assert!(!exceed(1_000, 20_000, 5));
        assert!(exceed(1_001, 20_000, 5));
        assert!(!exceed(7, 7, 100));
    }
}
