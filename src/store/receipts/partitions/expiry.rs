//! Drops expired partitions, and deletes expired receipts from the default partition. Both keep the
//! sums of what they delete.

use sqlx::{AssertSqlSafe, Executor as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DroppedPartition, MAX_MOVED_ROWS, Partition, RetainedPartition};
use crate::store::{Conn, StoreError};

/// At most so many bytes of payload are moved.
const MAX_MOVED_BYTES: i64 = 16 * 1024 * 1024;
/// Receipts that are deleted from the default partition in one transaction.
const DELETE_BATCH_ROWS: i64 = 5_000;
/// True for a receipt without a final outcome: its message waits in a retry queue, or for an
/// operator. A discarded dead letter is final. A receipt that says `dead` and has no dead letter is
/// kept, so that `tallyhook audit` reports it.
const IS_WAITING: &str = "(receipt.outcome = 'retried' or receipt.outcome = 'dead' and not exists (
    select from dead_letters as dead_letter
    where dead_letter.receipt_id = receipt.receipt_id
        and dead_letter.state in ('discarded', 'resolved')))";

/// Drops a partition. A few receipts that must stay are moved to the default partition; if there are
/// many, the partition is retained.
pub(super) async fn drop_partition(
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
pub(super) async fn delete_expired_rows(
    conn: &mut Conn,
    cutoff: OffsetDateTime,
) -> Result<u64, StoreError> {
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
