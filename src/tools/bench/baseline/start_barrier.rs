//! Makes worker processes start at the same time, and counts what they did.
//!
//! Before a worker consumes, it checks that the database is writable with a
//! write to the inbox. While the barrier is raised, the inbox is locked against
//! writes. So workers that were started one after another wait, connected to
//! both servers, and none has taken a message.

use sqlx::Executor as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::database::value;
use crate::store::{Conn, Store, StoreError, Tx};

/// A raised barrier. Dropping it releases the workers too.
pub(crate) struct StartBarrier {
    lock: Tx,
}

impl StartBarrier {
    /// Locks the inbox.
    pub(crate) async fn raise(store: &Store) -> Result<Self, StoreError> {
        let mut lock = store.begin().await?;
        // The weakest lock that blocks writes; reads go on.
        lock.execute("lock table inbox in share mode").await?;
        Ok(Self { lock })
    }

    /// The number of sessions that wait for the inbox.
    pub(crate) async fn waiting_sessions(&mut self) -> Result<i64, StoreError> {
        value(
            &mut self.lock,
            "select count(*) from pg_locks
             where relation = 'inbox'::regclass and not granted
               and database = (select oid from pg_database where datname = current_database())",
        )
        .await
    }

    /// Releases the workers; returns the database's time before that.
    pub(crate) async fn release(mut self) -> Result<OffsetDateTime, StoreError> {
        let now = database_time(&mut self.lock).await?;
        self.lock.commit().await?;
        Ok(now)
    }
}

/// The database's clock.
pub(crate) async fn database_time(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    value(conn, "select clock_timestamp()").await
}

/// The number of these receipts on record, and the database's time.
pub(crate) async fn count_receipts(
    conn: &mut Conn,
    receipts: &[Uuid],
) -> Result<(OffsetDateTime, i64), StoreError> {
    let counted = sqlx::query_as(
        "select clock_timestamp(), count(*) from receipts where receipt_id = any($1)",
    )
    .bind(receipts)
    .fetch_one(conn)
    .await?;
    Ok(counted)
}

/// The number of messages that were applied or change nothing, and the
/// database's time.
pub(crate) async fn count_processed(conn: &mut Conn) -> Result<(OffsetDateTime, i64), StoreError> {
    let counted = sqlx::query_as(
        "select clock_timestamp(), count(*) from receipts
         where outcome in ('applied', 'duplicate', 'stale', 'ignored')",
    )
    .fetch_one(conn)
    .await?;
    Ok(counted)
}

/// The number of deadlocks in the database so far. A session reports its
/// deadlocks when it ends.
pub(crate) async fn deadlocks(conn: &mut Conn) -> Result<i64, StoreError> {
    value(conn, "select deadlocks from pg_stat_database where datname = current_database()").await
}

/// The number of the product's sessions in this database that began after
/// this time.
pub(crate) async fn sessions_since(
    conn: &mut Conn,
    time: OffsetDateTime,
) -> Result<i64, StoreError> {
    let sessions = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'tallyhook'
           and backend_start > $1",
    )
    .bind(time)
    .fetch_one(conn)
    .await?;
    Ok(sessions)
}
