//! Waiting for a database that is away, for a while.

use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use crate::{
    retry,
    store::{ErrorClass, StoreError},
    worker::ConsumerError,
};

/// How often a batch that somebody stood in the way of is tried at once.
const MAX_CONTENTION_RETRIES: u64 = 5;

/// Tries a piece of work until it is done or waiting does not mend it (the
/// inner `Err`), with patience for a database that is away for at most `hold`.
///
/// # Errors
/// [`Trouble::DatabaseConfig`] when the time is up. No attempt is counted.
pub async fn retry_while_unavailable<T, F: Future<Output = Result<T, StoreError>>>(
    hold: Duration,
    work: impl Fn() -> F,
) -> Result<Result<T, StoreError>, ConsumerError> {
    let mut patience = DatabaseRetry::new(hold);
    loop {
        match work().await {
            Ok(done) => return Ok(Ok(done)),
            Err(error) => {
                if let Next::Fail(error) = patience.on_error(error).await? {
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// Bears the errors of one piece of work that is tried again and again.
struct DatabaseRetry {
    hold: Duration,
    unavailable_since: Option<Instant>,
    contention_retries: u64,
    next_delay: Box<dyn FnMut() -> Duration + Send>,
}

/// What to do after an error.
#[derive(Debug)]
enum Next {
    /// Try again: some time has passed.
    Retry,
    /// Waiting does not mend it.
    Fail(StoreError),
}

impl DatabaseRetry {
    /// Patience for a database that is away for at most `hold`.
    fn new(hold: Duration) -> Self {
        let next_delay = Box::new(retry::reconnect_delays());
        Self { hold, unavailable_since: None, contention_retries: 0, next_delay }
    }

    /// Bears an error: waits if waiting may mend it.
    ///
    /// # Errors
    /// [`Trouble::DatabaseConfig`] when the time is up. No attempt is counted.
    async fn on_error(&mut self, error: StoreError) -> Result<Next, ConsumerError> {
        match error.class() {
            ErrorClass::Contention if self.contention_retries < MAX_CONTENTION_RETRIES => {
                self.contention_retries += 1;
                debug!(%error, contended = self.contention_retries, "the batch is tried again");
                // Two batches that met once must not meet again at once.
                let longest = 20 * self.contention_retries;
                tokio::time::sleep(Duration::from_millis(rand::random_range(1..=longest))).await;
                Ok(Next::Retry)
            }
            // Whoever holds a lock for longer than that will let go some day;
            // no message is to blame.
            fault @ (ErrorClass::Unavailable
            | ErrorClass::SchemaMismatch
            | ErrorClass::Contention) => {
                let away = self.unavailable_since.get_or_insert_with(Instant::now).elapsed();
                if away >= self.hold {
                    return Err(ConsumerError::Database(error));
                }
                if fault == ErrorClass::SchemaMismatch {
                    error!(%error, "the schema is not ours; is `tallyhook migrate` due?");
                } else {
                    warn!(%error, "the database is away or busy; the batch waits");
                }
                let pause = (self.next_delay)().min(self.hold.saturating_sub(away));
                tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
                Ok(Next::Retry)
            }
            ErrorClass::InvalidData | ErrorClass::Unknown => Ok(Next::Fail(error)),
        }
    }
}
