//! A starting gun for worker processes, and a clock that is nobody's: the
//! database's.
//!
//! Before a worker consumes anything it asks the database whether it can be
//! written to, by writing into the inbox and taking that back. While the gate
//! is shut the inbox is locked against it. So processes that were started one
//! after another stand side by side, connected to both servers, and none has
//! taken a message yet.

use sqlx::Executor as _;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Conn, Store, StoreError, Tx};

/// A gate that is shut. It opens when this is dropped, too.
pub struct Gate {
    shut: Tx,
}

impl Gate {
    /// Shuts the gate.
    ///
    /// # Errors
    /// What the database says.
    pub async fn shut(store: &Store) -> Result<Self, StoreError> {
        let mut shut = store.begin().await?;
        // The weakest lock that keeps writers out. Readers may look.
        shut.execute("lock table inbox in share mode").await?;
        Ok(Self { shut })
    }

    /// How many sessions wait for it.
    ///
    /// # Errors
    /// What the database says.
    pub async fn waiting(&mut self) -> Result<i64, StoreError> {
        let waiting = sqlx::query_scalar(
            "select count(*) from pg_locks
             where relation = 'inbox'::regclass and not granted
               and database = (select oid from pg_database where datname = current_database())",
        )
        .fetch_one(&mut *self.shut)
        .await?;
        Ok(waiting)
    }

    /// Opens it; when that was.
    ///
    /// # Errors
    /// What the database says.
    pub async fn open(mut self) -> Result<OffsetDateTime, StoreError> {
        let now = now(&mut self.shut).await?;
        self.shut.commit().await?;
        Ok(now)
    }
}

/// What time it is for the database.
///
/// # Errors
/// What the database says.
pub async fn now(conn: &mut Conn) -> Result<OffsetDateTime, StoreError> {
    Ok(sqlx::query_scalar("select clock_timestamp()").fetch_one(conn).await?)
}

/// What time it is for the database, and how many of these messages are on
/// record by then.
///
/// # Errors
/// What the database says.
pub async fn on_record(
    conn: &mut Conn,
    receipts: &[Uuid],
) -> Result<(OffsetDateTime, i64), StoreError> {
    let told = sqlx::query_as(
        "select clock_timestamp(), count(*) from receipts where receipt_id = any($1)",
    )
    .bind(receipts)
    .fetch_one(conn)
    .await?;
    Ok(told)
}

/// The same of all messages that were applied or found out to change nothing.
///
/// # Errors
/// What the database says.
pub async fn settled(conn: &mut Conn) -> Result<(OffsetDateTime, i64), StoreError> {
    let told = sqlx::query_as(
        "select clock_timestamp(), count(*) from receipts
         where outcome in ('applied', 'duplicate', 'stale', 'ignored')",
    )
    .fetch_one(conn)
    .await?;
    Ok(told)
}

/// How many deadlocks the server found in our database. A session tells of its
/// own when it ends.
///
/// # Errors
/// What the database says.
pub async fn deadlocks(conn: &mut Conn) -> Result<i64, StoreError> {
    let found = sqlx::query_scalar(
        "select deadlocks from pg_stat_database where datname = current_database()",
    )
    .fetch_one(conn)
    .await?;
    Ok(found)
}

/// How many sessions of ours in this database began after that moment.
///
/// # Errors
/// What the database says.
pub async fn sessions_since(conn: &mut Conn, moment: OffsetDateTime) -> Result<i64, StoreError> {
    let there = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'tallyhook'
           and backend_start > $1",
    )
    .bind(moment)
    .fetch_one(conn)
    .await?;
    Ok(there)
}
