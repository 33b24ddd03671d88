//! Housekeeping: opens room for what comes, and drops what is past. A duty of
//! every worker process; of several that keep house at once one does the work.
//! It needs the database only, and an outage of that is waited for.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    config::Retention,
    observability::metrics::Metrics,
    store::{
        ErrorClass, Store, StoreError,
        inbox::partitions::{self as inbox_partitions, InboxStatus},
        receipts::{partition_range, partitions as receipts_partitions},
    },
};

/// How often the house is kept; a fifth more or less, so that workers which
/// were started together do not come together.
const INTERVAL: Duration = Duration::from_mins(5);
/// For how long nobody needs to keep house without receipts falling into the
/// default partition.
const PREMAKE: Duration = Duration::from_hours(28 * 24);

/// What was done in one round.
#[derive(Clone, Debug)]
pub struct MaintenanceReport {
    /// In the inbox.
    pub inbox: inbox_partitions::InboxMaintenanceReport,
    /// In the call log.
    pub receipts: receipts_partitions::ReceiptsMaintenanceReport,
}

impl MaintenanceReport {
    /// Whether somebody was in the way, and something is left for the next
    /// round.
    fn is_incomplete(&self) -> bool {
        self.inbox.is_deferred || self.receipts.is_busy
    }
}

/// Keeps house at once and then every few minutes, until stopped. The store
/// must give a statement an hour: a generation that is closed is vacuumed.
pub async fn run(store: Store, retention: Retention, metrics: Metrics, stop: CancellationToken) {
    metrics.maintenance_last_success.set(OffsetDateTime::now_utc().unix_timestamp());
    let keeping = async {
        loop {
            // Its result is told, and the next round is another one.
            drop(run_once(&store, &retention, &metrics).await);
            tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
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
pub async fn run_once(
    store: &Store,
    retention: &Retention,
    metrics: &Metrics,
) -> Result<MaintenanceReport, StoreError> {
    let done = maintain(store, retention, metrics).await;
    match &done {
        Ok(kept) if kept.is_incomplete() => {
            info!("the inbox or the call log is in use; the rest is seen to later");
            metrics.maintenance_failures.inc();
        }
        Ok(_) => metrics.maintenance_last_success.set(OffsetDateTime::now_utc().unix_timestamp()),
        Err(error) => {
            metrics.maintenance_failures.inc();
            if error.class() == ErrorClass::Unavailable {
                debug!(%error, "no housekeeping: the database is away");
            } else {
                warn!(%error, "housekeeping failed; it is tried again");
            }
        }
    }
    done
}

async fn maintain(
    store: &Store,
    retention: &Retention,
    metrics: &Metrics,
) -> Result<MaintenanceReport, StoreError> {
    // The database's clock: workers may differ, and a key must not go early
    // because the clock of one of them is fast.
    let now = store.with_timeout(async {
        inbox_partitions::database_now(&mut *store.connection().await?).await
    });
    let now = now.await?;
    let inbox = inbox_partitions::maintain(
        store,
        &inbox_partitions::InboxRetention { dedupe_window: retention.dedupe_window, now },
    )
    .await;
    let plan = partition_range::ReceiptsRetention {
        partition_span: retention.receipts_partition,
        premake: PREMAKE.max(retention.receipts_partition * 2),
        keep_for: retention.receipts,
        now: OffsetDateTime::now_utc(),
    };
    // Whatever became of the inbox.
    let receipts = store.with_timeout(receipts_partitions::maintain(store, &plan)).await;
    if let Ok(inbox) = &inbox {
        report_inbox(inbox, now, metrics);
    }
    if let Ok(receipts) = &receipts {
        report_receipts(receipts, metrics);
    }
    Ok(MaintenanceReport { inbox: inbox?, receipts: receipts? })
}

fn report_receipts(kept: &receipts_partitions::ReceiptsMaintenanceReport, metrics: &Metrics) {
    for table in &kept.created {
        info!(table, "a partition of the call log was made");
    }
    for table in &kept.blocked {
        warn!(
            table,
            "a partition of the call log cannot be made: too many receipts of its time lie in the \
             default partition, and stay there"
        );
    }
    for dropped in &kept.dropped {
        let receipts_partitions::DroppedPartition { table, receipts, moved: carried } = dropped;
        info!(table, receipts, carried, "a partition of the call log is past retention and gone");
        metrics.receipts_dropped.inc_by(u64::try_from(*receipts).unwrap_or_default());
    }
    for receipts_partitions::RetainedPartition { table, waiting: unsettled, recent: young } in
        &kept.retained
    {
        info!(
            table,
            unsettled,
            young,
            "a partition of the call log is past retention and kept: messages of it wait in a \
             queue, or for a person"
        );
    }
    metrics.receipts_dropped.inc_by(kept.default_deleted);
    metrics
        .receipts_partitions_retained
        .set(i64::try_from(kept.retained.len()).unwrap_or(i64::MAX));
}

fn report_inbox(
    kept: &inbox_partitions::InboxMaintenanceReport,
    now: OffsetDateTime,
    metrics: &Metrics,
) {
    let InboxStatus { partitions: generations, retained: held, remembered_since: since } =
        &kept.status;
    if let Some(generation) = kept.created {
        info!(generation, "a generation of the inbox was opened");
    }
    for generation in &kept.dropped {
        info!(generation, "a generation of the inbox is past the horizon and was dropped");
    }
    for held in held {
        info!(
            generation = held.hour,
            letters = held.dead_letters,
            "a generation of the inbox is past the horizon and kept: dead letters wait whose keys \
             are in it; replay or discard them"
        );
    }
    let gauge = |state: &str, count: usize| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        metrics.inbox_partitions.with_label_values(&[state]).set(count);
    };
    gauge("kept", generations.len().saturating_sub(held.len()));
    gauge("held", held.len());
    metrics.inbox_bytes.set(generations.iter().map(|generation| generation.bytes).sum());
    metrics.inbox_dedupe_window.set((now - *since).whole_seconds().max(0));
    metrics.inbox_partitions_dropped.inc_by(kept.dropped.len() as u64);
}
