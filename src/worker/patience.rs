//! Waiting for a database that is away, for a while.

use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::Trouble;
use crate::{
    retry,
    store::{Fault, StoreError},
};

/// How often a batch that somebody stood in the way of is tried at once.
const CONTENDED: u64 = 5;

/// Tries a piece of work until it is done or waiting does not mend it (the
/// inner `Err`), with patience for a database that is away for at most `hold`.
///
/// # Errors
/// [`Trouble::Database`] when the time is up. No attempt is counted.
pub async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
    hold: Duration,
    work: impl Fn() -> F,
) -> Result<Result<T, StoreError>, Trouble> {
    let mut patience = Patience::new(hold);
    loop {
        match work().await {
            Ok(done) => return Ok(Ok(done)),
            Err(error) => {
                if let After::Final(error) = patience.bear(error).await? {
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// Bears the errors of one piece of work that is tried again and again.
struct Patience {
    hold: Duration,
    away_since: Option<Instant>,
    contended: u64,
    pause: Box<dyn FnMut() -> Duration + Send>,
}

/// What to do after an error.
#[derive(Debug)]
enum After {
    /// Try again: some time has passed.
    Again,
    /// Waiting does not mend it.
    Final(StoreError),
}

impl Patience {
    /// Patience for a database that is away for at most `hold`.
    fn new(hold: Duration) -> Self {
        let pause = Box::new(retry::reconnect());
        Self { hold, away_since: None, contended: 0, pause }
    }

    /// Bears an error: waits if waiting may mend it.
    ///
    /// # Errors
    /// [`Trouble::Database`] when the time is up. No attempt is counted.
    async fn bear(&mut self, error: StoreError) -> Result<After, Trouble> {
        match error.fault() {
            Fault::Contention if self.contended < CONTENDED => {
                self.contended += 1;
                debug!(%error, contended = self.contended, "the batch is tried again");
                // Two batches that met once must not meet again at once.
                let longest = 20 * self.contended;
                tokio::time::sleep(Duration::from_millis(rand::random_range(1..=longest))).await;
                Ok(After::Again)
            }
            // Whoever holds a lock for longer than that will let go some day;
            // no message is to blame.
            fault @ (Fault::Away | Fault::Schema | Fault::Contention) => {
                let away = self.away_since.get_or_insert_with(Instant::now).elapsed();
                if away >= self.hold {
                    return Err(Trouble::Database(error));
                }
                if fault == Fault::Schema {
                    error!(%error, "the schema is not ours; is `tallyhook migrate` due?");
                } else {
                    warn!(%error, "the database is away or busy; the batch waits");
                }
                let pause = (self.pause)().min(self.hold.saturating_sub(away));
                tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
                Ok(After::Again)
            }
            Fault::Data | Fault::Unclear => Ok(After::Final(error)),
        }
    }
}
