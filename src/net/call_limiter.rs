//! The gate before another system: how many calls at once, how many in a
//! second, and none at all for a while when it does not answer.
//!
//! Enrichment and every target have one of their own. Knows nothing of what
//! is called.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

pub use crate::net::circuit_breaker::CallResult;
use crate::net::{
    circuit_breaker::{Admission, CircuitBreaker},
    rate_limiter::RateLimiter,
};

/// How a gate is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// The most calls at once.
    pub max_concurrency: usize,
    /// The most calls in a second.
    pub rate_limit_per_second: u32,
    /// So many failures in a row that tell of an outage open the breaker.
    pub circuit_breaker_threshold: u32,
    /// How long it is open at first.
    pub circuit_breaker_open: Duration,
}

/// What is done when the breaker opens (`true`) or closes.
type StateListener = Box<dyn Fn(bool) + Send + Sync>;

/// A gate. Shared by everybody in this process who calls the same system.
pub struct CallLimiter {
    permits: Semaphore,
    rate_limiter: Mutex<RateLimiter>,
    circuit_breaker: Mutex<CircuitBreaker>,
    /// The breaker was told something.
    result_recorded: Notify,
    on_state_change: StateListener,
}

impl CallLimiter {
    /// An open way. `changed` is called once whenever the breaker opens
    /// (`true`) or closes (`false`), from whoever told it: for a gauge and a
    /// line in the log. It must not block.
    pub fn new(limits: &CallLimits, changed: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self {
            permits: Semaphore::new(limits.max_concurrency),
            rate_limiter: Mutex::new(RateLimiter::new(limits.rate_limit_per_second)),
            circuit_breaker: Mutex::new(CircuitBreaker::new(
                limits.circuit_breaker_threshold,
                limits.circuit_breaker_open,
            )),
            result_recorded: Notify::new(),
            on_state_change: Box::new(changed),
        }
    }

    /// Waits until a call may be made: for a permit, for the breaker's leave
    /// and for a slot of the pace, in this order.
    ///
    /// # Errors
    /// The breaker is open, for so long.
    pub async fn acquire(&self) -> Result<CallPermit<'_>, Duration> {
        // Never closed.
        let permit = self.permits.acquire().await.ok();
        let pass = self.admit(permit).await?;
        self.wait_for_rate_limit().await;
        Ok(pass)
    }

    /// Leave for at most so many more calls, as far as nobody has to wait for
    /// it: none while the breaker is open. Each has to wait for its slot of the
    /// [pace](Gate::pace) before it is made.
    pub fn try_acquire_many(&self, limit: usize) -> Vec<CallPermit<'_>> {
        let leave = |_| {
            let permit = self.permits.try_acquire().ok()?;
            let mut breaker = lock(&self.circuit_breaker);
            // Whether it is over is found out by who enters, alone.
            let granted = !breaker.is_open()
                && breaker.try_admit(Instant::now()) == Admission::Allowed { probe: false };
            granted.then(|| self.permit(Some(permit), false))
        };
        (0..limit).map_while(leave).collect()
    }

    /// Waits for a slot of the pace.
    pub async fn wait_for_rate_limit(&self) {
        let slot = lock(&self.rate_limiter).next_slot(Instant::now());
        tokio::time::sleep(slot).await;
    }

    fn permit<'a>(&'a self, permit: Option<SemaphorePermit<'a>>, probe: bool) -> CallPermit<'a> {
        CallPermit { limiter: self, _permit: permit, probe, result: CallResult::NotCalled }
    }

    /// How long nobody may enter; `None` also while a probe is under way, for
    /// what comes of it is soon known.
    pub fn open_for(&self) -> Option<Duration> {
        lock(&self.circuit_breaker).open_for(Instant::now())
    }

    async fn admit<'a>(
        &'a self,
        permit: Option<SemaphorePermit<'a>>,
    ) -> Result<CallPermit<'a>, Duration> {
        loop {
            // Before asking, so that nothing that is told is missed.
            let told = self.result_recorded.notified();
            let leave = lock(&self.circuit_breaker).try_admit(Instant::now());
            match leave {
                Admission::Allowed { probe } => return Ok(self.permit(permit, probe)),
                Admission::Wait => told.await,
                Admission::Rejected(wait) => return Err(wait),
            }
        }
    }
}

impl fmt::Debug for CallLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("breaker", &*lock(&self.circuit_breaker))
            .finish_non_exhaustive()
    }
}

/// Leave to call. What came of it is told to the breaker when this is
/// dropped, so that a call that is given up blocks no other; without a
/// verdict nothing was asked.
#[derive(Debug)]
pub struct CallPermit<'a> {
    limiter: &'a CallLimiter,
    _permit: Option<SemaphorePermit<'a>>,
    probe: bool,
    result: CallResult,
}

impl CallPermit<'_> {
    /// Whether this is the one call that finds out whether the system answers
    /// again: its failure is no news.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Tells what came of the call, and gives the leave back.
    pub fn record(mut self, verdict: CallResult) {
        self.result = verdict;
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        let (before, after) = {
            let mut breaker = lock(&self.limiter.circuit_breaker);
            let before = breaker.is_open();
            breaker.record(Instant::now(), self.probe, self.result);
            (before, breaker.is_open())
        };
        self.limiter.result_recorded.notify_waiters();
        if before != after {
            (self.limiter.on_state_change)(after);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
