//! Creates upcoming partitions of the inbox and of `receipts`, and drops expired
//! ones. Every worker process runs it; an advisory lock lets only one at a time
//! do the work. It needs only the database, and waits while that is unavailable.

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

/// How often it runs, 20 % more or less, so that workers that were started
/// together do not meet.
const INTERVAL: Duration = Duration::from_mins(5);
/// How far ahead partitions of `receipts` are created. Without maintenance for
/// longer, new receipts go to the default partition.
const PREMAKE: Duration = Duration::from_hours(28 * 24);

/// What one run did.
#[derive(Clone, Debug)]
pub struct MaintenanceReport {
    /// The partitions of the inbox.
    pub inbox: inbox_partitions::InboxMaintenanceReport,
    /// The partitions of `receipts`.
    pub receipts: receipts_partitions::ReceiptsMaintenanceReport,
}

impl MaintenanceReport {
    /// Whether a lock was not granted in time and the next run must go on.
    fn is_incomplete(&self) -> bool {
        self.inbox.is_deferred || self.receipts.is_busy
    }
}

/// Runs at once and then every few minutes until `stop` is cancelled. The
/// statement timeout of the store must be an hour: a partition of the inbox is
/// vacuumed when the next one replaces it.
pub async fn run(store: Store, retention: Retention, metrics: Metrics, stop: CancellationToken) {
    metrics.maintenance_last_success.set(OffsetDateTime::now_utc().unix_timestamp());
    let job = async {
        loop {
            // The result is logged; the next run tries again.
            drop(run_once(&store, &retention, &metrics).await);
            tokio::time::sleep(INTERVAL.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    };
    tokio::select! {
        () = job => {}
        () = stop.cancelled() => {}
    }
    store.close().await;
}

/// Runs once.
///
/// # Errors
/// The error of PostgreSQL, which is logged and counted.
pub async fn run_once(
    store: &Store,
    retention: &Retention,
    metrics: &Metrics,
) -> Result<MaintenanceReport, StoreError> {
    let result = maintain(store, retention, metrics).await;
    match &result {
        Ok(report) if report.is_incomplete() => {
            info!("a table is locked; maintenance goes on in the next run");
            metrics.maintenance_failures.inc();
        }
        Ok(_) => metrics.maintenance_last_success.set(OffsetDateTime::now_utc().unix_timestamp()),
        Err(error) => {
            metrics.maintenance_failures.inc();
            if error.class() == ErrorClass::Unavailable {
                debug!(%error, "no maintenance: the database is unavailable");
            } else {
                warn!(%error, "maintenance failed and is tried again");
            }
        }
    }
    result
}

async fn maintain(
    store: &Store,
    retention: &Retention,
    metrics: &Metrics,
) -> Result<MaintenanceReport, StoreError> {
    // The clock of the database: a worker whose clock is fast must not drop
    // keys early.
    let now =
        store.with_connection(async |conn| inbox_partitions::database_now(conn).await).await?;
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
    // Also if the inbox failed.
    let receipts = store.with_timeout(receipts_partitions::maintain(store, &plan)).await;
    if let Ok(inbox) = &inbox {
        report_inbox(inbox, now, metrics);
    }
    if let Ok(receipts) = &receipts {
        report_receipts(receipts, metrics);
    }
    Ok(MaintenanceReport { inbox: inbox?, receipts: receipts? })
}

fn report_receipts(report: &receipts_partitions::ReceiptsMaintenanceReport, metrics: &Metrics) {
    for table in &report.created {
        info!(table, "a partition of receipts was created");
    }
    for table in &report.blocked {
        warn!(
            table,
            "a partition of receipts cannot be created: the default partition has too many \
             receipts of its time, and keeps them"
        );
    }
    for dropped in &report.dropped {
        let receipts_partitions::DroppedPartition { table, receipts, moved } = dropped;
        info!(table, receipts, moved, "an expired partition of receipts was dropped");
        metrics.receipts_dropped.inc_by(u64::try_from(*receipts).unwrap_or_default());
    }
    for receipts_partitions::RetainedPartition { table, waiting, recent } in &report.retained {
        info!(
            table,
            waiting,
            recent,
            "an expired partition of receipts is retained: its messages wait in a queue or for an \
             operator"
        );
    }
    metrics.receipts_dropped.inc_by(report.default_deleted);
    metrics
        .receipts_partitions_retained
        .set(i64::try_from(report.retained.len()).unwrap_or(i64::MAX));
}

fn report_inbox(
    report: &inbox_partitions::InboxMaintenanceReport,
    now: OffsetDateTime,
    metrics: &Metrics,
) {
    let InboxStatus { partitions, retained, remembered_since } = &report.status;
    if let Some(partition_hour) = report.created {
        info!(partition_hour, "a partition of the inbox was created");
    }
    for partition_hour in &report.dropped {
        info!(partition_hour, "an expired partition of the inbox was dropped");
    }
    for partition in retained {
        info!(
            partition_hour = partition.hour,
            dead_letters = partition.dead_letters,
            "an expired partition of the inbox is retained: it has the keys of open dead letters; \
             replay or discard them"
        );
    }
    let gauge = |state: &str, count: usize| {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        metrics.inbox_partitions.with_label_values(&[state]).set(count);
    };
    gauge("active", partitions.len().saturating_sub(retained.len()));
    gauge("retained", retained.len());
    metrics.inbox_bytes.set(partitions.iter().map(|partition| partition.bytes).sum());
    metrics.inbox_dedupe_window.set((now - *remembered_since).whole_seconds().max(0));
    metrics.inbox_partitions_dropped.inc_by(report.dropped.len() as u64);
}
