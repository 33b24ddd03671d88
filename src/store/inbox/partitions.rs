//! The generations of the inbox: opened in turn, closed, and dropped whole
//! once they are past the horizon. Nothing else is ever deleted from it.
//!
//! Into how many generations to divide a horizon is a matter of measurement. In
//! each one a key has to be looked for, at a random place: with 50 million keys
//! on record a closed generation costs a batch of 500 claims some 3 ms, however
//! few of the keys it has. (An empty inbox takes 5 ms.) A new key goes into a
//! random place of the open one, which costs 8 ms and ten times the WAL if all
//! 50 million are there. And what is divided less is kept longer than it has to
//! be. Two is where these meet: two closed ones and an open one, and at most
//! one and a half times the horizon. For the same reason it is time that opens
//! a generation, and never the number of keys: of a flood there would be many,
//! and each key would be looked for in all of them.

use std::time::Duration;

use sqlx::Executor as _;
use time::OffsetDateTime;

use super::super::{Conn, Store, StoreError, Tx};

/// How many generations a horizon is divided into.
pub const PARTITIONS_PER_HORIZON: u32 = 2;

/// How long claims may be kept waiting by whoever opens or drops a generation
/// and waits himself for one that is under way.
const LOCK_SETTINGS: &str = "set local lock_timeout = '300ms'; \
    set local idle_in_transaction_session_timeout = '5s'";

/// What PostgreSQL says to whom its locks were not given in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// What it says of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

const HOUR: Duration = Duration::from_hours(1);

/// What shall be kept.
#[derive(Clone, Copy, Debug)]
pub struct InboxRetention {
    /// How long keys are remembered; for ever if nothing is said.
    pub dedupe_window: Option<Duration>,
    /// Now, by a clock that all who keep house share: the database's.
    pub now: OffsetDateTime,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxPartition {
    /// The hour since 1970 in which it was opened.
    pub hour: i32,
    /// Whether new keys go there.
    pub is_active: bool,
    /// What it takes on the disk, with its index.
    pub bytes: i64,
    /// Its table, quoted if need be.
    table: String,
    /// Whether vacuum has something left to do.
    needs_vacuum: bool,
}

/// A generation that is past the horizon and is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedInboxPartition {
    /// Which.
    pub hour: i32,
    /// How many dead letters are waiting whose key is in it. Replayed without
    /// it, each would be applied although it was settled.
    pub dead_letters: i64,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct InboxMaintenanceReport {
    /// What there is now.
    pub status: InboxStatus,
    /// The one that was opened.
    pub created: Option<i32>,
    /// Those that were dropped.
    pub dropped: Vec<i32>,
    /// Whether something was left for the next time: claims were under way for
    /// longer than others may be kept waiting.
    pub is_deferred: bool,
}

/// What there is, and why.
#[derive(Clone, Debug)]
pub struct InboxStatus {
    /// Every generation, the oldest first.
    pub partitions: Vec<InboxPartition>,
    /// Those that are past the horizon and must not be dropped.
    pub retained: Vec<RetainedInboxPartition>,
    /// Everything that was settled since is remembered.
    pub remembered_since: OffsetDateTime,
}

/// What came of an act that needs the inbox for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// It is done.
    Done,
    /// Somebody else does it, or did.
    HeldElsewhere,
    /// Claims were under way for too long.
    TimedOut,
}

/// Opens the next generation if it is time, drops those that are past the
/// horizon, and has what was closed vacuumed for good. As often as one likes,
/// and by as many at once as one likes.
///
/// # Errors
/// What the database says; what was done until then is done.
pub async fn maintain(
    store: &Store,
    plan: &InboxRetention,
) -> Result<InboxMaintenanceReport, StoreError> {
    let mut opened = None;
    let mut put_off = false;
    if let Some(next) = next_due(&load_status(store, plan).await?.partitions, plan) {
        match create_partition(store, next).await? {
            LockOutcome::Done => opened = Some(next),
            LockOutcome::HeldElsewhere => {}
            LockOutcome::TimedOut => put_off = true,
        }
    }
    let state = load_status(store, plan).await?;
    let is_held = |number: i32| state.retained.iter().any(|held| held.hour == number);
    let mut forgotten = Vec::new();
    for (generation, until) in expired(&state.partitions, plan) {
        if is_held(generation.hour) {
            continue;
        }
        match drop_partition(store, generation, until).await? {
            LockOutcome::Done => forgotten.push(generation.hour),
            LockOutcome::HeldElsewhere => {}
            LockOutcome::TimedOut => put_off = true,
        }
    }
    let state = load_status(store, plan).await?;
    for generation in state.partitions.iter().filter(|one| one.needs_vacuum && !one.is_active) {
        vacuum_freeze(store, generation).await?;
    }
    Ok(InboxMaintenanceReport {
        status: state,
        created: opened,
        dropped: forgotten,
        is_deferred: put_off,
    })
}

async fn load_status(store: &Store, plan: &InboxRetention) -> Result<InboxStatus, StoreError> {
    store.with_timeout(async { status(&mut *store.connection().await?, plan).await }).await
}

/// What there is now. One that is past and not held is about to be dropped.
///
/// # Errors
/// What the database says.
pub async fn status(conn: &mut Conn, plan: &InboxRetention) -> Result<InboxStatus, StoreError> {
    let generations = list_partitions(conn).await?;
    let mut held = Vec::new();
    for (InboxPartition { hour: generation, .. }, _) in expired(&generations, plan) {
        let letters = count_replayable_dead_letters(conn, *generation).await?;
        if letters > 0 {
            held.push(RetainedInboxPartition { hour: *generation, dead_letters: letters });
        }
    }
    let since = remembered_since(conn)
        .await?
        .unwrap_or_else(|| hour_start(generations.first().map_or(0, |oldest| oldest.hour)));
    Ok(InboxStatus { partitions: generations, retained: held, remembered_since: since })
}

/// The generation to be opened now, if it is time.
fn next_due(known: &[InboxPartition], plan: &InboxRetention) -> Option<i32> {
    // Who keeps everything gains nothing: none is ever dropped.
    let share = (plan.dedupe_window? / PARTITIONS_PER_HORIZON).max(HOUR);
    let open = known.iter().rfind(|generation| generation.is_active)?;
    let next = hour_of(plan.now);
    (hour_start(next) - hour_start(open.hour) >= share).then_some(next)
}

/// The generations of which every key is past the horizon, each with the time
/// before which they were settled.
fn expired<'a>(
    known: &'a [InboxPartition],
    plan: &InboxRetention,
) -> impl Iterator<Item = (&'a InboxPartition, OffsetDateTime)> {
    let horizon = plan.dedupe_window.map(|keep| plan.now - keep);
    known.windows(2).filter_map(move |pair| {
        let [generation, next] = pair else { return None };
        // It was closed at some time within the hour that names the next.
        let until = hour_start(next.hour) + HOUR;
        horizon.is_some_and(|horizon| until <= horizon).then_some((generation, until))
    })
}

/// The hour since 1970.
fn hour_of(at: OffsetDateTime) -> i32 {
    let hours = at.unix_timestamp().div_euclid(i64::from(3600_u32));
    i32::try_from(hours).unwrap_or(i32::MAX)
}

fn hour_start(hour: i32) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::hours(i64::from(hour))
}

/// Every generation, the oldest first.
async fn list_partitions(conn: &mut Conn) -> Result<Vec<InboxPartition>, StoreError> {
    Ok(sqlx::query_as!(
        InboxPartition,
        r#"
        -- Read once: one that is being dropped may lose its number any moment.
        with named as materialized (
            select part.*,
                substring(pg_get_expr(part.relpartbound, part.oid) from '\d+')::integer as number
            from pg_inherits
            join pg_class as part on part.oid = inhrelid
            where inhparent = 'inbox'::regclass
        )
        select number as "hour!", oid::regclass::text as "table!",
            number = (
                select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
                where adrelid = 'inbox'::regclass) as "is_active!",
            coalesce(pg_total_relation_size(oid), 0) as "bytes!",
            -- Below 0: it was never vacuumed.
            reltuples < 0 or relallvisible < relpages as "needs_vacuum!"
        from named
        where number is not null
        order by number
        "#
    )
    .fetch_all(conn)
    .await?)
}

/// What the database's clock says.
///
/// # Errors
/// What the database says.
pub async fn database_now(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(conn).await?)
}

/// Since when everything that was settled is remembered, if anything was ever
/// forgotten.
///
/// # Errors
/// What the database says.
pub async fn remembered_since(conn: &mut Conn) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(sqlx::query_scalar!("select max(processed_before) from inbox_dropped_partitions")
        .fetch_one(conn)
        .await?)
}

/// How many dead letters may still be replayed whose key this generation has:
/// another copy of the event was applied, or it contradicts one that was.
async fn count_replayable_dead_letters(
    conn: &mut Conn,
    generation: i32,
) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        select count(*) as "dead_letters!" from dead_letters as letter
        where letter.state in ('open', 'replayed') and letter.delivery_id is null
          and exists (
            select from inbox
            where inbox.partition_hour = $1
              -- As `EventKey::inbox_id` has it.
              and inbox.key = encode(
                substring(sha256(convert_to(letter.event_key, 'UTF8')) for 16), 'hex')::uuid)
        "#,
        generation
    )
    .fetch_one(conn)
    .await?)
}

/// Opens a generation, unless it or a later one is open by now.
///
/// # Errors
/// What the database says; then nothing is changed.
pub async fn create_partition(store: &Store, next: i32) -> Result<LockOutcome, StoreError> {
    with_exclusive_lock(store, async |tx| {
        let known = list_partitions(tx).await?;
        if known.iter().any(|generation| generation.hour >= next) {
            return Ok(LockOutcome::HeldElsewhere);
        }
        let ddl = format!(
            "create table inbox_p{next} partition of inbox (primary key (key))
                 for values in ({next})
                 with (autovacuum_freeze_min_age = 0, vacuum_truncate = false);
             alter table only inbox alter column partition_hour set default {next}"
        );
        tx.execute(sqlx::AssertSqlSafe(ddl)).await?;
        Ok(LockOutcome::Done)
    })
    .await
}

/// Drops a generation, unless somebody else did.
async fn drop_partition(
    store: &Store,
    generation: &InboxPartition,
    until: OffsetDateTime,
) -> Result<LockOutcome, StoreError> {
    with_exclusive_lock(store, async |tx| {
        if !list_partitions(tx).await?.iter().any(|one| one.hour == generation.hour) {
            return Ok(LockOutcome::HeldElsewhere);
        }
        sqlx::query!(
            "insert into inbox_dropped_partitions (partition_hour, processed_before) values ($1, $2)",
            generation.hour,
            until
        )
        .execute(&mut **tx)
        .await?;
        tx.execute(sqlx::AssertSqlSafe(format!("drop table {}", generation.table))).await?;
        Ok(LockOutcome::Done)
    })
    .await
}

/// Does something while nobody claims anything, and nobody else keeps house.
async fn with_exclusive_lock(
    store: &Store,
    act: impl AsyncFnOnce(&mut Tx) -> Result<LockOutcome, StoreError>,
) -> Result<LockOutcome, StoreError> {
    store
        .with_timeout(async {
            let mut tx = store.begin().await?;
            tx.execute(LOCK_SETTINGS).await?;
            let is_free = sqlx::query_scalar!(
                r#"select pg_try_advisory_xact_lock(
                    'pg_class'::regclass::oid::integer, 'inbox'::regclass::oid::integer) as "free!""#
            )
            .fetch_one(&mut *tx)
            .await?;
            let turn = if is_free { run_locked(&mut tx, act).await } else { Ok(LockOutcome::HeldElsewhere) };
            match turn {
                Ok(LockOutcome::Done) => tx.commit().await?,
                Ok(LockOutcome::HeldElsewhere | LockOutcome::TimedOut) | Err(_) => drop(tx.rollback().await),
            }
            turn
        })
        .await
}

async fn run_locked(
    tx: &mut Tx,
    act: impl AsyncFnOnce(&mut Tx) -> Result<LockOutcome, StoreError>,
) -> Result<LockOutcome, StoreError> {
    let done = async {
        // Whoever claims locks this before its parts. These may be vacuumed,
        // which takes its time and is nobody's claim: hence `only`.
        tx.execute("lock table only inbox in access exclusive mode").await?;
        act(tx).await
    };
    match done.await {
        Err(error) if error.sqlstate().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Ok(LockOutcome::TimedOut)
        }
        turn => turn,
    }
}

/// Vacuums what was closed, once: from then on no page of it is written, not
/// even for the sake of transaction ids. Claims do not notice.
async fn vacuum_freeze(store: &Store, generation: &InboxPartition) -> Result<(), StoreError> {
    let sql = format!("vacuum (freeze, analyze, skip_locked, truncate false) {}", generation.table);
    match store.with_timeout(store.execute(&sql)).await {
        // Somebody else has dropped it meanwhile.
        Err(error) if error.sqlstate().as_deref() == Some(UNDEFINED_TABLE) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i32 = 24;

    fn generation(number: i32, is_open: bool) -> InboxPartition {
        InboxPartition {
            hour: number,
            is_active: is_open,
            bytes: 0,
            table: String::new(),
            needs_vacuum: false,
        }
    }

    fn plan(days: u64, now: i32) -> InboxRetention {
        InboxRetention {
            dedupe_window: Some(Duration::from_hours(24 * days)),
            now: hour_start(now),
        }
    }

    #[test]
    fn partition_due_after_share_of_window() {
        let known = [generation(1000, false), generation(2000, true)];
        let share = 40 * DAY / i32::try_from(PARTITIONS_PER_HORIZON).unwrap();
        assert_eq!(next_due(&known, &plan(40, 2000 + share - 1)), None);
        assert_eq!(next_due(&known, &plan(40, 2000 + share)), Some(2000 + share));
        // Or later, if nobody kept house.
        assert_eq!(next_due(&known, &plan(40, 9000)), Some(9000));
        let forever = InboxRetention { dedupe_window: None, ..plan(1, 9000) };
        assert_eq!(next_due(&known, &forever), None);
    }

    #[test]
    fn partition_due_at_most_once_an_hour() {
        let known = [generation(2000, true)];
        let moment =
            InboxRetention { dedupe_window: Some(Duration::from_secs(1)), now: hour_start(2000) };
        assert_eq!(next_due(&known, &moment), None);
        assert_eq!(next_due(&known, &InboxRetention { now: hour_start(1990), ..moment }), None);
        assert_eq!(
            next_due(&known, &InboxRetention { now: hour_start(2001), ..moment }),
            Some(2001)
        );
    }

    #[test]
    fn partition_expired_when_next_older_than_window() {
        let known = [generation(1000, false), generation(1100, false), generation(1200, true)];
        let past = |plan: &InboxRetention| -> Vec<i32> {
            super::expired(&known, plan).map(|(generation, _)| generation.hour).collect()
        };
        // The next was opened in the hour that names it, at its end at worst.
        assert_eq!(past(&plan(10, 1100 + 10 * DAY)), [0; 0]);
        assert_eq!(past(&plan(10, 1101 + 10 * DAY)), [1000]);
        assert_eq!(past(&plan(10, 1201 + 10 * DAY)), [1000, 1100]);
        // The open one never is.
        assert_eq!(past(&plan(10, 99_000)), [1000, 1100]);
        assert_eq!(past(&InboxRetention { dedupe_window: None, ..plan(1, 99_000) }), [0; 0]);
    }

    #[test]
    fn hour_counts_from_unix_epoch() {
        let moment = OffsetDateTime::from_unix_timestamp(1_795_361_399).unwrap();
        assert_eq!(hour_of(moment), 498_711);
        assert_eq!(hour_start(498_711).unix_timestamp(), 1_795_359_600);
        assert_eq!(hour_of(OffsetDateTime::from_unix_timestamp(-1).unwrap()), -1);
    }
}
