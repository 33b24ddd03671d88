//! Partitions of the call log: made ahead of their time, dropped when they
//! are past retention.
//!
//! Nothing depends on it being done in time: what lies in no partition goes to
//! the default one. So every lock is asked for only for a moment, and what
//! does not get it is left for the next time.

use sqlx::{AssertSqlSafe, Executor as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::partition_range::{PartitionRange, ReceiptsRetention, lowest_id};
use crate::store::{Conn, ErrorClass, Store, StoreError, Tx};

/// What holds for each of these transactions. Writers wait behind whoever
/// waits for a lock on their table, so that must be short; to count what a
/// partition holds takes as long as it takes.
const SESSION_SETTINGS: &str = "set local lock_timeout = '500ms'; set local statement_timeout = 0; \
    set local idle_in_transaction_session_timeout = '30s'";
/// See the migration that partitioned the table.
const STORAGE_PARAMETERS: &str = "autovacuum_vacuum_insert_scale_factor = 0, \
    autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0";
/// So many rows, of so many bytes together, are taken from one partition to
/// another while writers wait.
const MAX_MOVED_ROWS: i64 = 5_000;
const MAX_MOVED_BYTES: i64 = 16 * 1024 * 1024;
/// Receipts that are deleted from the default partition in one transaction,
/// and how often in a row.
const DELETE_BATCH_ROWS: i64 = 5_000;
const MAX_DELETE_BATCHES: u32 = 200;

/// A receipt that has no final outcome yet: its message waits in a queue, or
/// for a person. A dead letter that was discarded is final; one that nobody
/// knows must be seen by `tallyhook audit`.
const IS_WAITING: &str = "(receipt.outcome = 'retried' or receipt.outcome = 'dead' and not exists (
    select from dead_letters as letter
    where letter.receipt_id = receipt.receipt_id and letter.state in ('discarded', 'resolved')))";

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptsMaintenanceReport {
    /// The partitions that were made.
    pub created: Vec<String>,
    /// Those that could not be: too many receipts of their time lie in the
    /// default partition, and stay there.
    pub blocked: Vec<String>,
    /// Those that are gone.
    pub dropped: Vec<DroppedPartition>,
    /// Those that are past retention and stay, for what is in them.
    pub retained: Vec<RetainedPartition>,
    /// Receipts that were deleted from the default partition.
    pub default_deleted: u64,
    /// Somebody was in the way, or another worker is at it: what is not done
    /// yet is done the next time.
    pub is_busy: bool,
}

/// A partition that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPartition {
    /// Its name.
    pub table: String,
    /// How many receipts went with it.
    pub receipts: i64,
    /// How many had to stay: they are in the default partition now.
    pub moved: usize,
}

/// A partition that has to stay for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPartition {
    /// Its name.
    pub table: String,
    /// Receipts that wait, in a queue or for a person; at least so many.
    pub waiting: usize,
    /// Receipts that are not past retention, whatever time their ids tell; at
    /// least so many.
    pub recent: usize,
}

/// Makes the partitions that are missing and lets go of what is past
/// retention. May be called by several workers and at any time: what is done
/// is not done again. It may be given up in the middle.
///
/// # Errors
/// What the database says; not that somebody was in the way.
pub async fn maintain(
    store: &Store,
    plan: &ReceiptsRetention,
) -> Result<ReceiptsMaintenanceReport, StoreError> {
    let mut kept = ReceiptsMaintenanceReport::default();
    match maintain_partitions(store, plan, &mut kept).await {
        Ok(Some(())) => {}
        Ok(None) => kept.is_busy = true,
        Err(error) if error.class() == ErrorClass::Contention => kept.is_busy = true,
        Err(error) => return Err(error),
    }
    Ok(kept)
}

/// `None`, as from everything here: another worker is at it.
async fn maintain_partitions(
    store: &Store,
    plan: &ReceiptsRetention,
    kept: &mut ReceiptsMaintenanceReport,
) -> Result<Option<()>, StoreError> {
    if create_missing(store, plan, kept).await?.is_none() {
        return Ok(None);
    }
    let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
    let clock = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&mut *tx).await?;
    let known = list_partitions(&mut tx).await?;
    tx.rollback().await?;
    // A clock that is ahead by years would let go of everything: two of them
    // must agree.
    let Some(cutoff) = plan.cutoff(plan.now.min(clock)) else { return Ok(Some(())) };
    for part in known.iter().filter(|part| part.range.until <= cutoff) {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        match drop_partition(&mut tx, part, cutoff).await? {
            Ok(dropped) => {
                tx.commit().await?;
                kept.dropped.push(dropped);
            }
            Err(held) => {
                tx.rollback().await?;
                kept.retained.push(held);
            }
        }
    }
    for _ in 0..MAX_DELETE_BATCHES {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        let deleted = delete_expired_rows(&mut tx, cutoff).await?;
        tx.commit().await?;
        kept.default_deleted += deleted;
        if deleted == 0 {
            break;
        }
    }
    Ok(Some(()))
}

/// A transaction that nobody else has at this moment; `None` if somebody has.
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

/// A partition that is there.
struct Partition {
    /// As it is written in a statement.
    table: String,
    from: Uuid,
    until: Uuid,
    range: PartitionRange,
}

/// The partitions of a time, earliest first.
async fn list_partitions(conn: &mut Conn) -> Result<Vec<Partition>, StoreError> {
    let rows = sqlx::query!(
        r#"select name as "table!", from_id as "from!", until_id as "until!"
           from receipts_partitions order by from_id"#
    )
    .fetch_all(conn)
    .await?;
    let part = |(table, from, until)| Partition {
        table,
        from,
        until,
        range: PartitionRange::from_ids(from, until),
    };
    Ok(rows.into_iter().map(|row| part((row.table, row.from, row.until))).collect())
}

async fn create_missing(
    store: &Store,
    plan: &ReceiptsRetention,
    kept: &mut ReceiptsMaintenanceReport,
) -> Result<Option<()>, StoreError> {
    let mut crowded: Vec<PartitionRange> = Vec::new();
    loop {
        let Some(mut tx) = begin_exclusive(store).await? else { return Ok(None) };
        // Looked up each time: another worker may have made some in between.
        let known: Vec<PartitionRange> =
            list_partitions(&mut tx).await?.into_iter().map(|part| part.range).collect();
        let missing = plan.missing_ranges(&known).into_iter().find(|span| !crowded.contains(span));
        let Some(span) = missing else {
            tx.rollback().await?;
            kept.blocked = crowded.iter().map(PartitionRange::table_name).collect();
            return Ok(Some(()));
        };
        if create_partition(&mut tx, &span, plan.now).await? {
            tx.commit().await?;
            kept.created.push(span.table_name());
        } else {
            tx.rollback().await?;
            crowded.push(span);
        }
    }
}

/// Makes a partition. What came before it went to the default one, and is
/// taken over; `false` if that is too much.
async fn create_partition(
    conn: &mut Conn,
    span: &PartitionRange,
    now: OffsetDateTime,
) -> Result<bool, StoreError> {
    let (table, [from, until]) = (span.table_name(), [span.from, span.until].map(lowest_id));
    let create =
        format!("create table {table} (like receipts including all) with ({STORAGE_PARAMETERS})");
    conn.execute(AssertSqlSafe(create)).await?;
    // Whoever is about to write to the default partition what belongs into this
    // one would be refused: so nobody may be, if the time has come.
    if span.from <= now {
        conn.execute("lock table only receipts in share mode").await?;
    }
    // Attaching asks for this one in any case, and searches the partition for
    // what belongs into the new one. (`create table ... partition of` would
    // lock out everybody from the whole.)
    conn.execute("lock table receipts_default in access exclusive mode").await?;
    let strays = sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
            select from receipts_default where receipt_id >= $1 and receipt_id < $2 limit $3
        ) as stray"#,
        from,
        until,
        MAX_MOVED_ROWS + 1,
    )
    .fetch_one(&mut *conn)
    .await?;
    if strays > MAX_MOVED_ROWS {
        return Ok(false);
    }
    let take_over = format!(
        "with stray as (
            delete from receipts_default where receipt_id >= $1 and receipt_id < $2 returning *
        )
        insert into {table} select * from stray"
    );
    sqlx::query(AssertSqlSafe(take_over))
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

/// Drops a partition. A few receipts that have to stay are put into the
/// default one; for many, the partition stays.
async fn drop_partition(
    conn: &mut Conn,
    part: &Partition,
    cutoff: OffsetDateTime,
) -> Result<Result<DroppedPartition, RetainedPartition>, StoreError> {
    let Partition { table, from, until, .. } = part;
    // Only who writes to this very partition waits while it is counted: what
    // comes that late is rare. It is counted before the whole is locked.
    conn.execute(AssertSqlSafe(format!("lock table {table} in share mode"))).await?;
    let staying = format!(
        "select receipt_id, {IS_WAITING} as unsettled,
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
    if i64::try_from(staying.len()).unwrap_or(i64::MAX) > MAX_MOVED_ROWS || bytes > MAX_MOVED_BYTES
    {
        let unsettled = staying.iter().filter(|(_, unsettled, _)| *unsettled).count();
        let young = staying.len() - unsettled;
        return Ok(Err(RetainedPartition {
            table: table.clone(),
            waiting: unsettled,
            recent: young,
        }));
    }
    let staying: Vec<Uuid> = staying.into_iter().map(|(id, _, _)| id).collect();
    let remember = counting_statement(
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
    let receipts: i64 = sqlx::query_scalar(AssertSqlSafe(remember))
        .persistent(false)
        .bind(table)
        .bind(from)
        .bind(until)
        .bind(&staying)
        .fetch_one(&mut *conn)
        .await?;
    // From here on nobody reads or writes the call log until the commit, which
    // is not far: a table is dropped as fast as its files are unlinked.
    conn.execute("set local statement_timeout = '10s'").await?;
    let detach = format!("alter table receipts detach partition {table}");
    conn.execute(AssertSqlSafe(detach)).await?;
    if !staying.is_empty() {
        let carry =
            format!("insert into receipts select * from {table} where receipt_id = any($1)");
        sqlx::query(AssertSqlSafe(carry))
            .persistent(false)
            .bind(&staying)
            .execute(&mut *conn)
            .await?;
    }
    conn.execute(AssertSqlSafe(format!("drop table {table}"))).await?;
    Ok(Ok(DroppedPartition { table: table.clone(), receipts, moved: staying.len() }))
}

/// Deletes some of what is past retention in the default partition; how many.
async fn delete_expired_rows(conn: &mut Conn, cutoff: OffsetDateTime) -> Result<u64, StoreError> {
    let remember = counting_statement(
        &format!(
            "delete from receipts_default where receipt_id in (
                select receipt_id from receipts_default as receipt
                where received_at < $1 and processed_at < $1 and not {IS_WAITING}
                order by received_at
                limit $2
                for update of receipt skip locked)
             returning outcome, write_kind, import_id, processed_at"
        ),
        "update receipts_dropped_partitions as past set
            applied = past.applied + total.applied,
            duplicate = past.duplicate + total.duplicate,
            stale = past.stale + total.stale,
            ignored = past.ignored + total.ignored,
            dead = past.dead + total.dead,
            rejected = past.rejected + total.rejected,
            processed_before = greatest(past.processed_before, $1),
            dropped_at = now()
         from total
         where past.ids is null
         returning total.applied + total.duplicate + total.stale + total.ignored + total.dead
            + total.rejected",
    );
    let deleted: i64 = sqlx::query_scalar(AssertSqlSafe(remember))
        .bind(cutoff)
        .bind(DELETE_BATCH_ROWS)
        .fetch_one(conn)
        .await?;
    Ok(u64::try_from(deleted).unwrap_or_default())
}

/// A statement that counts what `gone` gives: for the imports it was of, and
/// in `total` for a last part that remembers it.
fn counting_statement(gone: &str, last: &str) -> String {
    format!(
        "with gone as ({gone}), counted as (
            select outcome, write_kind, import_id,
                -- One transaction has one; nobody asks but for imports.
                case when import_id is not null then processed_at end as processed_at,
                count(*) as receipts
            from gone group by 1, 2, 3, 4
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
        ), remembered as (
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
        {last}"
    )
}
