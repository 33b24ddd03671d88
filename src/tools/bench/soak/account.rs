//! What became of everything that was sent.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::sample::queued;
use crate::{
    broker::BrokerConnection,
    store::{reconciliation, reconciliation::Totals},
    tools::bench::{baseline::database, stage::Stage},
};

/// How long the last message may take after the last answer: the longest way
/// is through all retries.
const LAST: Duration = Duration::from_mins(2);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(500);

/// Every message, by what became of it (promise P3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accounts {
    /// Answered with 2xx.
    pub accepted: i64,
    /// Answered with 429 or 503: not durable, as far as the receiver knew. A
    /// confirm that came too late made it so all the same.
    pub refused: i64,
    /// It changed the books.
    pub applied: i64,
    /// Its key was settled before.
    pub duplicate: i64,
    /// A newer state stood already.
    pub stale: i64,
    /// Nobody maps its topic.
    pub ignored: i64,
    /// It waits for a person.
    pub dead: i64,
    /// It has no outcome yet.
    pub waiting: i64,
    /// Keys, receipts, dead letters, orders and invoices that contradict each
    /// other.
    pub contradictions: i64,
    /// Whether every message is accounted for, once, and nothing waits.
    pub complete: bool,
}

/// Waits until nothing is under way any more, and takes the sums.
///
/// # Errors
/// A server fails.
pub async fn settle(
    stage: &Stage,
    link: &BrokerConnection,
    accepted: usize,
    refused: usize,
) -> anyhow::Result<Accounts> {
    let (accepted, refused) = (i64::try_from(accepted)?, i64::try_from(refused)?);
    let deadline = Instant::now() + LAST;
    let in_queues = loop {
        let in_queues = queued(&stage.topology.depths(link).await?);
        // What a worker holds is in no queue, and not on record either.
        let settled = in_queues == 0 && database::receipts(&stage.store).await? >= accepted;
        if settled || Instant::now() >= deadline {
            break in_queues;
        }
        tokio::time::sleep(LOOK).await;
    };
    let mut connection = stage.store.connection().await?;
    let sums = reconciliation::totals(&mut connection).await?;
    Ok(Accounts::of(&sums, i64::from(in_queues), accepted, refused))
}

impl Accounts {
    fn of(sums: &Totals, in_queues: i64, accepted: i64, refused: i64) -> Self {
        let Totals { applied, duplicate, stale, ignored, dead, .. } = *sums;
        // What waits for its next attempt is on record and in a queue.
        let waiting = in_queues.max(sums.retried);
        let contradictions = sums.dead_receipts_without_dead_letter
            + sums.dead_letters_without_dead_receipt
            + sums.keys_without_receipt
            + sums.processed_without_key
            + sums.documents_without_receipt;
        let accounted = applied + duplicate + stale + ignored + dead;
        let sound = (accepted..=accepted + refused).contains(&accounted);
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
            complete: sound && waiting == 0 && contradictions == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Totals {
        Totals { applied: 80, duplicate: 10, stale: 5, ignored: 3, dead: 2, ..Totals::default() }
    }

    #[test]
    fn a_message_more_or_less_is_found() {
        for (accepted, refused, complete) in [
            (100, 0, true),
            (101, 0, false),
            (99, 0, false),
            // It was refused, and is there: once.
            (99, 1, true),
            (100, 7, true),
            (98, 1, false),
        ] {
            let told = Accounts::of(&sums(), 0, accepted, refused);
            assert_eq!(told.complete, complete, "{told:?}");
        }
    }

    #[test]
    fn what_waits_is_not_done() {
        let told = Accounts::of(&sums(), 1, 100, 0);
        assert_eq!((told.waiting, told.complete), (1, false));
        let told = Accounts::of(&Totals { retried: 2, ..sums() }, 1, 100, 0);
        assert_eq!((told.waiting, told.complete), (2, false));
    }

    #[test]
    fn books_that_contradict_each_other_are_not_complete() {
        let contradicting: [fn(&mut Totals); 5] = [
            |sums| sums.dead_receipts_without_dead_letter = 1,
            |sums| sums.dead_letters_without_dead_receipt = 1,
            |sums| sums.keys_without_receipt = 1,
            |sums| sums.processed_without_key = 1,
            |sums| sums.documents_without_receipt = 1,
        ];
        for contradict in contradicting {
            let mut sums = sums();
            contradict(&mut sums);
            let told = Accounts::of(&sums, 0, 100, 0);
            assert_eq!((told.contradictions, told.complete), (1, false), "{sums:?}");
        }
    }
}
