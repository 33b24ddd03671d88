//! A constant arrival rate. Due times do not depend on earlier responses, so
//! slow ones are counted in full (no coordinated omission).

use std::{
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// When the first request is due.
    pub(super) start: Instant,
    /// Arrivals a second.
    pub(super) rate: NonZeroU32,
    /// The number of requests.
    pub(super) total: usize,
}

/// Ends the pacing thread when dropped.
pub(super) struct Pacing(Arc<Semaphore>);

impl Schedule {
    /// A schedule of this length that starts now.
    pub(super) fn starting_now(rate: NonZeroU32, duration: Duration) -> Self {
        Self { start: Instant::now(), rate, total: arrivals(rate, duration) }
    }

    /// When the nth request is due, counted from 0.
    pub(super) fn due(&self, nth: usize) -> Instant {
        let rate = self.rate.get();
        let per_second = usize::try_from(rate).unwrap_or(usize::MAX);
        let seconds = u64::try_from(nth / per_second).unwrap_or(u64::MAX);
        // Below the rate, and so below 2^32.
        let rest = u32::try_from(nth % per_second).unwrap_or(u32::MAX);
        self.start + Duration::from_secs(seconds) + Duration::from_secs(1) * rest / rate
    }

    /// The number of requests that are due after this time.
    fn due_after(&self, elapsed: Duration) -> usize {
        let nanoseconds = elapsed.as_nanos() * u128::from(self.rate.get());
        let arrivals = usize::try_from(nanoseconds / 1_000_000_000).unwrap_or(usize::MAX);
        arrivals.saturating_add(1).min(self.total)
    }

    /// Adds a permit for each request when it is due. A separate thread,
    /// because the runtime's timers have a resolution of 1 ms.
    pub(super) fn start_pacing(self) -> Pacing {
        let permits = Arc::new(Semaphore::new(0));
        let pacing = Pacing(Arc::clone(&permits));
        thread::spawn(move || {
            let mut added = 0;
            while added < self.total && !permits.is_closed() {
                let now = Instant::now();
                let due = self.due_after(now.saturating_duration_since(self.start));
                if now >= self.start && due > added {
                    permits.add_permits(due - added);
                    added = due;
                }
                thread::sleep(self.due(added).saturating_duration_since(Instant::now()));
            }
        });
        pacing
    }
}

impl Pacing {
    /// One permit for each request that is due; to be acquired and forgotten.
    pub(super) fn permits(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0)
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The number of arrivals in this time, at least 1.
pub(super) fn arrivals(rate: NonZeroU32, duration: Duration) -> usize {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let count = millis.saturating_mul(u64::from(rate.get())) / 1000;
    usize::try_from(count).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, total: usize) -> Schedule {
        Schedule { start: Instant::now(), rate: NonZeroU32::new(rate).unwrap(), total }
    }

    #[test]
    fn due_does_not_drift() {
        let schedule = schedule(3, 100);
        for (nth, expected) in [(0, 0), (1, 333_333_333), (3, 1_000_000_000), (30, 10_000_000_000)]
        {
            let due = schedule.due(nth) - schedule.start;
            assert_eq!(due, Duration::from_nanos(expected), "request {nth}");
        }
    }

    #[test]
    fn due_after_counts_arrivals() {
        let schedule = schedule(1000, 50);
        for (micros, expected) in [(0, 1), (999, 1), (1000, 2), (10_500, 11), (1_000_000, 50)] {
            let due = schedule.due_after(Duration::from_micros(micros));
            assert_eq!(due, expected, "after {micros} µs");
        }
    }

    #[tokio::test]
    async fn pacing_adds_one_permit_per_request() {
        let pacing = schedule(10_000, 100).start_pacing();
        let permits = pacing.permits();
        permits.acquire_many(100).await.unwrap().forget();
        assert_eq!(permits.available_permits(), 0);
        drop(pacing);
        assert!(permits.is_closed());
    }
}
