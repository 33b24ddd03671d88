//! A transaction that never returns a connection in an unknown state to the pool.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Executor as _, Postgres, pool::PoolConnection};

use tokio::sync::OwnedSemaphorePermit;

use super::{Conn, StoreError};

/// A transaction, ended by [`Tx::commit`] or [`Tx::rollback`]. If it is dropped before, for example
/// at its time limit, its connection is closed. Returning the connection to the pool would mean to
/// wait for a server that may hang.
#[derive(Debug)]
pub struct Tx {
    connection: PoolConnection<Postgres>,
    is_finished: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Tx {
    pub(super) async fn begin(
        connection: PoolConnection<Postgres>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, StoreError> {
        let mut tx = Self { connection, is_finished: false, _permit: permit };
        tx.connection.execute("begin").await?;
        Ok(tx)
    }

    /// Limits how long a statement of this transaction waits for a lock.
    ///
    /// # Errors
    /// A database error.
    pub async fn set_lock_timeout(&mut self, timeout: Duration) -> Result<(), StoreError> {
        let statement = format!("set local lock_timeout = {}", timeout.as_millis());
        self.connection.execute(sqlx::AssertSqlSafe(statement)).await?;
        Ok(())
    }

    /// Limits how long a statement of this transaction runs.
    ///
    /// # Errors
    /// A database error.
    pub async fn set_statement_timeout(&mut self, timeout: Duration) -> Result<(), StoreError> {
        let statement = format!("set local statement_timeout = {}", timeout.as_millis());
        self.connection.execute(sqlx::AssertSqlSafe(statement)).await?;
        Ok(())
    }

    /// Runs `work` in a savepoint. If it fails, only its changes are rolled back, and the
    /// transaction stays usable.
    ///
    /// # Errors
    /// The error of `work`, or a database error.
    pub async fn savepoint<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.connection.execute("savepoint work").await?;
        let result = work(&mut self.connection).await;
        self.connection
            .execute(match result {
                Ok(_) => "release savepoint work",
                Err(_) => "rollback to savepoint work",
            })
            .await?;
        result
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// A database error. After it, the transaction may be committed or not; only the tables show which.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.connection.execute("commit").await?;
        self.is_finished = true;
        Ok(())
    }

    /// Rolls the transaction back.
    ///
    /// # Errors
    /// A database error. Then the connection is closed, which rolls back too.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        self.connection.execute("rollback").await?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.is_finished {
            self.connection.close_on_drop();
        }
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.connection
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.connection
    }
}
