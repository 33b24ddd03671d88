//! The retry schedule of failed messages, and the delays between attempts to
//! reconnect.
//!
//! The only user of the crate `backoff`, which is unmaintained (RUSTSEC-2025-0012).
//! Only its delay iterator is used.

use std::time::Duration;

use backoff::{ExponentialBackoff, backoff::Backoff as _};

/// What to do with a message whose attempt failed for a reason that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Publish it to the retry queue of this delay.
    Retry(Duration),
    /// Retries are exhausted: dead-letter it.
    DeadLetter,
}

/// The delays between the attempts of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule {
    delays: Vec<Duration>,
}

impl RetrySchedule {
    /// `max_retries` delays that start at `initial` and grow by `multiplier`
    /// up to `max`.
    pub fn exponential(
        initial: Duration,
        multiplier: f64,
        max: Duration,
        max_retries: u32,
    ) -> Self {
        // No jitter: the delay is an argument of the queue, so every message
        // of a tier waits equally long.
        let mut backoff = unlimited_backoff(initial, multiplier, max, 0.0);
        let delays = (0..max_retries).filter_map(|_| backoff.next_backoff()).collect();
        Self { delays }
    }

    /// The distinct delays in ascending order. Each has a retry queue.
    pub fn tiers(&self) -> Vec<Duration> {
        let mut tiers = self.delays.clone();
        tiers.dedup();
        tiers
    }

    /// The longest delay; `None` if nothing is retried.
    pub fn max_delay(&self) -> Option<Duration> {
        self.delays.iter().max().copied()
    }

    /// The sum of all delays of one message.
    pub fn total_delay(&self) -> Duration {
        self.delays.iter().sum()
    }

    /// The decision for a message that has failed now and `failed_attempts`
    /// times before.
    pub fn decide(&self, failed_attempts: u32) -> RetryDecision {
        usize::try_from(failed_attempts)
            .ok()
            .and_then(|index| self.delays.get(index))
            .map_or(RetryDecision::DeadLetter, |delay| RetryDecision::Retry(*delay))
    }
}

/// The longest delay between two attempts to reconnect, before jitter.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(5);

/// Delays between attempts to reconnect: from 0.2 s to 5 s, 30 % jitter, without end.
/// The jitter keeps many workers from reconnecting at the same moment.
pub fn reconnect_delays() -> impl FnMut() -> Duration {
    let mut backoff = reconnect_backoff();
    move || backoff.next_backoff().unwrap_or(MAX_RECONNECT_DELAY)
}

fn reconnect_backoff() -> ExponentialBackoff {
    unlimited_backoff(Duration::from_millis(200), 1.7, MAX_RECONNECT_DELAY, 0.3)
}

/// A backoff that never gives up. The crate's default stops after 15 minutes.
fn unlimited_backoff(
    initial: Duration,
    multiplier: f64,
    max: Duration,
    jitter: f64,
) -> ExponentialBackoff {
    ExponentialBackoff {
        current_interval: initial,
        initial_interval: initial,
        multiplier,
        max_interval: max,
        randomization_factor: jitter,
        max_elapsed_time: None,
        ..ExponentialBackoff::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn schedule_of_four_retries_doubles_and_then_dead_letters() {
        use RetryDecision::{DeadLetter, Retry};
        let schedule = RetrySchedule::exponential(seconds(1), 2.0, seconds(60), 4);
        for (failed_attempts, expected) in [
            (0, Retry(seconds(1))),
            (1, Retry(seconds(2))),
            (2, Retry(seconds(4))),
            (3, Retry(seconds(8))),
            (4, DeadLetter),
            (5, DeadLetter),
            (u32::MAX, DeadLetter),
        ] {
            assert_eq!(schedule.decide(failed_attempts), expected, "after {failed_attempts}");
        }
        assert_eq!(schedule.tiers(), [seconds(1), seconds(2), seconds(4), seconds(8)]);
        assert_eq!(schedule.max_delay(), Some(seconds(8)));
        assert_eq!(schedule.total_delay(), seconds(15));
    }

    #[test]
    fn schedule_with_max_delay_repeats_the_last_tier() {
        let schedule = RetrySchedule::exponential(seconds(1), 2.0, seconds(3), 5);
        assert_eq!(schedule.tiers(), [seconds(1), seconds(2), seconds(3)]);
        for (failed_attempts, delay) in [(0, 1), (1, 2), (2, 3), (3, 3), (4, 3)] {
            let expected = RetryDecision::Retry(seconds(delay));
            assert_eq!(schedule.decide(failed_attempts), expected, "after {failed_attempts}");
        }
        assert_eq!(schedule.decide(5), RetryDecision::DeadLetter);
        assert_eq!(schedule.max_delay(), Some(seconds(3)));
        assert_eq!(schedule.total_delay(), seconds(1 + 2 + 3 + 3 + 3));
    }

    #[test]
    fn schedule_of_one_retry_dead_letters_the_second_failure() {
        let schedule = RetrySchedule::exponential(seconds(5), 2.0, seconds(60), 1);
        assert_eq!(schedule.decide(0), RetryDecision::Retry(seconds(5)));
        assert_eq!(schedule.decide(1), RetryDecision::DeadLetter);
    }

    #[test]
    fn schedule_without_retries_dead_letters_the_first_failure() {
        let schedule = RetrySchedule::exponential(seconds(1), 2.0, seconds(9), 0);
        assert_eq!(schedule.decide(0), RetryDecision::DeadLetter);
        assert!(schedule.tiers().is_empty());
        assert_eq!(schedule.max_delay(), None);
        assert_eq!(schedule.total_delay(), Duration::ZERO);
    }

    #[test]
    fn reconnect_first_delays_grow_from_200_ms_with_jitter() {
        let mut next_delay = reconnect_delays();
        for expected_ms in [200, 340, 578, 982, 1670] {
            let (expected, delay) = (Duration::from_millis(expected_ms), next_delay());
            let range = expected.mul_f64(0.69)..=expected.mul_f64(1.31);
            assert!(range.contains(&delay), "{delay:?} instead of {expected:?}");
        }
    }

    #[test]
    fn reconnect_after_an_hour_still_returns_delays_up_to_max() {
        let mut backoff = reconnect_backoff();
        // The crate's default max_elapsed_time of 15 minutes would return None.
        backoff.start_time -= Duration::from_hours(1);
        for _ in 0..1000 {
            let delay = backoff.next_backoff().expect("the backoff gave up");
            assert!(delay <= MAX_RECONNECT_DELAY.mul_f64(1.31), "{delay:?}");
        }
    }

    #[test]
    fn reconnect_many_delays_differ_from_each_other() {
        let mut next_delay = reconnect_delays();
        let delays: std::collections::HashSet<Duration> = (0..100).map(|_| next_delay()).collect();
        assert!(delays.len() > 50, "{} different delays of 100", delays.len());
    }
}
