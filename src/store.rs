//! PostgreSQL: the inbox, the books, the call log and the dead letters.
//!
//! The only place that speaks SQL. Functions take a connection, so that the
//! caller owns the transaction; every set statement is sorted by its key and
//! tables are always written in the order inbox, payments, orders, refunds,
//! invoices, references, receipts, dead letters, deliveries, quarantine,
//! imports: two batches in another order would deadlock.

pub mod audit_log;
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

/// A connection within or without a transaction.
pub type Conn = sqlx::PgConnection;

/// What a statement did to a row of the books.
fn write_kind(is_new: bool) -> WriteKind {
    if is_new { WriteKind::Created } else { WriteKind::Updated }
}

/// Whatever a server's default is: claims rely on it (see [`inbox_findings`]), and
/// nothing here expects to be told that it could not be serialized.
const SET_ISOLATION: &str = "set default_transaction_isolation = 'read committed'";
/// How long the database may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long closing may wait for connections in use.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    /// Transactions wait here for their turn, however long: a busy pool is no
    /// outage. One connection is left for what is measured beside them.
    transaction_permits: Arc<Semaphore>,
    /// How long one piece of work may take.
    timeout: Duration,
}

/// How many connections there are and how many of them are idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// Open connections.
    pub open: u32,
    /// Open connections that nobody uses.
    pub idle: usize,
}

impl Store {
    /// Prepares a pool; connects when it is first used.
    ///
    /// # Errors
    /// The URL is not one of PostgreSQL's.
    pub fn new(settings: &config::DatabaseConfig) -> Result<Self, StoreError> {
        let limit = settings.statement_timeout_ms;
        let hurry = format!("; set statement_timeout = {limit}");
        Self::with_session_settings(
            settings,
            &hurry,
            Duration::from_millis(limit) + Duration::from_secs(5),
        )
    }

    /// The same for work that takes as long as it takes: migrations, sums.
    ///
    /// # Errors
    /// As [`Store::from_accepted`].
    pub fn without_timeout(settings: &config::DatabaseConfig) -> Result<Self, StoreError> {
        Self::with_session_settings(settings, "", Duration::MAX)
    }

    fn with_session_settings(
        settings: &config::DatabaseConfig,
        hurry: &str,
        patience: Duration,
    ) -> Result<Self, StoreError> {
        // As statements, not as startup options: PgBouncer refuses those.
        let greeting = format!("{SET_ISOLATION}{hurry}");
        let options: PgConnectOptions = settings.url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(Duration::from_millis(settings.connect_timeout_ms))
            // A lost connection shows itself in the first statement, which is
            // tried again; a ping before each batch would cost a round trip.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let greeting = greeting.clone();
                Box::pin(async move {
                    connection.execute(sqlx::AssertSqlSafe(greeting)).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(options.application_name("tallyhook"));
        let turns = Semaphore::new(settings.max_connections.saturating_sub(1).max(1) as usize);
        Ok(Self { pool, transaction_permits: Arc::new(turns), timeout: patience })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`ErrorClass::Away`] if no connection comes in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        // Nobody closes the semaphore.
        let turn = Arc::clone(&self.transaction_permits).acquire_owned().await.ok();
        Tx::begin(self.pool.acquire().await?, turn).await
    }

    /// Gives work the time that a statement may take, and a little more: the
    /// server's own limit does not help against a server that hangs, or a
    /// network that swallows everything.
    ///
    /// # Errors
    /// The work's own, or [`ErrorClass::Away`] when the time is up. Then its
    /// transaction's connection is closed, and it is as after a crash.
    pub async fn with_timeout<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(StoreError::timed_out()))
    }

    /// Takes a connection, each statement being a transaction of its own.
    ///
    /// # Errors
    /// As [`Store::begin`].
    pub async fn connection(
        &self,
    ) -> Result<impl std::ops::DerefMut<Target = Conn> + use<>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// Whether the database answers, has our schema and can be written to:
    /// found out by writing, and taking it back.
    ///
    /// # Errors
    /// The reason why not.
    pub async fn check_writable(&self) -> Result<(), StoreError> {
        // A key that nobody else claims at this moment: they would wait.
        let nobody = Uuid::now_v7();
        let claim = inbox::Claim { key: nobody, receipt_id: nobody, body_digest: nobody };
        self.with_timeout(async {
            let mut tx = self.begin().await?;
            inbox::claim(&mut tx, &[claim]).await?;
            for nothing in [
                // Not `select *`: a column is computed, and none is written.
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
                tx.execute(nothing).await?;
            }
            tx.rollback().await
        })
        .await
    }

    /// Whether the database answers at this moment, for who asks how it is.
    ///
    /// # Errors
    /// [`ErrorClass::Away`] if it does not within two seconds.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // No turn is waited for: a connection is kept free for this. Given up
        // in the middle, it is closed, so that asking costs the pool nothing.
        let ask = async || {
            let tx = Tx::begin(self.pool.acquire().await?, None).await?;
            tx.rollback().await
        };
        let asked = async {
            // After a restart the pool still holds connections that are dead.
            // Each shows it once, and is gone: no outage.
            for _ in 0..self.pool.options().get_max_connections() {
                match ask().await {
                    Err(error) if error.class() == ErrorClass::Unavailable => {}
                    answer => return answer,
                }
            }
            ask().await
        };
        tokio::time::timeout(PING_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(StoreError::timed_out()))
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// A migration that fails, or that differs from what was once applied.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        Ok(MIGRATIONS.run(&self.pool).await?)
    }

    /// Makes a database, if it is not there yet.
    ///
    /// # Errors
    /// What the database says.
    pub async fn create_database(&self, name: &str) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let known: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(name)
                .fetch_one(&mut *connection)
                .await?;
        if !known {
            let quoted = name.replace('"', "\"\"");
            let sql = format!("create database \"{quoted}\"");
            connection.execute(sqlx::AssertSqlSafe(sql)).await?;
        }
        Ok(())
    }

    /// The names of the migrations that have not been applied yet.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn pending_migrations(&self) -> Result<Vec<String>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let known = "select to_regclass('_sqlx_migrations') is not null";
        let applied: Vec<i64> = if sqlx::query_scalar(known).fetch_one(&mut *connection).await? {
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
    /// The database cannot be asked.
    pub async fn server_version(&self) -> Result<i32, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let version: String =
            sqlx::query_scalar("show server_version_num").fetch_one(&mut *connection).await?;
        version.parse().map_err(|_| StoreError::unexpected_value("server_version_num", &version))
    }

    /// The state of the pool.
    pub fn pool_state(&self) -> PoolState {
        PoolState { open: self.pool.size(), idle: self.pool.num_idle() }
    }

    /// Closes every connection, waiting a while for those in use.
    pub async fn close(&self) {
        // Those of a server that hangs are closed with the process.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, self.pool.close()).await);
    }

    /// Runs SQL as it stands: for tests and tools that go around the store.
    ///
    /// # Errors
    /// What the database says.
    pub async fn execute(&self, sql: &str) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await?;
        Ok(())
    }
}
