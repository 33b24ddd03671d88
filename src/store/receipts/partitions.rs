//! The partitions of `receipts`: created in advance, and dropped after the retention time.
//!
//! Nothing depends on punctual maintenance, because a receipt without a partition goes to the
//! default partition. So every lock has a short time limit, and what does not get its lock is left
//! for the next run.

mod expiry;

use sqlx::{AssertSqlSafe, Executor as _};
use time::OffsetDateTime;
use uuid::Uuid;

use self::expiry::{delete_expired_rows, drop_partition};
use super::partition_range::{PartitionRange, ReceiptsRetention, lowest_id};
use crate::store::{Conn, ErrorClass, Store, StoreError, Tx};

/// Settings of each maintenance transaction. Writers queue behind a transaction that waits for a
/// lock on their table, so that wait must be short. Counting the rows of a partition may take long.
const SESSION_SETTINGS: &str = "set local lock_timeout = '500ms'; \
    set local statement_timeout = 0; set local idle_in_transaction_session_timeout = '30s'";
/// The storage parameters that the migration gives the first partitions, with the reasons there.
const STORAGE_PARAMETERS: &str = "autovacuum_vacuum_insert_scale_factor = 0, \
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0";
/// At most so many rows are moved between partitions, because writers wait meanwhile.
const MAX_MOVED_ROWS: i64 = 5_000;
/// Transactions in which receipts are deleted in one run.
const MAX_DELETE_BATCHES: u32 = 200;

/// The result of a maintenance run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptsMaintenanceReport {
    /// The partitions that were created.
    pub created: Vec<String>,
    /// The partitions that were not created: the default partition holds too many receipts of their
    /// time. Those stay there.
    pub blocked: Vec<String>,
    /// The partitions that were dropped.
    pub dropped: Vec<DroppedPartition>,
    /// The expired partitions that were not dropped, because of the receipts in them.
    pub retained: Vec<RetainedPartition>,
    /// How many receipts were deleted from the default partition.
    pub default_deleted: u64,
    /// Whether a lock was not available, or another worker was at it. The rest is left for the next
    /// run.
    pub is_busy: bool,
}

/// A partition that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPartition {
    /// Its table name.
    pub table: String,
    /// How many receipts were deleted with it.
    pub receipts: i64,
    /// How many receipts were moved to the default partition.
    pub moved: usize,
}

/// An expired partition that was not dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPartition {
    /// Its table name.
    pub table: String,
    /// The least number of receipts without a final outcome.
    pub waiting: usize,
    /// The least number of receipts that were received or processed within the retention time,
    /// whatever time their ids have.
    pub recent: usize,
}

/// Creates missing partitions, drops expired ones, and deletes expired receipts from the default
/// partition. Can run at any time and in several workers at once, and can be cancelled at any point.
///
/// # Errors
/// A database error, except for lock timeouts.
pub async fn maintain(
    store: &Store,
    retention: &ReceiptsRetention,
) -> Result<ReceiptsMaintenanceReport, StoreError> {
    let mut report = ReceiptsMaintenanceReport::default();
    match maintain_partitions(store, retention, &mut report).await {
        Ok(Some(())) => {}
        Ok(None) => report.is_busy = true,
        Err(error) if error.class() == ErrorClass::Contention => report.is_busy = true,
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// `None` here and below means that another worker maintains the partitions now.
async fn maintain_partitions(
    store: &Store,
    retention: &ReceiptsRetention,
    report: &mut ReceiptsMaintenanceReport,
) -> Result<Option<()>, StoreError> {
    if create_missing(store, retention, report).await?.is_none() {
        return Ok(None);
    }
    let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
    let database_now = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut *tx).await?;
    let partitions = list_partitions(&mut tx).await?;
    tx.rollback().await?;
    // A clock that is ahead by years would drop everything. So the worker's clock and the
    // database's clock must agree.
    let Some(cutoff) = retention.cutoff(retention.now.min(database_now)) else {
        return Ok(Some(()));
    };
    for partition in partitions.iter().filter(|partition| partition.range.until <= cutoff) {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        match drop_partition(&mut tx, partition, cutoff).await? {
            Ok(dropped) => {
                tx.commit().await?;
                report.dropped.push(dropped);
            }
            Err(retained) => {
                tx.rollback().await?;
                report.retained.push(retained);
            }
        }
    }
    for _ in 0..MAX_DELETE_BATCHES {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        let deleted = delete_expired_rows(&mut tx, cutoff).await?;
        tx.commit().await?;
        report.default_deleted += deleted;
        if deleted == 0 {
            break;
        }
    }
    Ok(Some(()))
}

/// Begins a transaction that only one worker can have at a time.
async fn begin_exclusive(store: &Store) -> Result<Option<Tx>, StoreError> {
    let mut tx = store.begin().await?;
    tx.execute(SESSION_SETTINGS).await?;
    let is_free = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtext('tallyhook receipts')) as "free!""#
    )
    .fetch_one(&mut *tx)
    .await?;
    if is_free {
        return Ok(Some(tx));
    }
    tx.rollback().await?;
    Ok(None)
}

/// An existing partition.
struct Partition {
    /// Its table name, quoted if necessary.
    table: String,
    from: Uuid,
    until: Uuid,
    range: PartitionRange,
}

/// Lists the partitions with a range, earliest first.
async fn list_partitions(conn: &mut Conn) -> Result<Vec<Partition>, StoreError> {
    let rows = sqlx::query!(
        r#"select name as "table!", from_id as "from!", until_id as "until!"
           from receipts_partitions order by from_id"#
    )
    .fetch_all(conn)
    .await?;
    let partitions = rows.into_iter().map(|row| {
        let range = PartitionRange::from_ids(row.from, row.until);
        Partition { table: row.table, from: row.from, until: row.until, range }
    });
    Ok(partitions.collect())
}

async fn create_missing(
    store: &Store,
    retention: &ReceiptsRetention,
    report: &mut ReceiptsMaintenanceReport,
) -> Result<Option<()>, StoreError> {
    let mut blocked: Vec<PartitionRange> = Vec::new();
    loop {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        // Read each time: another worker may have created some in between.
        let existing: Vec<PartitionRange> =
            list_partitions(&mut tx).await?.into_iter().map(|partition| partition.range).collect();
        let mut missing = retention.missing_ranges(&existing).into_iter();
        let Some(range) = missing.find(|range| !blocked.contains(range)) else {
            tx.rollback().await?;
            report.blocked = blocked.iter().map(PartitionRange::table_name).collect();
            return Ok(Some(()));
        };
        if create_partition(&mut tx, &range, retention.now).await? {
            tx.commit().await?;
            report.created.push(range.table_name());
        } else {
            tx.rollback().await?;
            blocked.push(range);
        }
    }
}

/// Creates a partition and moves receipts of its time from the default partition into it. Returns
/// `false` if those are too many.
async fn create_partition(
    conn: &mut Conn,
    range: &PartitionRange,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let (table, [from, until]) = (range.table_name(), [range.from, range.until].map(lowest_id));
    let create =
        format!("create table {table} (like receipts including all) with ({STORAGE_PARAMETERS})");
    conn.execute(AssertSqlSafe(create)).await?;
    // A concurrent insert of a receipt of this range into the default partition would fail. If the
    // time of the range has come, this lock keeps such inserts away.
    if range.from <= now {
        conn.execute("lock table only receipts in share mode").await?;
    }
    // Attaching takes this lock in any case, and searches the default partition for rows of the new
    // range. (`create table ... partition of` would lock the whole table.)
    conn.execute("lock table receipts_default in access exclusive mode").await?;
    let misplaced = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
            select from receipts_default where receipt_id >= $1 and receipt_id < $2 limit $3
        ) as misplaced"#,
        from,
        until,
        MAX_MOVED_ROWS + 1,
    )
    .fetch_one(&mut *conn)
    .await?;
    if misplaced > MAX_MOVED_ROWS {
        return Ok(false);
    }
    let move_rows = format!(
        "with misplaced as (
            delete from receipts_default where receipt_id >= $1 and receipt_id < $2 returning *
        )
        insert into {table} select * from misplaced"
    );
    sqlx::query(AssertSqlSafe(move_rows))
        .persistent(false)
        .bind(from)
        .bind(until)
        .execute(&mut *conn)
        .await?;
    conn.execute(AssertSqlSafe(format!(
        "alter table receipts attach partition {table} for values from ('{from}') to ('{until}')"
    )))
    .await?;
    Ok(true)
}
