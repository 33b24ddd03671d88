//! PostgreSQL's statistics of the product's tables. A partitioned table is the
//! sum of its partitions.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::database::value;
use crate::store::{Store, StoreError};

/// The tables that every message writes to.
pub(crate) const TABLES: [&str; 4] = ["inbox", "orders", "invoices", "receipts"];

#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub(crate) struct TableStats {
    /// Rows, large values and free space.
    pub(crate) table_bytes: i64,
    pub(crate) index_bytes: i64,
    pub(crate) live: i64,
    pub(crate) dead: i64,
    /// Inserted minus deleted.
    pub(crate) rows: i64,
    pub(crate) updated: i64,
    /// Updates without a new index entry (HOT).
    pub(crate) updated_hot: i64,
}

/// Reads the statistics of all tables. Counts may be a second old, because
/// sessions report them once a second.
pub(crate) async fn read(store: &Store) -> Result<BTreeMap<&'static str, TableStats>, StoreError> {
    let mut connection = store.connection().await?;
    let mut found = BTreeMap::new();
    for table in TABLES {
        let stats = sqlx::query_as(
            "select coalesce(sum(pg_table_size(part.relid)), 0)::bigint as table_bytes,
                coalesce(sum(pg_indexes_size(part.relid)), 0)::bigint as index_bytes,
                coalesce(sum(n_live_tup), 0)::bigint as live,
                coalesce(sum(n_dead_tup), 0)::bigint as dead,
                coalesce(sum(n_tup_ins - n_tup_del), 0)::bigint as rows,
                coalesce(sum(n_tup_upd), 0)::bigint as updated,
                coalesce(sum(n_tup_hot_upd), 0)::bigint as updated_hot
             -- The union covers tables without partitions.
             from (select relid from pg_partition_tree(to_regclass($1))
                   union select to_regclass($1)) as part
             left join pg_stat_user_tables as stats on stats.relid = part.relid",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
        found.insert(table, stats);
    }
    Ok(found)
}

/// The bytes that the server ever wrote to its write-ahead log, for all databases.
pub(crate) async fn wal_bytes(store: &Store) -> Result<i64, StoreError> {
    value(&mut *store.connection().await?, "select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
        .await
}

/// Those of these receipts that are committed.
pub(crate) async fn visible_receipts(
    store: &Store,
    receipts: &[Uuid],
) -> Result<HashSet<Uuid>, StoreError> {
    let mut connection = store.connection().await?;
    let visible: Vec<Uuid> =
        sqlx::query_scalar("select receipt_id from receipts where receipt_id = any($1)")
            .bind(receipts)
            // Planned each time: a plan made while the table was empty would
            // scan all of it.
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?;
    Ok(visible.into_iter().collect())
}
