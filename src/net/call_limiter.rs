//! Limits the calls to another system: how many at once, how many in a second, and none while its
//! circuit breaker is open.
//!
//! Each enriched source and each destination has one. It knows nothing about the calls.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

pub use super::circuit_breaker::CallResult;
use super::{
    circuit_breaker::{Admission, CircuitBreaker},
    rate_limiter::RateLimiter,
};

/// The limits of a [`CallLimiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// The most calls at once.
    pub max_concurrency: usize,
    /// The most calls in a second.
    pub rate_limit_per_second: u32,
    /// Consecutive outage-like failures that open the circuit breaker.
    pub circuit_breaker_threshold: u32,
    /// How long the circuit breaker stays open at first.
    pub circuit_breaker_open: Duration,
}

/// Called with `true` when the circuit breaker opens and `false` when it closes.
type StateListener = Box<dyn Fn(bool) + Send + Sync>;

/// Limits the calls of this process to one system.
pub struct CallLimiter {
    permits: Semaphore,
    rate_limiter: Mutex<RateLimiter>,
    circuit_breaker: Mutex<CircuitBreaker>,
    /// Wakes calls that wait for the result of a probe.
    result_recorded: Notify,
    on_state_change: StateListener,
}

impl CallLimiter {
    /// A limiter with a closed circuit breaker. `on_state_change` is called with `true` when the
    /// circuit breaker opens and `false` when it closes. It must not block.
    pub fn new(
        limits: &CallLimits,
        on_state_change: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        let circuit_breaker =
            CircuitBreaker::new(limits.circuit_breaker_threshold, limits.circuit_breaker_open);
        Self {
            permits: Semaphore::new(limits.max_concurrency),
            rate_limiter: Mutex::new(RateLimiter::new(limits.rate_limit_per_second)),
            circuit_breaker: Mutex::new(circuit_breaker),
            result_recorded: Notify::new(),
            on_state_change: Box::new(on_state_change),
        }
    }

    /// Waits until a call may start: for a permit, the circuit breaker and the rate limiter, in
    /// this order.
    ///
    /// # Errors
    /// The circuit breaker stays open for this long.
    pub async fn acquire(&self) -> Result<CallPermit<'_>, Duration> {
        // The semaphore is never closed.
        let permit = self.permits.acquire().await.ok();
        let permit = self.admit(permit).await?;
        self.wait_for_rate_limit().await;
        Ok(permit)
    }

    /// Permits for at most `limit` more calls that need not wait for another call to end; none
    /// while the circuit breaker is open. Each call must still
    /// [wait for the rate limit](Self::wait_for_rate_limit).
    pub fn try_acquire_many(&self, limit: usize) -> Vec<CallPermit<'_>> {
        let try_acquire = |_| {
            let permit = self.permits.try_acquire().ok()?;
            let mut circuit_breaker = lock(&self.circuit_breaker);
            // Probes are left to `acquire`, which sends one call at a time.
            let is_allowed = !circuit_breaker.is_open()
                && circuit_breaker.try_admit(Instant::now()) == Admission::Allowed { probe: false };
            is_allowed.then(|| self.permit(Some(permit), false))
        };
        (0..limit).map_while(try_acquire).collect()
    }

    /// Waits for the next slot of the rate limiter.
    pub async fn wait_for_rate_limit(&self) {
        let wait = lock(&self.rate_limiter).next_slot(Instant::now());
        tokio::time::sleep(wait).await;
    }

    fn permit<'a>(&'a self, permit: Option<SemaphorePermit<'a>>, probe: bool) -> CallPermit<'a> {
        CallPermit { limiter: self, _permit: permit, probe, result: CallResult::NotCalled }
    }

    /// How long the circuit breaker stays open. `None` while a probe is in progress, because its
    /// result is about to be known.
    pub fn open_for(&self) -> Option<Duration> {
        lock(&self.circuit_breaker).open_for(Instant::now())
    }

    async fn admit<'a>(
        &'a self,
        permit: Option<SemaphorePermit<'a>>,
    ) -> Result<CallPermit<'a>, Duration> {
        loop {
            // Subscribed before asking, so that no result is missed.
            let result_recorded = self.result_recorded.notified();
            let admission = lock(&self.circuit_breaker).try_admit(Instant::now());
            match admission {
                Admission::Allowed { probe } => return Ok(self.permit(permit, probe)),
                Admission::Wait => result_recorded.await,
                Admission::Rejected(wait) => return Err(wait),
            }
        }
    }
}

impl fmt::Debug for CallLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLimiter")
            .field("circuit_breaker", &*lock(&self.circuit_breaker))
            .finish_non_exhaustive()
    }
}

/// Permission to make one call. Dropping it records the result, [`CallResult::NotCalled`] unless
/// [recorded](Self::record), so that an abandoned call blocks no other.
#[derive(Debug)]
pub struct CallPermit<'a> {
    limiter: &'a CallLimiter,
    _permit: Option<SemaphorePermit<'a>>,
    probe: bool,
    result: CallResult,
}

impl CallPermit<'_> {
    /// Whether the call is the probe of an open circuit breaker, whose failure need not be logged.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Records the result of the call and returns the permit.
    pub fn record(mut self, result: CallResult) {
        self.result = result;
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        let (was_open, is_open) = {
            let mut circuit_breaker = lock(&self.limiter.circuit_breaker);
            let was_open = circuit_breaker.is_open();
            circuit_breaker.record(Instant::now(), self.probe, self.result);
            (was_open, circuit_breaker.is_open())
        };
        self.limiter.result_recorded.notify_waiters();
        if was_open != is_open {
            (self.limiter.on_state_change)(is_open);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
