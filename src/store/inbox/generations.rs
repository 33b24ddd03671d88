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
pub const SHARES: u32 = 2;

/// How long claims may be kept waiting by whoever opens or drops a generation
/// and waits himself for one that is under way.
const PATIENCE: &str = "set local lock_timeout = '300ms'; \
    set local idle_in_transaction_session_timeout = '5s'";

/// What PostgreSQL says to whom its locks were not given in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// What it says of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

const HOUR: Duration = Duration::from_hours(1);

/// What shall be kept.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long keys are remembered; for ever if nothing is said.
    pub keep: Option<Duration>,
    /// Now, by a clock that all who keep house share: the database's.
    pub now: OffsetDateTime,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The hour since 1970 in which it was opened.
    pub number: i32,
    /// Whether new keys go there.
    pub is_open: bool,
    /// What it takes on the disk, with its index.
    pub bytes: i64,
    /// Its table, quoted if need be.
    table: String,
    /// Whether vacuum has something left to do.
    is_rough: bool,
}

/// A generation that is past the horizon and is not dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub generation: i32,
    /// How many dead letters are waiting whose key is in it. Replayed without
    /// it, each would be applied although it was settled.
    pub letters: i64,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What there is now.
    pub state: State,
    /// The one that was opened.
    pub opened: Option<i32>,
    /// Those that were dropped.
    pub forgotten: Vec<i32>,
    /// Whether something was left for the next time: claims were under way for
    /// longer than others may be kept waiting.
    pub put_off: bool,
}

/// What there is, and why.
#[derive(Clone, Debug)]
pub struct State {
    /// Every generation, the oldest first.
    pub generations: Vec<Generation>,
    /// Those that are past the horizon and must not be dropped.
    pub held: Vec<Held>,
    /// Everything that was settled since is remembered.
    pub since: OffsetDateTime,
}

/// What came of an act that needs the inbox for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is done.
    Done,
    /// Somebody else does it, or did.
    NotOurs,
    /// Claims were under way for too long.
    PutOff,
}

/// Opens the next generation if it is time, drops those that are past the
/// horizon, and has what was closed vacuumed for good. As often as one likes,
/// and by as many at once as one likes.
///
/// # Errors
/// What the database says; what was done until then is done.
pub async fn keep(store: &Store, plan: &Plan) -> Result<Kept, StoreError> {
    let mut opened = None;
    let mut put_off = false;
    if let Some(next) = due(&seen(store, plan).await?.generations, plan) {
        match open(store, next).await? {
            Turn::Done => opened = Some(next),
            Turn::NotOurs => {}
            Turn::PutOff => put_off = true,
        }
    }
    let state = seen(store, plan).await?;
    let is_held = |number: i32| state.held.iter().any(|held| held.generation == number);
    let mut forgotten = Vec::new();
    for (generation, until) in past(&state.generations, plan) {
        if is_held(generation.number) {
            continue;
        }
        match forget(store, generation, until).await? {
            Turn::Done => forgotten.push(generation.number),
            Turn::NotOurs => {}
            Turn::PutOff => put_off = true,
        }
    }
    let state = seen(store, plan).await?;
    for generation in state.generations.iter().filter(|one| one.is_rough && !one.is_open) {
        smooth(store, generation).await?;
    }
    Ok(Kept { state, opened, forgotten, put_off })
}

async fn seen(store: &Store, plan: &Plan) -> Result<State, StoreError> {
    store.in_time(async { look(&mut *store.connection().await?, plan).await }).await
}

/// What there is now. One that is past and not held is about to be dropped.
///
/// # Errors
/// What the database says.
pub async fn look(conn: &mut Conn, plan: &Plan) -> Result<State, StoreError> {
    let generations = list(conn).await?;
    let mut held = Vec::new();
    for (Generation { number: generation, .. }, _) in past(&generations, plan) {
        let letters = waiting(conn, *generation).await?;
        if letters > 0 {
            held.push(Held { generation: *generation, letters });
        }
    }
    let since = since(conn)
        .await?
        .unwrap_or_else(|| begin_of(generations.first().map_or(0, |oldest| oldest.number)));
    Ok(State { generations, held, since })
}

/// The generation to be opened now, if it is time.
fn due(known: &[Generation], plan: &Plan) -> Option<i32> {
    // Who keeps everything gains nothing: none is ever dropped.
    let share = (plan.keep? / SHARES).max(HOUR);
    let open = known.iter().rfind(|generation| generation.is_open)?;
    let next = hour(plan.now);
    (begin_of(next) - begin_of(open.number) >= share).then_some(next)
}

/// The generations of which every key is past the horizon, each with the time
/// before which they were settled.
fn past<'a>(
    known: &'a [Generation],
    plan: &Plan,
) -> impl Iterator<Item = (&'a Generation, OffsetDateTime)> {
    let horizon = plan.keep.map(|keep| plan.now - keep);
    known.windows(2).filter_map(move |pair| {
        let [generation, next] = pair else { return None };
        // It was closed at some time within the hour that names the next.
        let until = begin_of(next.number) + HOUR;
        horizon.is_some_and(|horizon| until <= horizon).then_some((generation, until))
    })
}

/// The hour since 1970.
fn hour(at: OffsetDateTime) -> i32 {
    let hours = at.unix_timestamp().div_euclid(i64::from(3600_u32));
    i32::try_from(hours).unwrap_or(i32::MAX)
}

fn begin_of(hour: i32) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::hours(i64::from(hour))
}

/// Every generation, the oldest first.
async fn list(conn: &mut Conn) -> Result<Vec<Generation>, StoreError> {
    Ok(sqlx::query_as!(
        Generation,
        r#"
        -- Read once: one that is being dropped may lose its number any moment.
        with named as materialized (
            select part.*,
                substring(pg_get_expr(part.relpartbound, part.oid) from '\d+')::integer as number
            from pg_inherits
            join pg_class as part on part.oid = inhrelid
            where inhparent = 'inbox'::regclass
        )
        select number as "number!", oid::regclass::text as "table!",
            number = (
                select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
                where adrelid = 'inbox'::regclass) as "is_open!",
            coalesce(pg_total_relation_size(oid), 0) as "bytes!",
            -- Below 0: it was never vacuumed.
            reltuples < 0 or relallvisible < relpages as "is_rough!"
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
pub async fn now(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(conn).await?)
}

/// Since when everything that was settled is remembered, if anything was ever
/// forgotten.
///
/// # Errors
/// What the database says.
pub async fn since(conn: &mut Conn) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(sqlx::query_scalar!("select max(settled_until) from inbox_forgotten")
        .fetch_one(conn)
        .await?)
}

/// How many dead letters may still be replayed whose key this generation has:
/// another copy of the event was applied, or it contradicts one that was.
async fn waiting(conn: &mut Conn, generation: i32) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        select count(*) as "letters!" from dead_letters as letter
        where letter.state in ('open', 'replayed') and letter.delivery_id is null
          and exists (
            select from inbox
            where inbox.generation = $1
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
pub async fn open(store: &Store, next: i32) -> Result<Turn, StoreError> {
    alone(store, async |tx| {
        let known = list(tx).await?;
        if known.iter().any(|generation| generation.number >= next) {
            return Ok(Turn::NotOurs);
        }
        let ddl = format!(
            "create table inbox_g{next} partition of inbox (primary key (key))
                 for values in ({next})
                 with (autovacuum_freeze_min_age = 0, vacuum_truncate = false);
             alter table only inbox alter column generation set default {next}"
        );
        tx.execute(sqlx::AssertSqlSafe(ddl)).await?;
        Ok(Turn::Done)
    })
    .await
}

/// Drops a generation, unless somebody else did.
async fn forget(
    store: &Store,
    generation: &Generation,
    until: OffsetDateTime,
) -> Result<Turn, StoreError> {
    alone(store, async |tx| {
        if !list(tx).await?.iter().any(|one| one.number == generation.number) {
            return Ok(Turn::NotOurs);
        }
        sqlx::query!(
            "insert into inbox_forgotten (generation, settled_until) values ($1, $2)",
            generation.number,
            until
        )
        .execute(&mut **tx)
        .await?;
        tx.execute(sqlx::AssertSqlSafe(format!("drop table {}", generation.table))).await?;
        Ok(Turn::Done)
    })
    .await
}

/// Does something while nobody claims anything, and nobody else keeps house.
async fn alone(
    store: &Store,
    act: impl AsyncFnOnce(&mut Tx) -> Result<Turn, StoreError>,
) -> Result<Turn, StoreError> {
    store
        .in_time(async {
            let mut tx = store.begin().await?;
            tx.execute(PATIENCE).await?;
            let is_free = sqlx::query_scalar!(
                r#"select pg_try_advisory_xact_lock(
                    'pg_class'::regclass::oid::integer, 'inbox'::regclass::oid::integer) as "free!""#
            )
            .fetch_one(&mut *tx)
            .await?;
            let turn = if is_free { locked(&mut tx, act).await } else { Ok(Turn::NotOurs) };
            match turn {
                Ok(Turn::Done) => tx.commit().await?,
                Ok(Turn::NotOurs | Turn::PutOff) | Err(_) => drop(tx.rollback().await),
            }
            turn
        })
        .await
}

async fn locked(
    tx: &mut Tx,
    act: impl AsyncFnOnce(&mut Tx) -> Result<Turn, StoreError>,
) -> Result<Turn, StoreError> {
    let done = async {
        // Whoever claims locks this before its parts. These may be vacuumed,
        // which takes its time and is nobody's claim: hence `only`.
        tx.execute("lock table only inbox in access exclusive mode").await?;
        act(tx).await
    };
    match done.await {
        Err(error) if error.sqlstate().as_deref() == Some(LOCK_NOT_AVAILABLE) => Ok(Turn::PutOff),
        turn => turn,
    }
}

/// Vacuums what was closed, once: from then on no page of it is written, not
/// even for the sake of transaction ids. Claims do not notice.
async fn smooth(store: &Store, generation: &Generation) -> Result<(), StoreError> {
    let sql = format!("vacuum (freeze, analyze, skip_locked, truncate false) {}", generation.table);
    match store.in_time(store.execute(&sql)).await {
        // Somebody else has dropped it meanwhile.
        Err(error) if error.sqlstate().as_deref() == Some(UNDEFINED_TABLE) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i32 = 24;

    fn generation(number: i32, is_open: bool) -> Generation {
        Generation { number, is_open, bytes: 0, table: String::new(), is_rough: false }
    }

    fn plan(days: u64, now: i32) -> Plan {
        Plan { keep: Some(Duration::from_hours(24 * days)), now: begin_of(now) }
    }

    #[test]
    fn a_generation_is_opened_for_each_share_of_the_horizon() {
        let known = [generation(1000, false), generation(2000, true)];
        let share = 40 * DAY / i32::try_from(SHARES).unwrap();
        assert_eq!(due(&known, &plan(40, 2000 + share - 1)), None);
        assert_eq!(due(&known, &plan(40, 2000 + share)), Some(2000 + share));
        // Or later, if nobody kept house.
        assert_eq!(due(&known, &plan(40, 9000)), Some(9000));
        let forever = Plan { keep: None, ..plan(1, 9000) };
        assert_eq!(due(&known, &forever), None);
    }

    #[test]
    fn no_two_are_opened_in_one_hour_and_none_before_the_last() {
        let known = [generation(2000, true)];
        let moment = Plan { keep: Some(Duration::from_secs(1)), now: begin_of(2000) };
        assert_eq!(due(&known, &moment), None);
        assert_eq!(due(&known, &Plan { now: begin_of(1990), ..moment }), None);
        assert_eq!(due(&known, &Plan { now: begin_of(2001), ..moment }), Some(2001));
    }

    #[test]
    fn a_generation_is_past_when_the_next_was_opened_longer_ago_than_the_horizon() {
        let known = [generation(1000, false), generation(1100, false), generation(1200, true)];
        let past = |plan: &Plan| -> Vec<i32> {
            super::past(&known, plan).map(|(generation, _)| generation.number).collect()
        };
        // The next was opened in the hour that names it, at its end at worst.
        assert_eq!(past(&plan(10, 1100 + 10 * DAY)), [0; 0]);
        assert_eq!(past(&plan(10, 1101 + 10 * DAY)), [1000]);
        assert_eq!(past(&plan(10, 1201 + 10 * DAY)), [1000, 1100]);
        // The open one never is.
        assert_eq!(past(&plan(10, 99_000)), [1000, 1100]);
        assert_eq!(past(&Plan { keep: None, ..plan(1, 99_000) }), [0; 0]);
    }

    #[test]
    fn hours_are_counted_since_1970() {
        let moment = OffsetDateTime::from_unix_timestamp(1_795_361_399).unwrap();
        assert_eq!(hour(moment), 498_711);
        assert_eq!(begin_of(498_711).unix_timestamp(), 1_795_359_600);
        assert_eq!(hour(OffsetDateTime::from_unix_timestamp(-1).unwrap()), -1);
    }
}
