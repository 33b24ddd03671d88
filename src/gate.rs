//! The gate before another system: how many calls at once, how many in a
//! second, and none at all for a while when it does not answer.
//!
//! Enrichment and every target have one of their own. Knows nothing of what
//! is called.

mod breaker;
mod pace;

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

pub use breaker::Verdict;
use breaker::{Breaker, Leave};
use pace::Pace;

/// How a gate is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most calls at once.
    pub concurrency: usize,
    /// The most calls in a second.
    pub per_second: u32,
    /// So many failures in a row that tell of an outage open the breaker.
    pub breaker_failures: u32,
    /// How long it is open at first.
    pub breaker_open: Duration,
}

/// What is done when the breaker opens (`true`) or closes.
type Hook = Box<dyn Fn(bool) + Send + Sync>;

/// A gate. Shared by everybody in this process who calls the same system.
pub struct Gate {
    permits: Semaphore,
    pace: Mutex<Pace>,
    breaker: Mutex<Breaker>,
    /// The breaker was told something.
    told: Notify,
    changed: Hook,
}

impl Gate {
    /// An open way. `changed` is called once whenever the breaker opens
    /// (`true`) or closes (`false`), from whoever told it: for a gauge and a
    /// line in the log. It must not block.
    pub fn new(limits: &Limits, changed: impl Fn(bool) + Send + Sync + 'static) -> Self {
        Self {
            permits: Semaphore::new(limits.concurrency),
            pace: Mutex::new(Pace::new(limits.per_second)),
            breaker: Mutex::new(Breaker::new(limits.breaker_failures, limits.breaker_open)),
            told: Notify::new(),
            changed: Box::new(changed),
        }
    }

    /// Waits until a call may be made: for a permit, for the breaker's leave
    /// and for a slot of the pace, in this order.
    ///
    /// # Errors
    /// The breaker is open, for so long.
    pub async fn enter(&self) -> Result<Pass<'_>, Duration> {
        // Never closed.
        let permit = self.permits.acquire().await.ok();
        let pass = self.leave(permit).await?;
        self.pace().await;
        Ok(pass)
    }

    /// Leave for at most so many more calls, as far as nobody has to wait for
    /// it: none while the breaker is open. Each has to wait for its slot of the
    /// [pace](Gate::pace) before it is made.
    pub fn more(&self, limit: usize) -> Vec<Pass<'_>> {
        let leave = |_| {
            let permit = self.permits.try_acquire().ok()?;
            let mut breaker = lock(&self.breaker);
            // Whether it is over is found out by who enters, alone.
            let granted = !breaker.is_open()
                && breaker.ask(Instant::now()) == Leave::Granted { probe: false };
            granted.then(|| self.pass(Some(permit), false))
        };
        (0..limit).map_while(leave).collect()
    }

    /// Waits for a slot of the pace.
    pub async fn pace(&self) {
        let slot = lock(&self.pace).slot(Instant::now());
        tokio::time::sleep(slot).await;
    }

    fn pass<'a>(&'a self, permit: Option<SemaphorePermit<'a>>, probe: bool) -> Pass<'a> {
        Pass { gate: self, _permit: permit, probe, verdict: Verdict::Nothing }
    }

    /// How long nobody may enter; `None` also while a probe is under way, for
    /// what comes of it is soon known.
    pub fn closed_for(&self) -> Option<Duration> {
        lock(&self.breaker).closed_for(Instant::now())
    }

    async fn leave<'a>(
        &'a self,
        permit: Option<SemaphorePermit<'a>>,
    ) -> Result<Pass<'a>, Duration> {
        loop {
            // Before asking, so that nothing that is told is missed.
            let told = self.told.notified();
            let leave = lock(&self.breaker).ask(Instant::now());
            match leave {
                Leave::Granted { probe } => return Ok(self.pass(permit, probe)),
                Leave::Wait => told.await,
                Leave::Denied(wait) => return Err(wait),
            }
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("breaker", &*lock(&self.breaker)).finish_non_exhaustive()
    }
}

/// Leave to call. What came of it is told to the breaker when this is
/// dropped, so that a call that is given up blocks no other; without a
/// verdict nothing was asked.
#[derive(Debug)]
pub struct Pass<'a> {
    gate: &'a Gate,
    _permit: Option<SemaphorePermit<'a>>,
    probe: bool,
    verdict: Verdict,
}

impl Pass<'_> {
    /// Whether this is the one call that finds out whether the system answers
    /// again: its failure is no news.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Tells what came of the call, and gives the leave back.
    pub fn tell(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let (before, after) = {
            let mut breaker = lock(&self.gate.breaker);
            let before = breaker.is_open();
            breaker.tell(Instant::now(), self.probe, self.verdict);
            (before, breaker.is_open())
        };
        self.gate.told.notify_waiters();
        if before != after {
            (self.gate.changed)(after);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
