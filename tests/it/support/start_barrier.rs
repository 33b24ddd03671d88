//! Makes worker processes start at the same time.
//!
//! Before a worker consumes, it checks that the database is writable with a
//! write to the inbox. A raised barrier locks the inbox against writes.

use sqlx::Executor as _;
use tallyhook::store::{Conn, Store, StoreError, Tx};
use time::OffsetDateTime;

/// A raised barrier. Dropping it releases the workers too.
pub(crate) struct StartBarrier {
    lock: Tx,
}

impl StartBarrier {
    pub(crate) async fn raise(store: &Store) -> Result<Self, StoreError> {
        let mut lock = store.begin().await?;
        // The weakest lock that blocks writes; reads go on.
        lock.execute("lock table inbox in share mode").await?;
        Ok(Self { lock })
    }

    /// The number of sessions that wait for the inbox.
    pub(crate) async fn waiting_sessions(&mut self) -> Result<i64, StoreError> {
        let waiting = sqlx::query_scalar(
            "select count(*) from pg_locks
             where relation = 'inbox'::regclass and not granted
               and database = (select oid from pg_database where datname = current_database())",
        )
        .fetch_one(&mut *self.lock)
        .await?;
        Ok(waiting)
    }

    pub(crate) async fn release(self) -> Result<(), StoreError> {
        self.lock.commit().await
    }
}

/// The database's clock.
pub(crate) async fn database_time(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(conn).await?)
}

/// The number of deadlocks in the database so far. A session reports its
/// deadlocks when it ends.
pub(crate) async fn deadlocks(conn: &mut Conn) -> Result<i64, StoreError> {
    let deadlocks = sqlx::query_scalar(
        "select deadlocks from pg_stat_database where datname = current_database()",
    )
    .fetch_one(conn)
    .await?;
    Ok(deadlocks)
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
