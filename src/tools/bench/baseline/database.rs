//! What the bench asks of its own databases and the product never does.

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
                from pg_tables where schemaname = 'public' and tablename not in ('_sqlx_migrations', 'receipts_dropped_partitions');
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

/// The generation of the inbox that new keys go to.
///
/// # Errors
/// What the database says.
pub async fn open_generation(store: &Store) -> Result<i32, StoreError> {
    let mut connection = store.connection().await?;
    let open = sqlx::query_scalar(
        "select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
         where adrelid = 'inbox'::regclass",
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(open)
}

/// Makes a generation that is closed and still empty, or takes the index of
/// the open one away: many keys are inserted faster without.
///
/// # Errors
/// What the database says.
pub async fn begin_filling(
    store: &Store,
    generation: i32,
    is_open: bool,
) -> Result<(), StoreError> {
    let table = format!("inbox_p{generation}");
    let sql = if is_open {
        format!("alter table {table} drop constraint {table}_pkey")
    } else {
        format!("create table {table} (like inbox)")
    };
    store.execute(&sql).await
}

/// Puts keys into a generation, made by the server: the same for the same
/// numbers, and as random as a digest.
///
/// # Errors
/// What the database says.
pub async fn fill(store: &Store, generation: i32, from: u64, to: u64) -> Result<(), StoreError> {
    let sql = format!(
        "insert into inbox_p{generation} (key, receipt_id, body_digest, partition_hour)
         select md5(n::text)::uuid, gen_random_uuid(), gen_random_uuid(), {generation}
         from generate_series({from}, {to}) as n"
    );
    store.execute(&sql).await
}

/// Gives a generation its index, as full as random inserts would have left
/// it, and leaves it as housekeeping or autovacuum would.
///
/// # Errors
/// What the database says.
pub async fn end_filling(store: &Store, generation: i32, is_open: bool) -> Result<(), StoreError> {
    let table = format!("inbox_p{generation}");
    let keyed = format!("alter table {table} add primary key (key) with (fillfactor = 70)");
    store.execute(&keyed).await?;
    if !is_open {
        let attached =
            format!("alter table inbox attach partition {table} for values in ({generation})");
        store.execute(&attached).await?;
    }
    store.execute(&format!("vacuum (freeze, analyze) {table}")).await
}

/// The keys that [`fill`] makes for these numbers.
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

/// How many bytes the inbox takes, with its indexes.
///
/// # Errors
/// What the database says.
pub async fn inbox_bytes(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let bytes = sqlx::query_scalar(
        "select sum(pg_total_relation_size(inhrelid))::bigint from pg_inherits
         where inhparent = 'inbox'::regclass",
    )
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
