//! A rate limiter: when the next call may start.

use std::time::{Duration, Instant};

/// Hands out slots at equal intervals. The caller passes the time.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    interval: Duration,
    next: Option<Instant>,
}

impl RateLimiter {
    /// Hands out this many slots in a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), next: None }
    }

    /// Takes the next slot and returns the time until it.
    pub(super) fn next_slot(&mut self, now: Instant) -> Duration {
        // Unused slots are lost, so that no burst follows an idle period.
        let slot = self.next.map_or(now, |next| next.max(now));
        self.next = Some(slot + self.interval);
        slot - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_limiter_slots_match_table() {
        let start = Instant::now();
        let mut limiter = RateLimiter::new(5);
        for (now, wait) in
            [(0, 0), (0, 200), (0, 400), (500, 100), (800, 0), (5000, 0), (5100, 100), (5100, 300)]
        {
            let at = start + Duration::from_millis(now);
            assert_eq!(limiter.next_slot(at), Duration::from_millis(wait), "at {now}");
        }
    }
}
