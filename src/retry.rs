//! When a failed message is tried again, and when it is not.
//!
//! Pure: the schedule is computed once, from the settings alone.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};

/// What to do with a message whose attempt has failed for a reason that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Wait this long in the retry queue of that delay.
    Retry(Duration),
    /// Enough: a person must look at it.
    DeadLetter,
}

/// The delays between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    delays: Vec<Duration>,
}

impl RetrySchedule {
    /// `retries` delays that begin with `first` and grow by `multiplier` up
    /// to `longest`.
    pub fn exponential(first: Duration, multiplier: f64, longest: Duration, retries: u32) -> Self {
        let mut backoff = ExponentialBackoff {
            current_interval: first,
            initial_interval: first,
            multiplier,
            max_interval: longest,
            // The delay is a queue's, so every message of a tier waits alike.
            randomization_factor: 0.0,
            // Attempts are counted, not hours: its default gives up after 15 minutes.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        let delays = (0..retries).filter_map(|_| backoff.next_backoff()).collect();
        Self { delays }
    }

    /// The distinct delays, each of which needs a queue.
    pub fn tiers(&self) -> Vec<Duration> {
        let mut tiers = self.delays.clone();
        tiers.dedup();
        tiers
    }

    /// The longest delay, if there is any.
    pub fn max_delay(&self) -> Option<Duration> {
        self.delays.iter().max().copied()
    }

    /// How long all of them together are.
    pub fn total_delay(&self) -> Duration {
        self.delays.iter().sum()
    }

    /// What follows when the attempt after `failed` failed ones has failed too.
    pub fn decide(&self, failed: u32) -> RetryDecision {
        usize::try_from(failed)
            .ok()
            .and_then(|index| self.delays.get(index))
            .map_or(RetryDecision::DeadLetter, |delay| RetryDecision::Retry(*delay))
    }
}

/// Delays for reconnecting: from 0.2 s to 5 s, with jitter, without end, so
/// that many workers do not come back in the same moment.
pub fn reconnect_delays() -> impl FnMut() -> Duration {
    let longest = Duration::from_secs(5);
    let mut backoff = ExponentialBackoff {
        current_interval: Duration::from_millis(200),
        initial_interval: Duration::from_millis(200),
        multiplier: 1.7,
        max_interval: longest,
        randomization_factor: 0.3,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    };
    move || backoff.next_backoff().unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_this_table() {
        let seconds = Duration::from_secs;
        let schedule = RetrySchedule::exponential(seconds(1), 2.0, seconds(60), 4);
        let table = [
            (0, RetryDecision::Retry(seconds(1))),
            (1, RetryDecision::Retry(seconds(2))),
            (2, RetryDecision::Retry(seconds(4))),
            (3, RetryDecision::Retry(seconds(8))),
            (4, RetryDecision::DeadLetter),
            (5, RetryDecision::DeadLetter),
            (u32::MAX, RetryDecision::DeadLetter),
        ];
        for (failed, expected) in table {
            assert_eq!(schedule.decide(failed), expected, "after {failed}");
        }
    }

    #[test]
    fn the_longest_delay_is_one_tier() {
        let seconds = Duration::from_secs;
        let schedule = RetrySchedule::exponential(seconds(1), 2.0, seconds(3), 5);
        assert_eq!(schedule.tiers(), [seconds(1), seconds(2), seconds(3)]);
        assert_eq!(schedule.decide(4), RetryDecision::Retry(seconds(3)));
        assert_eq!(schedule.max_delay(), Some(seconds(3)));
        assert_eq!(schedule.total_delay(), seconds(1 + 2 + 3 + 3 + 3));
    }

    #[test]
    fn no_retries_is_a_schedule_too() {
        let schedule =
            RetrySchedule::exponential(Duration::from_secs(1), 2.0, Duration::from_secs(9), 0);
        assert_eq!(schedule.decide(0), RetryDecision::DeadLetter);
        assert!(schedule.tiers().is_empty());
        assert_eq!(schedule.max_delay(), None);
    }

    #[test]
    fn reconnecting_never_gives_up_and_never_waits_long() {
        let mut next = reconnect_delays();
        assert!((0..1000).all(|_| next() <= Duration::from_millis(6500)));
    }
}
