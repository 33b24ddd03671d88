//! SQL for the bench's own databases.

use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Empties all tables except those of migrations and retention, and runs a
/// checkpoint, so that all runs start alike.
pub(in crate::tools::bench) async fn clear(store: &Store) -> Result<(), StoreError> {
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
pub(in crate::tools::bench) async fn checkpoint(store: &Store) {
    drop(store.execute("checkpoint").await);
}

/// The partition of the inbox that new keys go to.
pub(in crate::tools::bench) async fn open_partition(store: &Store) -> Result<i32, StoreError> {
    let mut connection = store.connection().await?;
    let open = sqlx::query_scalar(
        "select pg_get_expr(adbin, adrelid)::integer from pg_attrdef
         where adrelid = 'inbox'::regclass",
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(open)
}

/// Creates an empty closed partition, or drops the open one's index: inserts
/// are faster without.
pub(in crate::tools::bench) async fn begin_filling(
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
pub(in crate::tools::bench) async fn fill(
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
pub(in crate::tools::bench) async fn end_filling(
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
pub(in crate::tools::bench) async fn inbox_keys(
    store: &Store,
    numbers: &[i64],
) -> Result<Vec<Uuid>, StoreError> {
    let mut connection = store.connection().await?;
    let keys = sqlx::query_scalar("select md5(n::text)::uuid from unnest($1::bigint[]) as n")
        .bind(numbers)
        .fetch_all(&mut *connection)
        .await?;
    Ok(keys)
}

/// The size of the inbox with its indexes, in bytes.
pub(in crate::tools::bench) async fn inbox_bytes(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let bytes = sqlx::query_scalar(
        "select sum(pg_total_relation_size(inhrelid))::bigint from pg_inherits
         where inhparent = 'inbox'::regclass",
    )
    .fetch_one(&mut *connection)
    .await?;
    Ok(bytes)
}

/// The number of receipts.
pub(in crate::tools::bench) async fn receipts(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let count =
        sqlx::query_scalar("select count(*) from receipts").fetch_one(&mut *connection).await?;
    Ok(count)
}

/// The server's version number.
pub(in crate::tools::bench) async fn version(store: &Store) -> Result<String, StoreError> {
    let mut connection = store.connection().await?;
    let version: String =
        sqlx::query_scalar("show server_version").fetch_one(&mut *connection).await?;
    // Distributions append a note in parentheses.
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}
