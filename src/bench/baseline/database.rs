//! What the bench asks of its own databases and the product never does.

use sqlx::Executor as _;
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Empties every table of ours but the records of migrations and retention, and has the
/// server write out what it holds back: each round begins alike.
///
/// # Errors
/// What the database says.
pub async fn clear(store: &Store) -> Result<(), StoreError> {
    store
        .execute(
            "do $$ declare names text; begin
                select string_agg(format('%I', tablename), ', ') into names
                from pg_tables where schemaname = 'public' and tablename not in ('_sqlx_migrations', 'receipts_past');
                execute 'truncate ' || names || ' cascade';
            end $$",
        )
        .await?;
    settle(store).await;
    Ok(())
}

/// Has the server write out what it holds back. Not every role may; then it
/// does so when it likes.
pub async fn settle(store: &Store) {
    drop(store.execute("checkpoint").await);
}

/// Puts keys into the inbox, made by the server: the same for the same
/// numbers, and as random as a digest.
///
/// # Errors
/// What the database says.
pub async fn fill_inbox(store: &Store, from: i64, to: i64) -> Result<(), StoreError> {
    let mut connection = store.connection().await?;
    sqlx::query(
        "insert into inbox (key, receipt_id, body_digest)
         select md5(n::text)::uuid, gen_random_uuid(), gen_random_uuid()
         from generate_series($1::bigint, $2::bigint) as n",
    )
    .bind(from)
    .bind(to)
    .execute(&mut *connection)
    .await?;
    Ok(())
}

/// The keys that [`fill_inbox`] makes for these numbers.
///
/// # Errors
/// What the database says.
pub async fn inbox_keys(store: &Store, numbers: &[i64]) -> Result<Vec<Uuid>, StoreError> {
    let mut connection = store.connection().await?;
    let keys = sqlx::query_scalar("select md5(n::text)::uuid from unnest($1::bigint[]) as n")
        .bind(numbers)
        .fetch_all(&mut *connection)
        .await?;
    Ok(keys)
}

/// Leaves the inbox as autovacuum would.
///
/// # Errors
/// What the database says.
pub async fn vacuum_inbox(store: &Store) -> Result<(), StoreError> {
    let mut connection = store.connection().await?;
    connection.execute("vacuum (analyze) inbox").await?;
    drop(connection);
    settle(store).await;
    Ok(())
}

/// How many bytes the inbox takes, with its index.
///
/// # Errors
/// What the database says.
pub async fn inbox_bytes(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let bytes = sqlx::query_scalar("select pg_table_size('inbox') + pg_indexes_size('inbox')")
        .fetch_one(&mut *connection)
        .await?;
    Ok(bytes)
}

/// How many messages are on record.
///
/// # Errors
/// What the database says.
pub async fn receipts(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let count =
        sqlx::query_scalar("select count(*) from receipts").fetch_one(&mut *connection).await?;
    Ok(count)
}

/// The server's version, as it calls it.
///
/// # Errors
/// What the database says.
pub async fn version(store: &Store) -> Result<String, StoreError> {
    let mut connection = store.connection().await?;
    let version: String =
        sqlx::query_scalar("show server_version").fetch_one(&mut *connection).await?;
    // Distributions add a note in brackets.
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
