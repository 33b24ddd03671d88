//! A constant rate of arrivals: when each is due, whatever became of the
//! others. What is late is late from here on: nothing is left out because
//! something before it took long (coordinated omission).

use std::{
    num::NonZeroU32,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Arrivals at a constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first one is due.
    pub begun: Instant,
    /// How many are due in a second.
    pub rate: NonZeroU32,
    /// How many there are.
    pub total: usize,
}

/// Ends the thread that keeps time when the load is over or given up.
pub struct Pacing(Arc<Semaphore>);

impl Schedule {
    /// When the nth one is due, counted from 0.
    pub fn due(&self, nth: usize) -> Instant {
        self.begun + self.place(nth)
    }

    fn place(&self, nth: usize) -> Duration {
        let rate = self.rate.get();
        let per_second = usize::try_from(rate).unwrap_or(usize::MAX);
        let seconds = u64::try_from(nth / per_second).unwrap_or(u64::MAX);
        // Less than the rate, and so below 2^32.
        let rest = u32::try_from(nth % per_second).unwrap_or(u32::MAX);
        Duration::from_secs(seconds) + Duration::from_secs(1) * rest / rate
    }

    /// How many are due when so much time has passed.
    fn due_by(&self, elapsed: Duration) -> usize {
        let nanoseconds = elapsed.as_nanos() * u128::from(self.rate.get());
        let whole = usize::try_from(nanoseconds / 1_000_000_000).unwrap_or(usize::MAX);
        whole.saturating_add(1).min(self.total)
    }

    /// Gives a turn away for each arrival when it is due.
    ///
    /// By a thread of its own: the runtime's timers tick in milliseconds, and
    /// it is busy.
    pub fn pace(self) -> Pacing {
        let turns = Arc::new(Semaphore::new(0));
        let given = Arc::clone(&turns);
        thread::spawn(move || {
            let mut so_far = 0;
            while so_far < self.total && !given.is_closed() {
                let now = Instant::now();
                let due = self.due_by(now.saturating_duration_since(self.begun));
                if now >= self.begun && due > so_far {
                    given.add_permits(due - so_far);
                    so_far = due;
                }
                thread::sleep(self.due(so_far).saturating_duration_since(Instant::now()));
            }
        });
        Pacing(turns)
    }
}

impl Pacing {
    /// The turns; each is taken for good.
    pub fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0)
    }
}

impl Drop for Pacing {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: u32, total: usize) -> Schedule {
        Schedule { begun: Instant::now(), rate: NonZeroU32::new(rate).unwrap(), total }
    }

    #[test]
    fn arrivals_do_not_drift() {
        let schedule = schedule(3, 100);
        for (nth, expected) in [(0, 0), (1, 333_333_333), (3, 1_000_000_000), (30, 10_000_000_000)]
        {
            let due = schedule.due(nth) - schedule.begun;
            assert_eq!(due, Duration::from_nanos(expected), "the {nth}th");
        }
    }

    #[test]
    fn what_is_due_is_what_was_due_by_then() {
        let schedule = schedule(1000, 50);
        for (micros, expected) in [(0, 1), (999, 1), (1000, 2), (10_500, 11), (1_000_000, 50)] {
            let due = schedule.due_by(Duration::from_micros(micros));
            assert_eq!(due, expected, "after {micros} µs");
        }
    }

    #[tokio::test]
    async fn every_arrival_gets_a_turn_and_no_other() {
        let pacing = schedule(10_000, 100).pace();
        let turns = pacing.turns();
        turns.acquire_many(100).await.unwrap().forget();
        assert_eq!(turns.available_permits(), 0);
        drop(pacing);
        assert!(turns.is_closed());
    }
}
