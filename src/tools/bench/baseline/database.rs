//! SQL for the bench's own databases.

use sqlx::{Decode, Postgres, Type};
use uuid::Uuid;

use crate::store::{Conn, Store, StoreError};

/// The only value that a query returns.
pub(super) async fn value<T>(conn: &mut Conn, sql: &'static str) -> Result<T, StoreError>
where
    T: for<'r> Decode<'r, Postgres> + Type<Postgres> + Send + Unpin,
{
    Ok(sqlx::query_scalar(sql).fetch_one(conn).await?)
}

/// Empties all tables except those of migrations and retention, and runs a
/// checkpoint, so that all runs start alike.
pub(crate) async fn clear(store: &Store) -> Result<(), StoreError> {
    store
        .execute(
            "do $$ declare names text; begin
                select string_agg(format('%I', tablename), ', ') into names
                from pg_tables where schemaname = 'public' and tablename not in ('_sqlx_migrations', 'receipts_dropped_partitions');
                execute 'truncate ' || names || ' cascade';
            end $$",
        )
        .await?;
    checkpoint(store).await;
    Ok(())
}

/// Runs a checkpoint, if the role may.
pub(crate) async fn checkpoint(store: &Store) {
    drop(store.execute("checkpoint").await);
}

/// The partition of the inbox that new keys go to.
pub(crate) async fn open_partition(store: &Store) -> Result<i32, StoreError> {
    value(
        &mut *store.connection().await?,
        "select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
         where adrelid = 'inbox'::regclass",
    )
    .await
}

/// Creates an empty closed partition, or drops the open one's index: inserts
/// are faster without.
pub(crate) async fn begin_filling(
    store: &Store,
    partition: i32,
    is_open: bool,
) -> Result<(), StoreError> {
    let table = format!("inbox_p{partition}");
    let sql = if is_open {
        format!("alter table {table} drop constraint {table}_pkey")
    } else {
        format!("create table {table} (like inbox)")
    };
    store.execute(&sql).await
}

/// Inserts generated keys into a partition: the same for the same numbers, and
/// as random as digests.
pub(crate) async fn fill(
    store: &Store,
    partition: i32,
    from: u64,
    to: u64,
) -> Result<(), StoreError> {
    let sql = format!(
        "insert into inbox_p{partition} (key, receipt_id, body_digest, partition_hour)
         select md5(n::text)::uuid, gen_random_uuid(), gen_random_uuid(), {partition}
         from generate_series({from}, {to}) as n"
    );
    store.execute(&sql).await
}

/// Creates a partition's index, as full as random inserts would leave it, and
/// vacuums it as maintenance or autovacuum would.
pub(crate) async fn end_filling(
    store: &Store,
    partition: i32,
    is_open: bool,
) -> Result<(), StoreError> {
    let table = format!("inbox_p{partition}");
    let keyed = format!("alter table {table} add primary key (key) with (fillfactor = 70)");
    store.execute(&keyed).await?;
    if !is_open {
        let attached =
            format!("alter table inbox attach partition {table} for values in ({partition})");
        store.execute(&attached).await?;
    }
    store.execute(&format!("vacuum (freeze, analyze) {table}")).await
}

/// The keys that [`fill`] makes for these numbers.
pub(crate) async fn inbox_keys(store: &Store, numbers: &[i64]) -> Result<Vec<Uuid>, StoreError> {
    let mut connection = store.connection().await?;
    let keys = sqlx::query_scalar("select md5(n::text)::uuid from unnest($1::bigint[]) as n")
        .bind(numbers)
        .fetch_all(&mut *connection)
        .await?;
    Ok(keys)
}

/// The size of the inbox with its indexes, in bytes.
pub(crate) async fn inbox_bytes(store: &Store) -> Result<i64, StoreError> {
    value(
        &mut *store.connection().await?,
        "select sum(pg_total_relation_size(inhrelid))::bigint from pg_inherits
         where inhparent = 'inbox'::regclass",
    )
    .await
}

/// The number of receipts.
pub(crate) async fn receipts(store: &Store) -> Result<i64, StoreError> {
    value(&mut *store.connection().await?, "select count(*) from receipts").await
}

/// The server's version number.
pub(crate) async fn version(store: &Store) -> Result<String, StoreError> {
    let version: String = value(&mut *store.connection().await?, "show server_version").await?;
    // Distributions append a note in parentheses.
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
