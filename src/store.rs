//! PostgreSQL: the inbox, the documents, the call log, the outbox and the dead letters.
//!
//! No other module contains SQL. Functions take a connection, so that the caller owns the
//! transaction. Every set statement is sorted by its key, and tables are always written in the
//! order inbox, payments, orders, refunds, invoices, resource changes, receipts, dead letters,
//! deliveries, quarantine, imports. Two batches in another order would deadlock.

/// One column of rows, as an array parameter for `unnest`.
macro_rules! column {
    ($rows:expr, $row:pat => $value:expr) => {
        $rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

pub mod audit_log;
pub(crate) mod bisect;
pub mod dead_letters;
pub mod deliveries;
pub mod error;
pub mod imports;
pub mod inbox;
pub mod invoices;
pub mod orders;
pub mod quarantine;
pub mod receipts;
pub mod reconciliation;
pub mod refunds;
pub mod replays;
pub mod resource_changes;
pub mod retry;
pub mod secret_uses;
pub mod timeline;
mod transaction;

use std::{sync::Arc, time::Duration};

use sqlx::{
    Executor as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{config, domain::WriteKind};
pub use error::{ErrorClass, StoreError};
pub use transaction::Tx;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// A connection, inside or outside of a transaction.
pub type Conn = sqlx::PgConnection;

/// What an upsert did to a document.
fn write_kind(is_new: bool) -> WriteKind {
    if is_new { WriteKind::Created } else { WriteKind::Updated }
}

/// Claims need this isolation level (see [`inbox`]), whatever the server's default is. It also
/// rules out serialization failures.
const SET_ISOLATION: &str = "set default_transaction_isolation = 'read committed'";
/// Response time limit of [`Store::ping`].
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long [`Store::close`] waits for connections in use.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of connections to the database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// A transaction waits here for a permit, without a time limit: a busy pool is no outage. One
    /// connection has no permit and stays free for metrics and health checks.
    transaction_permits: Arc<Semaphore>,
    timeout: Duration,
}

/// Size of the connection pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Open connections.
    pub open: u32,
    /// Open connections that are not in use.
    pub idle: usize,
}

impl Store {
    /// Creates a pool. It connects when it is first used.
    ///
    /// # Errors
    /// The URL is not a PostgreSQL URL.
    pub fn new(settings: &config::DatabaseConfig) -> Result<Self, StoreError> {
        let limit = settings.statement_timeout_ms;
        let timeout_sql = format!("; set statement_timeout = {limit}");
        let timeout = Duration::from_millis(limit) + Duration::from_secs(5);
        Self::with_session_settings(settings, &timeout_sql, timeout)
    }

    /// Creates a pool without time limits, for migrations and sums.
    ///
    /// # Errors
    /// As [`Store::new`].
    pub fn without_timeout(settings: &config::DatabaseConfig) -> Result<Self, StoreError> {
        Self::with_session_settings(settings, "", Duration::MAX)
    }

    fn with_session_settings(
        settings: &config::DatabaseConfig,
        timeout_sql: &str,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        // Statements instead of startup options: PgBouncer refuses those.
        let session_setup = format!("{SET_ISOLATION}{timeout_sql}");
        let options: PgConnectOptions = settings.url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(Duration::from_millis(settings.connect_timeout_ms))
            // A lost connection fails in its first statement, which is retried. A ping before
            // each batch would cost a round trip.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session_setup = session_setup.clone();
                Box::pin(async move {
                    connection.execute(sqlx::AssertSqlSafe(session_setup)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.application_name("tallyhook"));
        let permits = Semaphore::new(settings.max_connections.saturating_sub(1).max(1) as usize);
        Ok(Self { pool, transaction_permits: Arc::new(permits), timeout })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`ErrorClass::Unavailable`] if the pool gets no connection within its time limit.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        // Acquiring fails only on a closed semaphore, and this one is never closed.
        let permit = Arc::clone(&self.transaction_permits).acquire_owned().await.ok();
        Tx::begin(self.pool.acquire().await?, permit).await
    }

    /// Runs `work` in a transaction: commits if it succeeds and rolls back if it fails, all within
    /// the time limit of [`Store::with_timeout`].
    ///
    /// # Errors
    /// The error of `work` or of the database. After an error of the commit itself the transaction
    /// may be committed or not.
    pub async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_timeout(async {
            let mut tx = self.begin().await?;
            match work(&mut tx).await {
                Ok(value) => {
                    tx.commit().await?;
                    Ok(value)
                }
                Err(error) => {
                    // If the rollback fails too, the connection is closed.
                    drop(tx.rollback().await);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Limits `work` to the statement time limit and 5 s more. The server's own limit does not help
    /// if the server hangs or the network drops packets.
    ///
    /// # Errors
    /// The error of `work`, or [`ErrorClass::Unavailable`] after the time limit. Then the
    /// connection of an open transaction is closed, which rolls it back.
    pub async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(StoreError::timed_out()))
    }

    /// Takes a connection without a transaction: each statement is committed by itself.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn connection(
        &self,
    ) -> Result<impl std::ops::DerefMut<Target = Conn> + use<>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Runs `work` on a connection without a transaction, within the time limit of
    /// [`Store::with_timeout`].
    ///
    /// # Errors
    /// The error of `work` or of the database.
    pub async fn with_connection<T>(
        &self,
        work: impl AsyncFnOnce(&mut Conn) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_timeout(async { work(&mut *self.connection().await?).await }).await
    }

    /// Checks that the database responds, has our schema and accepts writes: it writes to every
    /// table in a transaction that is rolled back.
    ///
    /// # Errors
    /// Why the database is not usable.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        // No other transaction claims this key, so the claim cannot block one.
        let unused_key = Uuid::now_v7();
        let claim =
            inbox::Claim { key: unused_key, receipt_id: unused_key, body_digest: unused_key };
        self.with_timeout(async {
            let mut tx = self.begin().await?;
            inbox::claim(&mut tx, &[claim]).await?;
            for insert_nothing in [
                // Not `select *`: generated columns cannot be inserted.
                "insert into orders (source) select source from orders limit 0",
                "insert into invoices select * from invoices limit 0",
                "insert into refunds select * from refunds limit 0",
                "insert into resource_changes select * from resource_changes limit 0",
                "insert into receipts select * from receipts limit 0",
                "insert into imports (source) select source from imports limit 0",
                "insert into deliveries (destination) select destination from deliveries limit 0",
                "insert into dead_letters select * from dead_letters limit 0",
                "insert into quarantine select * from quarantine limit 0",
                "insert into secret_uses select * from secret_uses limit 0",
            ] {
                tx.execute(insert_nothing).await?;
            }
            tx.rollback().await
        })
        .await
    }

    /// Checks that the database responds, for health checks.
    ///
    /// # Errors
    /// [`ErrorClass::Unavailable`] if it does not respond within 2 s.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // No permit is needed: one connection stays free for this. If the time limit ends the
        // ping, its connection is closed, and the pool loses nothing.
        let ping_once = async || {
            let tx = Tx::begin(self.pool.acquire().await?, None).await?;
            tx.rollback().await
        };
        let ping = async {
            // After a restart of the server, the pool still holds dead connections. Each fails
            // once and is removed. That is no outage.
            for _ in 0..self.pool.options().get_max_connections() {
                match ping_once().await {
                    Err(error) if error.class() == ErrorClass::Unavailable => {}
                    result => return result,
                }
            }
            ping_once().await
        };
        tokio::time::timeout(PING_TIMEOUT, ping)
            .await
            .unwrap_or_else(|_| Err(StoreError::timed_out()))
    }

    /// Applies the migrations that are missing.
    ///
    /// # Errors
    /// A migration fails, or differs from what was applied under its number.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(MIGRATIONS.run(&self.pool).await?)
    }

    /// Creates a database unless it exists.
    ///
    /// # Errors
    /// A database error.
    pub async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let exists: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(name)
                .fetch_one(&mut *connection)
                .await?;
        if !exists {
            let quoted = name.replace('"', "\"\"");
            let sql = format!("create database \"{quoted}\"");
            connection.execute(sqlx::AssertSqlSafe(sql)).await?;
        }
        Ok(())
    }

    /// The migrations that are not applied yet, each as its number and description.
    ///
    /// # Errors
    /// A database error.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let has_table = "select to_regclass('_sqlx_migrations') is not null";
        let applied: Vec<i64> = if sqlx::query_scalar(has_table).fetch_one(&mut *connection).await?
        {
            sqlx::query_scalar("select version from _sqlx_migrations where success")
                .fetch_all(&mut *connection)
                .await?
        } else {
            Vec::new()
        };
        Ok(MIGRATIONS
            .iter()
            .filter(|migration| !applied.contains(&migration.version))
            .map(|migration| format!("{:04} {}", migration.version, migration.description))
            .collect())
    }

    /// The server's version as a number: 150018 for 15.18.
    ///
    /// # Errors
    /// A database error.
    pub async fn server_version(&self) -> Result<i32, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let version: String =
            sqlx::query_scalar("show server_version_num").fetch_one(&mut *connection).await?;
        version.parse().map_err(|_| StoreError::unexpected_value("server_version_num", &version))
    }

    /// The size of the connection pool now.
    pub fn pool_state(&self) -> PoolState {
        PoolState { open: self.pool.size(), idle: self.pool.num_idle() }
    }

    /// Closes all connections. Waits up to 5 s for those in use.
    pub async fn close(&self) {
        // Connections to a server that hangs are closed when the process ends.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await);
    }

    /// Executes SQL text as it is, for tests and tools.
    ///
    /// # Errors
    /// A database error.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await?;
        Ok(())
    }
}
