//! Retries work that failed because the database is unavailable or busy.

use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::{ErrorClass, StoreError};
use crate::retry::reconnect_delays;

/// How often work is retried at once after a conflict with another transaction.
const MAX_CONTENTION_RETRIES: u64 = 5;
/// The upper limit of the first random delay after a conflict. It grows by as
/// much with each retry.
const CONTENTION_DELAY_MS: u64 = 20;
/// The shortest delay while the database is unavailable.
const MIN_DELAY: Duration = Duration::from_millis(10);

/// Runs `work` until it succeeds or fails for a reason that waiting cannot
/// change (the inner `Err`).
///
/// # Errors
/// The last error, once the database has been unavailable for `timeout`. The
/// work is not to blame for it.
pub async fn retry_while_unavailable<T, F: Future<Output = Result<T, StoreError>>>(
    timeout: Duration,
    work: impl Fn() -> F,
) -> Result<Result<T, StoreError>, StoreError> {
    let mut retry = DatabaseRetry::new(timeout);
    loop {
        match work().await {
            Ok(value) => return Ok(Ok(value)),
            Err(error) => match retry.on_error(error, Instant::now())? {
                Next::Retry(delay) => tokio::time::sleep(delay).await,
                Next::Fail(error) => return Ok(Err(error)),
            },
        }
    }
}

/// What to do after an error.
#[derive(Debug)]
enum Next {
    /// Wait this long and try again.
    Retry(Duration),
    /// Waiting does not help.
    Fail(StoreError),
}

/// The errors of one piece of work so far.
struct DatabaseRetry {
    timeout: Duration,
    unavailable_since: Option<Instant>,
    contention_retries: u64,
    next_delay: Box<dyn FnMut() -> Duration + Send>,
}

impl DatabaseRetry {
    fn new(timeout: Duration) -> Self {
        let next_delay = Box::new(reconnect_delays());
        Self { timeout, unavailable_since: None, contention_retries: 0, next_delay }
    }

    /// Decides what follows an error.
    ///
    /// # Errors
    /// The error itself when the time is up.
    fn on_error(&mut self, error: StoreError, now: Instant) -> Result<Next, StoreError> {
        match error.class() {
            ErrorClass::Contention if self.contention_retries < MAX_CONTENTION_RETRIES => {
                self.contention_retries += 1;
                debug!(%error, retry = self.contention_retries, "the transaction is retried");
                // Random, so that two transactions do not meet again at once.
                let max_ms = CONTENTION_DELAY_MS * self.contention_retries;
                Ok(Next::Retry(Duration::from_millis(rand::random_range(1..=max_ms))))
            }
            // Persistent lock contention is treated as an outage.
            class @ (ErrorClass::Unavailable
            | ErrorClass::SchemaMismatch
            | ErrorClass::Contention) => {
                let since = *self.unavailable_since.get_or_insert(now);
                let elapsed = now.duration_since(since);
                if elapsed >= self.timeout {
                    return Err(error);
                }
                if class == ErrorClass::SchemaMismatch {
                    error!(%error, "the database has another schema; run `tallyhook migrate`");
                } else {
                    warn!(%error, "the database is unavailable or busy; the work is retried");
                }
                let delay = (self.next_delay)().min(self.timeout.saturating_sub(elapsed));
                Ok(Next::Retry(delay.max(MIN_DELAY)))
            }
            ErrorClass::InvalidData | ErrorClass::Unknown => Ok(Next::Fail(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable() -> StoreError {
        StoreError::timed_out()
    }

    fn unknown() -> StoreError {
        StoreError::from(sqlx::Error::RowNotFound)
    }

    #[test]
    fn retry_database_unavailable_until_timeout_returns_its_error() {
        let mut retry = DatabaseRetry::new(Duration::from_secs(10));
        let begun = Instant::now();
        for seconds in [0, 5, 9] {
            let next = retry.on_error(unavailable(), begun + Duration::from_secs(seconds)).unwrap();
            let Next::Retry(delay) = next else { panic!("{next:?}") };
            let rest = Duration::from_secs(10 - seconds);
            assert!((MIN_DELAY..=rest).contains(&delay), "{delay:?} after {seconds} s");
        }
        assert!(retry.on_error(unavailable(), begun + Duration::from_secs(10)).is_err());
    }

    #[test]
    fn retry_without_timeout_returns_the_first_outage() {
        let mut retry = DatabaseRetry::new(Duration::ZERO);
        assert!(retry.on_error(unavailable(), Instant::now()).is_err());
    }

    #[test]
    fn retry_error_that_waiting_cannot_change_fails_at_once() {
        let mut retry = DatabaseRetry::new(Duration::from_secs(10));
        let next = retry.on_error(unknown(), Instant::now()).unwrap();
        assert!(matches!(next, Next::Fail(_)), "{next:?}");
    }

    #[tokio::test]
    async fn retry_while_unavailable_succeeds_once_the_database_is_back() {
        let failures = std::sync::atomic::AtomicU32::new(2);
        let work = || async {
            use std::sync::atomic::Ordering::Relaxed;
            let left = failures.load(Relaxed);
            failures.store(left.saturating_sub(1), Relaxed);
            if left > 0 { Err(unavailable()) } else { Ok(left) }
        };
        let result = retry_while_unavailable(Duration::from_mins(1), work).await;
        assert!(matches!(result, Ok(Ok(0))), "{result:?}");
    }
}
