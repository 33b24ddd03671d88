//! A rate limit: when the next request may go.

use std::time::{Duration, Instant};

/// Slots at even distances. Knows no clock: the time is told.
#[derive(Clone, Debug)]
pub(crate) struct RateLimiter {
    interval: Duration,
    next: Option<Instant>,
}

impl RateLimiter {
    /// So many slots in a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), next: None }
    }

    /// Takes the next slot; how long it is until then.
    pub(crate) fn next_slot(&mut self, now: Instant) -> Duration {
        // Slots that nobody took are lost: no burst follows a quiet time.
        let slot = self.next.map_or(now, |next| next.max(now));
        self.next = Some(slot + self.interval);
        slot - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_this_table() {
        let begun = Instant::now();
        let mut pace = RateLimiter::new(5);
        for (now, wait) in
            [(0, 0), (0, 200), (0, 400), (500, 100), (800, 0), (5000, 0), (5100, 100), (5100, 300)]
        {
            let at = begun + Duration::from_millis(now);
            assert_eq!(pace.next_slot(at), Duration::from_millis(wait), "at {now}");
        }
    }
}
