//! The partitions of `receipts`: created in advance, and dropped after the retention time.
//!
//! Nothing depends on punctual maintenance, because a receipt without a partition goes to the
//! default partition. So every lock has a short time limit, and what does not get its lock is left
//! for the next run.

use sqlx::{AssertSqlSafe, Executor as _};
use time::OffsetDateTime;
use uuid::Uuid;

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
/// At most so many bytes of payload are moved.
const MAX_MOVED_BYTES: i64 = 16 * 1024 * 1024;
/// Receipts that are deleted from the default partition in one transaction.
const DELETE_BATCH_ROWS: i64 = 5_000;
/// Transactions in which receipts are deleted in one run.
const MAX_DELETE_BATCHES: u32 = 200;

/// True for a receipt without a final outcome: its message waits in a retry queue, or for an
/// operator. A discarded dead letter is final. A receipt that says `dead` and has no dead letter is
/// kept, so that `tallyhook audit` reports it.
const IS_WAITING: &str = "(receipt.outcome = 'retried' or receipt.outcome = 'dead' and not exists (
    select from dead_letters as letter
    where letter.receipt_id = receipt.receipt_id and letter.state in ('discarded', 'resolved')))";

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

/// Drops a partition. A few receipts that must stay are moved to the default partition; if there are
/// many, the partition is retained.
async fn drop_partition(
    conn: &mut Conn,
    partition: &Partition,
    cutoff: OffsetDateTime,
) -> Result<Result<DroppedPartition, RetainedPartition>, StoreError> {
    let Partition { table, from, until, .. } = partition;
    // While the rows are counted, only writers of this very partition wait, and late writes are
    // rare. The lock of the whole table comes after that.
    conn.execute(AssertSqlSafe(format!("lock table {table} in share mode"))).await?;
    let staying = format!(
        "select receipt_id, {IS_WAITING} as is_waiting,
            coalesce(pg_column_size(payload), 0)::bigint as bytes
         from {table} as receipt
         where {IS_WAITING} or received_at >= $1 or processed_at >= $1
         limit $2"
    );
    let staying: Vec<(Uuid, bool, i64)> = sqlx::query_as(AssertSqlSafe(staying))
        .persistent(false)
        .bind(cutoff)
        .bind(MAX_MOVED_ROWS + 1)
        .fetch_all(&mut *conn)
        .await?;
    let bytes: i64 = staying.iter().map(|(_, _, bytes)| bytes).sum();
    let rows = i64::try_from(staying.len()).unwrap_or(i64::MAX);
    if rows > MAX_MOVED_ROWS || bytes > MAX_MOVED_BYTES {
        let waiting = staying.iter().filter(|(_, is_waiting, _)| *is_waiting).count();
        let recent = staying.len() - waiting;
        return Ok(Err(RetainedPartition { table: table.clone(), waiting, recent }));
    }
    let staying: Vec<Uuid> = staying.into_iter().map(|(id, _, _)| id).collect();
    let count_dropped = counting_statement(
        &format!(
            "select outcome, write_kind, import_id, processed_at from {table} as receipt
             where not exists (
                select from unnest($4::uuid[]) as staying (receipt_id)
                where staying.receipt_id = receipt.receipt_id)"
        ),
        "insert into receipts_dropped_partitions (
            name, ids, applied, duplicate, stale, ignored, dead, rejected)
         select $1::text, receipt_id_range($2::uuid, $3::uuid),
            applied, duplicate, stale, ignored, dead, rejected
         from total
         returning applied + duplicate + stale + ignored + dead + rejected",
    );
    let receipts: i64 = sqlx::query_scalar(AssertSqlSafe(count_dropped))
        .persistent(false)
        .bind(table)
        .bind(from)
        .bind(until)
        .bind(&staying)
        .fetch_one(&mut *conn)
        .await?;
    // From here to the commit, all readers and writers of receipts wait. That is short: dropping a
    // table takes as long as unlinking its files.
    conn.execute("set local statement_timeout = '10s'").await?;
    let detach = format!("alter table receipts detach partition {table}");
    conn.execute(AssertSqlSafe(detach)).await?;
    if !staying.is_empty() {
        let move_rows =
            format!("insert into receipts select * from {table} where receipt_id = any($1)");
        sqlx::query(AssertSqlSafe(move_rows))
            .persistent(false)
            .bind(&staying)
            .execute(&mut *conn)
            .await?;
    }
    conn.execute(AssertSqlSafe(format!("drop table {table}"))).await?;
    Ok(Ok(DroppedPartition { table: table.clone(), receipts, moved: staying.len() }))
}

/// Deletes a batch of expired receipts from the default partition, and returns how many.
async fn delete_expired_rows(conn: &mut Conn, cutoff: OffsetDateTime) -> Result<u64, StoreError> {
    let delete_and_count = counting_statement(
        &format!(
            "delete from receipts_default where receipt_id in (
                select receipt_id from receipts_default as receipt
                where received_at < $1 and processed_at < $1 and not {IS_WAITING}
                order by received_at
                limit $2
                for update of receipt skip locked)
             returning outcome, write_kind, import_id, processed_at"
        ),
        "update receipts_dropped_partitions as dropped set
            applied = dropped.applied + total.applied,
            duplicate = dropped.duplicate + total.duplicate,
            stale = dropped.stale + total.stale,
            ignored = dropped.ignored + total.ignored,
            dead = dropped.dead + total.dead,
            rejected = dropped.rejected + total.rejected,
            processed_before = greatest(dropped.processed_before, $1),
            dropped_at = now()
         from total
         where dropped.ids is null
         returning total.applied + total.duplicate + total.stale + total.ignored + total.dead
            + total.rejected",
    );
    let deleted: i64 = sqlx::query_scalar(AssertSqlSafe(delete_and_count))
        .bind(cutoff)
        .bind(DELETE_BATCH_ROWS)
        .fetch_one(conn)
        .await?;
    Ok(u64::try_from(deleted).unwrap_or_default())
}

/// A statement that counts the receipts that `deleted` returns: it adds them to their imports, and
/// provides their sums as `total` to the statement `record`.
fn counting_statement(deleted: &str, record: &str) -> String {
    format!(
        "with deleted as ({deleted}), counted as (
            select outcome, write_kind, import_id,
                -- All rows of one transaction have the same time. Only imports use it.
                case when import_id is not null then processed_at end as processed_at,
                count(*) as receipts
            from deleted group by 1, 2, 3, 4
        ), total as (
            select
                coalesce(sum(receipts) filter (where outcome = 'applied'), 0)::bigint as applied,
                coalesce(sum(receipts) filter (where outcome = 'duplicate'), 0)::bigint
                    as duplicate,
                coalesce(sum(receipts) filter (where outcome = 'stale'), 0)::bigint as stale,
                coalesce(sum(receipts) filter (where outcome = 'ignored'), 0)::bigint as ignored,
                coalesce(sum(receipts) filter (where outcome = 'dead'), 0)::bigint as dead,
                coalesce(sum(receipts) filter (where outcome = 'rejected'), 0)::bigint as rejected
            from counted
        ), imported as (
            select import_id,
                coalesce(sum(receipts) filter (
                    where outcome = 'applied' and write_kind = 'created'), 0) as created,
                coalesce(sum(receipts) filter (
                    where outcome = 'applied' and write_kind is distinct from 'created'), 0)
                    as updated,
                coalesce(sum(receipts) filter (where outcome = 'duplicate'), 0) as duplicate,
                coalesce(sum(receipts) filter (where outcome = 'stale'), 0) as stale,
                coalesce(sum(receipts) filter (where outcome = 'ignored'), 0) as ignored,
                coalesce(sum(receipts) filter (where outcome = 'dead'), 0) as dead,
                coalesce(sum(receipts) filter (where outcome = 'rejected'), 0) as rejected,
                count(distinct processed_at)
                    filter (where outcome in ('applied', 'duplicate', 'stale', 'ignored'))
                    as batches,
                max(processed_at) as last_at
            from counted where import_id is not null group by import_id
        ), updated_imports as (
            update imports as import set
                dropped_created = dropped_created + imported.created,
                dropped_updated = dropped_updated + imported.updated,
                dropped_duplicate = dropped_duplicate + imported.duplicate,
                dropped_stale = dropped_stale + imported.stale,
                dropped_ignored = dropped_ignored + imported.ignored,
                dropped_dead = dropped_dead + imported.dead,
                dropped_rejected = dropped_rejected + imported.rejected,
                dropped_batches = dropped_batches + imported.batches,
                dropped_last_at = greatest(dropped_last_at, imported.last_at)
            from imported where import.import_id = imported.import_id
        )
        {record}"
    )
}
