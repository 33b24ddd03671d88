//! PostgreSQL: the inbox, the books, the call log and the dead letters.
//!
//! The only place that speaks SQL. Functions take a connection, so that the
//! caller owns the transaction; every set statement is sorted by its key and
//! tables are always written in the order inbox, orders, invoices, receipts,
//! dead letters: two batches in another order would deadlock.

pub mod acts;
pub mod audit;
pub mod dead_letters;
pub mod fault;
pub mod inbox;
pub mod invoices;
pub mod orders;
pub mod receipts;
pub mod trace;

use std::time::Duration;

use sqlx::{
    Executor as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use uuid::Uuid;

use crate::config;
pub use fault::{Fault, StoreError};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// A transaction; rolled back when dropped.
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// A connection within or without a transaction.
pub type Conn = sqlx::PgConnection;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
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
    pub fn new(settings: &config::Database) -> Result<Self, StoreError> {
        let options: PgConnectOptions = settings.url.parse()?;
        let options = options
            .application_name("tallyhook")
            .options([("statement_timeout", settings.statement_timeout_ms.to_string())]);
        let pool = PgPoolOptions::new()
            .max_connections(settings.connections)
            .acquire_timeout(Duration::from_millis(settings.connect_timeout_ms))
            // A lost connection shows itself in the first statement, which is
            // tried again; a ping before each batch would cost a round trip.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Fault::Away`] if no connection comes in time.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.pool.begin().await?)
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
    pub async fn probe(&self) -> Result<(), StoreError> {
        let mut tx = self.pool.begin().await?;
        let claim =
            inbox::Claim { key: Uuid::nil(), receipt_id: Uuid::nil(), body_digest: Uuid::nil() };
        inbox::claim(&mut tx, &[claim]).await?;
        sqlx::query("select from orders, invoices, receipts, dead_letters, replays limit 0")
            .execute(&mut *tx)
            .await?;
        tx.rollback().await?;
        Ok(())
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
        version.parse().map_err(|_| StoreError::odd_answer("server_version_num", &version))
    }

    /// The state of the pool.
    pub fn pool_state(&self) -> PoolState {
        PoolState { open: self.pool.size(), idle: self.pool.num_idle() }
    }

    /// Closes every connection, waiting for those in use.
    pub async fn close(&self) {
        self.pool.close().await;
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
