//! Housekeeping: opens room for what comes, and drops what is past. A duty of
//! every worker process; of several that keep house at once one does the work.
//! It needs the database only, and an outage of that is waited for.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    config::Retention,
    metrics::Metrics,
    store::{
        Fault, Store, StoreError,
        inbox::generations::{self, State},
        receipts::{retention, spans},
    },
};

/// How often the house is kept; a fifth more or less, so that workers which
/// were started together do not come together.
const PERIOD: Duration = Duration::from_mins(5);
/// For how long nobody needs to keep house without receipts falling into the
/// default partition.
const AHEAD: Duration = Duration::from_hours(28 * 24);

/// What was done in one round.
#[derive(Clone, Debug)]
pub struct Kept {
    /// In the inbox.
    pub inbox: generations::Kept,
    /// In the call log.
    pub receipts: retention::Kept,
}

impl Kept {
    /// Whether somebody was in the way, and something is left for the next
    /// round.
    fn is_put_off(&self) -> bool {
        self.inbox.put_off || self.receipts.is_busy
    }
}

/// Keeps house at once and then every few minutes, until stopped. The store
/// must give a statement an hour: a generation that is closed is vacuumed.
pub async fn run(store: Store, retention: Retention, metrics: Metrics, stop: CancellationToken) {
    metrics.housekeeping_success.set(OffsetDateTime::now_utc().unix_timestamp());
    let keeping = async {
        loop {
            // Its result is told, and the next round is another one.
            drop(once(&store, &retention, &metrics).await);
            tokio::time::sleep(PERIOD.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = stop.cancelled() => {}
    }
    store.close().await;
}

/// One round.
///
/// # Errors
/// What the database says; it is told and counted.
pub async fn once(
    store: &Store,
    retention: &Retention,
    metrics: &Metrics,
) -> Result<Kept, StoreError> {
    let done = keep(store, retention, metrics).await;
    match &done {
        Ok(kept) if kept.is_put_off() => {
            info!("the inbox or the call log is in use; the rest is seen to later");
            metrics.housekeeping_failures.inc();
        }
        Ok(_) => metrics.housekeeping_success.set(OffsetDateTime::now_utc().unix_timestamp()),
        Err(error) => {
            metrics.housekeeping_failures.inc();
            if error.fault() == Fault::Away {
                debug!(%error, "no housekeeping: the database is away");
            } else {
                warn!(%error, "housekeeping failed; it is tried again");
            }
        }
    }
    done
}

async fn keep(store: &Store, retention: &Retention, metrics: &Metrics) -> Result<Kept, StoreError> {
    // The database's clock: workers may differ, and a key must not go early
    // because the clock of one of them is fast.
    let now = store.in_time(async { generations::now(&mut *store.connection().await?).await });
    let now = now.await?;
    let inbox = generations::keep(store, &generations::Plan { keep: retention.keys, now }).await;
    let plan = spans::Plan {
        span: retention.receipts_span,
        ahead: AHEAD.max(retention.receipts_span * 2),
        keep: retention.receipts,
        now: OffsetDateTime::now_utc(),
    };
    // Whatever became of the inbox.
    let receipts = store.in_time(retention::keep(store, &plan)).await;
    if let Ok(inbox) = &inbox {
        tell_of_inbox(inbox, now, metrics);
    }
    if let Ok(receipts) = &receipts {
        tell_of_receipts(receipts, metrics);
    }
    Ok(Kept { inbox: inbox?, receipts: receipts? })
}

fn tell_of_receipts(kept: &retention::Kept, metrics: &Metrics) {
    for table in &kept.made {
        info!(table, "a partition of the call log was made");
    }
    for table in &kept.crowded {
        warn!(
            table,
            "a partition of the call log cannot be made: too many receipts of its time lie in the \
             default partition, and stay there"
        );
    }
    for dropped in &kept.dropped {
        let retention::Dropped { table, receipts, carried } = dropped;
        info!(table, receipts, carried, "a partition of the call log is past retention and gone");
        metrics.receipts_dropped.inc_by(u64::try_from(*receipts).unwrap_or_default());
    }
    for retention::Held { table, unsettled, young } in &kept.held {
        info!(
            table,
            unsettled,
            young,
            "a partition of the call log is past retention and kept: messages of it wait in a \
             queue, or for a person"
        );
    }
    metrics.receipts_dropped.inc_by(kept.rest_deleted);
    metrics.receipts_held.set(i64::try_from(kept.held.len()).unwrap_or(i64::MAX));
}

fn tell_of_inbox(kept: &generations::Kept, now: OffsetDateTime, metrics: &Metrics) {
    let State { generations, held, since } = &kept.state;
    if let Some(generation) = kept.opened {
        info!(generation, "a generation of the inbox was opened");
    }
    for generation in &kept.forgotten {
        info!(generation, "a generation of the inbox is past the horizon and was dropped");
    }
    for held in held {
        info!(
            generation = held.generation,
            letters = held.letters,
            "a generation of the inbox is past the horizon and kept: dead letters wait whose keys \
             are in it; replay or discard them"
        );
    }
    let gauge = |state: &str, count: usize| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        metrics.inbox_generations.with_label_values(&[state]).set(count);
    };
    gauge("kept", generations.len().saturating_sub(held.len()));
    gauge("held", held.len());
    metrics.inbox_bytes.set(generations.iter().map(|generation| generation.bytes).sum());
    metrics.inbox_horizon.set((now - *since).whole_seconds().max(0));
    metrics.inbox_forgotten.inc_by(kept.forgotten.len() as u64);
}
