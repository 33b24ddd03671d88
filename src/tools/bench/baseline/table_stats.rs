//! PostgreSQL's statistics of the product's tables. A partitioned table is the
//! sum of its partitions.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::store::{Store, StoreError};

/// The tables that every message writes to.
pub(in crate::tools::bench) const TABLES: [&str; 4] = ["inbox", "orders", "invoices", "receipts"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::tools::bench) struct TableStats {
    /// Rows, large values and free space.
    pub(in crate::tools::bench) table_bytes: i64,
    pub(in crate::tools::bench) index_bytes: i64,
    pub(in crate::tools::bench) live: i64,
    pub(in crate::tools::bench) dead: i64,
    pub(in crate::tools::bench) inserted: i64,
    pub(in crate::tools::bench) deleted: i64,
    pub(in crate::tools::bench) updated: i64,
    /// Updates without a new index entry (HOT).
    pub(in crate::tools::bench) updated_hot: i64,
}

/// Reads the statistics of all tables. Counts may be a second old, because
/// sessions report them once a second.
pub(in crate::tools::bench) async fn read(
    store: &Store,
) -> Result<BTreeMap<&'static str, TableStats>, StoreError> {
    let mut connection = store.connection().await?;
    let mut found = BTreeMap::new();
    for table in TABLES {
        let figures: [i64; 8] = sqlx::query_scalar(
            "select array[
                coalesce(sum(pg_table_size(part.relid)), 0),
                coalesce(sum(pg_indexes_size(part.relid)), 0),
                coalesce(sum(n_live_tup), 0), coalesce(sum(n_dead_tup), 0),
                coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_del), 0),
                coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_hot_upd), 0)]::bigint[]
             -- The union covers tables without partitions.
             from (select relid from pg_partition_tree(to_regclass($1))
                   union select to_regclass($1)) as part
             left join pg_stat_user_tables as stats on stats.relid = part.relid",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
        let [table_bytes, index_bytes, live, dead, inserted, deleted, updated, updated_hot] =
            figures;
        let stats = TableStats {
            table_bytes,
            index_bytes,
            live,
            dead,
            inserted,
            deleted,
            updated,
            updated_hot,
        };
        found.insert(table, stats);
    }
    Ok(found)
}

/// The bytes that the server ever wrote to its write-ahead log, for all databases.
pub(in crate::tools::bench) async fn wal_bytes(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let bytes = sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
        .fetch_one(&mut *connection)
        .await?;
    Ok(bytes)
}

/// Those of these receipts that are committed.
pub(in crate::tools::bench) async fn visible_receipts(
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
