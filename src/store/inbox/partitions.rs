//! The partitions of the inbox. One is active; the others are retained and only read. The
//! maintenance job creates the next partition in time and drops those whose keys are all older than
//! the dedupe window. Nothing else deletes processed keys.
//!
//! The number of partitions for one dedupe window was measured. Every claim searches all partitions,
//! at random places. With 50 million keys on record, a retained partition adds about 3 ms to a batch
//! of 500 claims, however few of the keys it holds. (With an empty inbox, a batch takes 5 ms.) A new
//! key goes to a random place of the active partition; if that holds all 50 million keys, this costs
//! 8 ms and ten times the WAL. Fewer partitions also keep keys longer than necessary. Two partitions
//! for one window are the compromise: two retained and one active, at most 1.5 times the window. For
//! the same reason, time decides when the next partition is created, and not the number of keys: a
//! flood of events would create many partitions, and each claim would search all of them.

#[cfg(test)]
mod tests;

use std::time::Duration;

use sqlx::Executor as _;
use time::OffsetDateTime;

use crate::store::{Conn, Store, StoreError, Tx};

/// How many partitions cover one dedupe window.
pub const PARTITIONS_PER_WINDOW: u32 = 2;

/// How long a claim may wait for a partition to be created or dropped, which in turn waits for
/// claims that are under way.
const LOCK_SETTINGS: &str = "set local lock_timeout = '300ms'; \
    set local idle_in_transaction_session_timeout = '5s'";

/// SQLSTATE after `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// SQLSTATE for a table that does not exist.
const UNDEFINED_TABLE: &str = "42P01";

const HOUR: Duration = Duration::from_hours(1);

/// How long keys are kept.
#[derive(Clone, Copy, Debug)]
pub struct InboxRetention {
    /// The dedupe window; `None` keeps keys forever.
    pub dedupe_window: Option<Duration>,
    /// The current time of a clock that all workers share: the database's.
    pub now: OffsetDateTime,
}

/// A partition of the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxPartition {
    /// The hour since 1970 in which it was created; its name.
    pub hour: i32,
    /// Whether it takes new keys.
    pub is_active: bool,
    /// Its size on disk, index included.
    pub bytes: i64,
    /// Its table name, quoted if necessary.
    table: String,
    needs_vacuum: bool,
}

/// A partition that is older than the dedupe window and cannot be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedInboxPartition {
    /// The partition's hour.
    pub hour: i32,
    /// How many dead letters can be replayed whose key it holds. Without the key, a replay would
    /// apply an event again that was processed.
    pub dead_letters: i64,
}

/// The result of a maintenance run.
#[derive(Clone, Debug)]
pub struct InboxMaintenanceReport {
    /// The partitions after the run.
    pub status: InboxStatus,
    /// The hour of the partition that was created.
    pub created: Option<i32>,
    /// The hours of the partitions that were dropped.
    pub dropped: Vec<i32>,
    /// Whether something was left for the next run, because claims held their locks too long.
    pub is_deferred: bool,
}

/// The partitions of the inbox.
#[derive(Clone, Debug)]
pub struct InboxStatus {
    /// All partitions, oldest first.
    pub partitions: Vec<InboxPartition>,
    /// Those that are older than the dedupe window and cannot be dropped.
    pub retained: Vec<RetainedInboxPartition>,
    /// All keys that were processed since then are in the inbox.
    pub remembered_since: OffsetDateTime,
}

/// The result of an operation that needs an exclusive lock on the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// The operation was done.
    Done,
    /// Another worker does it or did it.
    HeldElsewhere,
    /// Claims held their locks longer than the time limit.
    TimedOut,
}

/// Creates the next partition if it is due, drops expired ones, and vacuums those that are not
/// active any more. Can run at any time and in several workers at once.
///
/// # Errors
/// A database error; the steps before it remain done.
pub async fn maintain(
    store: &Store,
    retention: &InboxRetention,
) -> Result<InboxMaintenanceReport, StoreError> {
    let mut created = None;
    let mut is_deferred = false;
    if let Some(next) = next_due(&load_status(store, retention).await?.partitions, retention) {
        match create_partition(store, next).await? {
            LockOutcome::Done => created = Some(next),
            LockOutcome::HeldElsewhere => {}
            LockOutcome::TimedOut => is_deferred = true,
        }
    }
    let InboxStatus { partitions, retained, .. } = load_status(store, retention).await?;
    let mut dropped = Vec::new();
    for (partition, processed_before) in expired(&partitions, retention) {
        if retained.iter().any(|retained| retained.hour == partition.hour) {
            continue;
        }
        match drop_partition(store, partition, processed_before).await? {
            LockOutcome::Done => dropped.push(partition.hour),
            LockOutcome::HeldElsewhere => {}
            LockOutcome::TimedOut => is_deferred = true,
        }
    }
    let status = load_status(store, retention).await?;
    for partition in &status.partitions {
        if partition.needs_vacuum && !partition.is_active {
            vacuum_freeze(store, partition).await?;
        }
    }
    Ok(InboxMaintenanceReport { status, created, dropped, is_deferred })
}

async fn load_status(store: &Store, retention: &InboxRetention) -> Result<InboxStatus, StoreError> {
    store.with_connection(async |conn| status(conn, retention).await).await
}

/// Reads the partitions of the inbox. An expired partition that is not retained is about to be
/// dropped.
///
/// # Errors
/// A database error.
pub async fn status(
    conn: &mut Conn,
    retention: &InboxRetention,
) -> Result<InboxStatus, StoreError> {
    let partitions = list_partitions(conn).await?;
    let mut retained = Vec::new();
    for (InboxPartition { hour, .. }, _) in expired(&partitions, retention) {
        let dead_letters = count_replayable_dead_letters(conn, *hour).await?;
        if dead_letters > 0 {
            retained.push(RetainedInboxPartition { hour: *hour, dead_letters });
        }
    }
    let remembered_since = match remembered_since(conn).await? {
        Some(since) => since,
        None => hour_start(partitions.first().map_or(0, |oldest| oldest.hour)),
    };
    Ok(InboxStatus { partitions, retained, remembered_since })
}

/// The hour of the partition that is to be created now, if one is due.
fn next_due(partitions: &[InboxPartition], retention: &InboxRetention) -> Option<i32> {
    // If keys are kept forever, another partition has no use: none is ever dropped.
    let interval = (retention.dedupe_window? / PARTITIONS_PER_WINDOW).max(HOUR);
    let active = partitions.iter().rfind(|partition| partition.is_active)?;
    let next = hour_of(retention.now);
    (hour_start(next) - hour_start(active.hour) >= interval).then_some(next)
}

/// The partitions whose keys are all older than the dedupe window, each with the time before which
/// its keys were processed.
fn expired<'a>(
    partitions: &'a [InboxPartition],
    retention: &InboxRetention,
) -> impl Iterator<Item = (&'a InboxPartition, OffsetDateTime)> {
    let cutoff = retention.dedupe_window.map(|window| retention.now - window);
    partitions.windows(2).filter_map(move |pair| {
        let [partition, next] = pair else { return None };
        // The next partition became active at some time within its hour.
        let processed_before = hour_start(next.hour) + HOUR;
        cutoff
            .is_some_and(|cutoff| processed_before <= cutoff)
            .then_some((partition, processed_before))
    })
}

/// The hour since 1970.
fn hour_of(time: OffsetDateTime) -> i32 {
    let hours = time.unix_timestamp().div_euclid(i64::from(3600_u32));
    i32::try_from(hours).unwrap_or(i32::MAX)
}

fn hour_start(hour: i32) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::hours(i64::from(hour))
}

/// Lists all partitions, oldest first.
async fn list_partitions(conn: &mut Conn) -> Result<Vec<InboxPartition>, StoreError> {
    Ok(sqlx::query_as!(
        InboxPartition,
        r#"
        -- Materialized, so that the bound is read once: a partition that is being dropped may lose
        -- it at any time.
        with partitions as materialized (
            select part.*,
                substring(pg_get_expr(part.relpartbound, part.oid) from '\d+')::integer as hour
            from pg_inherits
            join pg_class as part on part.oid = inhrelid
            where inhparent = 'inbox'::regclass
        )
        select hour as "hour!", oid::regclass::text as "table!",
            hour = (
                select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
                where adrelid = 'inbox'::regclass) as "is_active!",
            coalesce(pg_total_relation_size(oid), 0) as "bytes!",
            -- A negative number of tuples: never vacuumed.
            reltuples < 0 or relallvisible < relpages as "needs_vacuum!"
        from partitions
        where hour is not null
        order by hour
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// Reads the database's clock.
///
/// # Errors
/// A database error.
pub async fn database_now(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(conn).await?)
}

/// The time since which all processed keys are in the inbox. `None` if no partition was ever
/// dropped.
///
/// # Errors
/// A database error.
pub async fn remembered_since(conn: &mut Conn) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(sqlx::query_scalar!("select max(processed_before) from inbox_dropped_partitions")
        .fetch_one(conn)
        .await?)
}

/// Counts the dead letters that can be replayed and whose key is in a partition: another copy of
/// the event was processed, or an event that contradicts it.
async fn count_replayable_dead_letters(conn: &mut Conn, hour: i32) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from dead_letters as dead_letter
        where dead_letter.state in ('open', 'replayed') and dead_letter.delivery_id is null
          and exists (
            select from inbox
            where inbox.partition_hour = $1
              -- As `EventKey::inbox_id` computes it.
              and inbox.key = encode(
                substring(sha256(convert_to(dead_letter.event_key, 'UTF8')) for 16), 'hex')::uuid)
        "#,
        hour
    )
    .fetch_one(conn)
    .await?)
}

/// Creates a partition and makes it active, unless it or a later one exists.
///
/// # Errors
/// A database error; then nothing has changed.
pub async fn create_partition(store: &Store, hour: i32) -> Result<LockOutcome, StoreError> {
    with_exclusive_lock(store, async |tx| {
        if list_partitions(tx).await?.iter().any(|partition| partition.hour >= hour) {
            return Ok(LockOutcome::HeldElsewhere);
        }
        let ddl = format!(
            "create table inbox_p{hour} partition of inbox (primary key (key))
                 for values in ({hour})
                 with (autovacuum_freeze_min_age = 0, vacuum_truncate = false);
             alter table only inbox alter column partition_hour set default {hour}"
        );
        tx.execute(sqlx::AssertSqlSafe(ddl)).await?;
        Ok(LockOutcome::Done)
    })
    .await
}

/// Drops a partition, unless another worker has dropped it.
async fn drop_partition(
    store: &Store,
    partition: &InboxPartition,
    processed_before: OffsetDateTime,
) -> Result<LockOutcome, StoreError> {
    with_exclusive_lock(store, async |tx| {
        if !list_partitions(tx).await?.iter().any(|existing| existing.hour == partition.hour) {
            return Ok(LockOutcome::HeldElsewhere);
        }
        sqlx::query!(
            "insert into inbox_dropped_partitions (partition_hour, processed_before)
             values ($1, $2)",
            partition.hour,
            processed_before
        )
        .execute(&mut **tx)
        .await?;
        tx.execute(sqlx::AssertSqlSafe(format!("drop table {}", partition.table))).await?;
        Ok(LockOutcome::Done)
    })
    .await
}

/// Runs an operation while no claim is under way and no other worker maintains the inbox.
async fn with_exclusive_lock(
    store: &Store,
    operation: impl AsyncFnOnce(&mut Tx) -> Result<LockOutcome, StoreError>,
) -> Result<LockOutcome, StoreError> {
    let locked_operation = store.transaction(async |tx| {
        tx.execute(LOCK_SETTINGS).await?;
        let is_free = sqlx::query_scalar!(
            r#"select pg_try_advisory_xact_lock(
                'pg_class'::regclass::oid::integer, 'inbox'::regclass::oid::integer) as "free!""#
        )
        .fetch_one(&mut **tx)
        .await?;
        if !is_free {
            return Ok(LockOutcome::HeldElsewhere);
        }
        // Claims lock the parent before its partitions. With `only`, a vacuum of a partition, which
        // may take long, does not delay this.
        tx.execute("lock table only inbox in access exclusive mode").await?;
        operation(tx).await
    });
    match locked_operation.await {
        Err(error) if error.sqlstate().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Ok(LockOutcome::TimedOut)
        }
        result => result,
    }
}

/// Vacuums a partition that is not active any more, once. After that, no page of it is written
/// again, not even to freeze transaction ids. Claims are not blocked.
async fn vacuum_freeze(store: &Store, partition: &InboxPartition) -> Result<(), StoreError> {
    let sql = format!("vacuum (freeze, analyze, skip_locked, truncate false) {}", partition.table);
    match store.with_timeout(store.execute(&sql)).await {
        // Another worker has dropped it.
        Err(error) if error.sqlstate().as_deref() == Some(UNDEFINED_TABLE) => Ok(()),
        result => result,
    }
}
