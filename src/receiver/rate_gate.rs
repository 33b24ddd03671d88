//! Lets at most one event pass in an interval: for log lines and records that anyone can cause.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Allows at most one event in an interval. The caller passes the time.
#[derive(Debug)]
pub(super) struct RateGate {
    interval: Duration,
    last_allowed: Mutex<Option<Instant>>,
}

impl RateGate {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last_allowed: Mutex::new(None) }
    }

    /// Whether the event may pass.
    pub(super) fn allow(&self, now: Instant) -> bool {
        let mut last_allowed = self.last_allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = last_allowed.is_none_or(|last| now.duration_since(last) >= self.interval);
        if is_allowed {
            *last_allowed = Some(now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_gate_allows_one_event_in_interval() {
        let gate = RateGate::new(Duration::from_secs(1));
        let start = Instant::now();
        for (ms, allowed) in
            [(0, true), (0, false), (999, false), (1000, true), (1001, false), (5000, true)]
        {
            assert_eq!(gate.allow(start + Duration::from_millis(ms)), allowed, "at {ms} ms");
        }
    }
}
