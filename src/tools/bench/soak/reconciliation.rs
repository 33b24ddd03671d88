//! Accounts for every message that was sent.

use std::{
    fmt,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::sample::queued;
use crate::{
    broker::BrokerConnection,
    store::reconciliation::{self, Totals},
    tools::bench::{baseline::database, environment::BenchEnvironment},
};

/// Time limit for the last message, which may need all its retries.
const TIMEOUT: Duration = Duration::from_mins(2);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Messages by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reconciliation {
    /// Responses with 2xx.
    pub(super) accepted: i64,
    /// Responses with 429 or 503. A late confirm can still make such a message
    /// durable.
    pub(super) refused: i64,
    pub(super) applied: i64,
    pub(super) duplicate: i64,
    pub(super) stale: i64,
    pub(super) ignored: i64,
    pub(super) dead: i64,
    /// Messages without an outcome.
    pub(super) waiting: i64,
    /// Keys, receipts, dead letters and documents that contradict each other.
    pub(super) contradictions: i64,
    /// Whether every message has exactly one outcome.
    pub(crate) complete: bool,
}

/// Waits until all messages are processed, and reads the totals.
pub(super) async fn reconcile(
    environment: &BenchEnvironment,
    link: &BrokerConnection,
    accepted: usize,
    refused: usize,
) -> anyhow::Result<Reconciliation> {
    let (accepted, refused) = (i64::try_from(accepted)?, i64::try_from(refused)?);
    let deadline = Instant::now() + TIMEOUT;
    let queued = loop {
        let queued = queued(&environment.topology.depths(link).await?);
        // Messages that a worker holds are neither queued nor on record.
        let done = queued == 0 && database::receipts(&environment.store).await? >= accepted;
        if done || Instant::now() >= deadline {
            break queued;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    };
    let mut connection = environment.store.connection().await?;
    let totals = reconciliation::totals(&mut connection).await?;
    Ok(Reconciliation::new(&totals, i64::from(queued), accepted, refused))
}

impl Reconciliation {
    fn new(totals: &Totals, queued: i64, accepted: i64, refused: i64) -> Self {
        let Totals { applied, duplicate, stale, ignored, dead, .. } = *totals;
        // A message that waits for a retry is on record and in a queue.
        let waiting = queued.max(totals.retried);
        let contradictions = totals.dead_receipts_without_dead_letter
            + totals.dead_letters_without_dead_receipt
            + totals.keys_without_receipt
            + totals.processed_without_key
            + totals.documents_without_receipt;
        let accounted = applied + duplicate + stale + ignored + dead;
        let matches = (accepted..=accepted + refused).contains(&accounted);
        Self {
            accepted,
            refused,
            applied,
            duplicate,
            stale,
            ignored,
            dead,
            waiting,
            contradictions,
            complete: matches && waiting == 0 && contradictions == 0,
        }
    }
}

impl fmt::Display for Reconciliation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, refused, applied, duplicate, stale, ignored, dead, waiting, .. } =
            self;
        write!(
            f,
            "{accepted} accepted: {applied} applied, {duplicate} duplicate, {stale} stale, \
             {ignored} ignored, {dead} dead; {waiting} waiting"
        )?;
        if *refused > 0 {
            write!(f, "; {refused} REFUSED")?;
        }
        if self.complete { Ok(()) } else { f.write_str("; NOT ACCOUNTED FOR") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals { applied: 80, duplicate: 10, stale: 5, ignored: 3, dead: 2, ..Totals::default() }
    }

    #[test]
    fn missing_or_extra_message_is_incomplete() {
        for (accepted, refused, complete) in [
            (100, 0, true),
            (101, 0, false),
            (99, 0, false),
            // A refused message that became durable.
            (99, 1, true),
            (100, 7, true),
            (98, 1, false),
        ] {
            let found = Reconciliation::new(&totals(), 0, accepted, refused);
            assert_eq!(found.complete, complete, "{found:?}");
        }
    }

    #[test]
    fn waiting_or_contradicting_message_is_incomplete() {
        let found = Reconciliation::new(&totals(), 1, 100, 0);
        assert_eq!((found.waiting, found.complete), (1, false));
        let found = Reconciliation::new(&Totals { retried: 2, ..totals() }, 1, 100, 0);
        assert_eq!((found.waiting, found.complete), (2, false));
        let contradictions: [fn(&mut Totals); 5] = [
            |totals| totals.dead_receipts_without_dead_letter = 1,
            |totals| totals.dead_letters_without_dead_receipt = 1,
            |totals| totals.keys_without_receipt = 1,
            |totals| totals.processed_without_key = 1,
            |totals| totals.documents_without_receipt = 1,
        ];
        for contradict in contradictions {
            let mut totals = totals();
            contradict(&mut totals);
            let found = Reconciliation::new(&totals, 0, 100, 0);
            assert_eq!((found.contradictions, found.complete), (1, false), "{totals:?}");
        }
    }
}
