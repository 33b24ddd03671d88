//! A transaction that leaves no connection in doubt.

use std::ops::{Deref, DerefMut};

use sqlx::{Executor as _, Postgres, pool::PoolConnection};

use tokio::sync::OwnedSemaphorePermit;

use super::{Conn, StoreError};

/// A transaction. Finished by [`Tx::commit`] or [`Tx::rollback`]; dropped in
/// the middle, as when its time is up, it has its connection closed. Handing
/// that back to the pool would mean waiting for a server that may hang.
#[derive(Debug)]
pub struct Tx {
    connection: PoolConnection<Postgres>,
    finished: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Tx {
    pub(super) async fn begin(
        connection: PoolConnection<Postgres>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, StoreError> {
        let mut tx = Self { connection, finished: false, _permit: turn };
        tx.connection.execute("begin").await?;
        Ok(tx)
    }

    /// Commits.
    ///
    /// # Errors
    /// What the database says. After an error nobody knows whether it was
    /// committed: only a look at the tables tells.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        self.connection.execute("commit").await?;
        self.finished = true;
        Ok(())
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// What the database says; then the connection is closed, which takes
    /// everything back too.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        self.connection.execute("rollback").await?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.finished {
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
