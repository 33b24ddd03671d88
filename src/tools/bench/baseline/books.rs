//! What the server tells of the product's tables: what they take, and what
//! lies dead in them. A partitioned table is the sum of its partitions.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use crate::store::{Store, StoreError};

/// The tables that a message touches.
pub const TABLES: [&str; 4] = ["inbox", "orders", "invoices", "receipts"];

/// What the server tells of one table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What its rows take, large values and free space included.
    pub table_bytes: i64,
    /// What its indexes take.
    pub index_bytes: i64,
    /// Rows, as far as the server knows.
    pub live: i64,
    /// Rows that nobody sees any more, and whose room is not free yet.
    pub dead: i64,
    /// Rows that were ever inserted.
    pub inserted: i64,
    /// Rows that were ever deleted.
    pub deleted: i64,
    /// Rows that were ever updated.
    pub updated: i64,
    /// Of these, without a new entry in any index (HOT).
    pub updated_hot: i64,
}

/// Looks at all of them.
///
/// Sizes are of this moment; counts may be a second old, since sessions tell
/// theirs once a second.
///
/// # Errors
/// What the database says.
pub async fn look(store: &Store) -> Result<BTreeMap<&'static str, Told>, StoreError> {
    let mut connection = store.connection().await?;
    let mut found = BTreeMap::new();
    for table in TABLES {
        let told: [i64; 8] = sqlx::query_scalar(
            "select array[
                coalesce(sum(pg_table_size(part.relid)), 0),
                coalesce(sum(pg_indexes_size(part.relid)), 0),
                coalesce(sum(n_live_tup), 0), coalesce(sum(n_dead_tup), 0),
                coalesce(sum(n_tup_ins), 0), coalesce(sum(n_tup_del), 0),
                coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_hot_upd), 0)]::bigint[]
             -- The table itself too: one without partitions is no tree.
             from (select relid from pg_partition_tree(to_regclass($1))
                   union select to_regclass($1)) as part
             left join pg_stat_user_tables as told on told.relid = part.relid",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
        let [table_bytes, index_bytes, live, dead, inserted, deleted, updated, updated_hot] = told;
        let told =
            Told { table_bytes, index_bytes, live, dead, inserted, deleted, updated, updated_hot };
        found.insert(table, told);
    }
    Ok(found)
}

/// How much the server has ever written to its write-ahead log, in bytes: all
/// of its databases together.
///
/// # Errors
/// What the database says.
pub async fn wal_bytes(store: &Store) -> Result<i64, StoreError> {
    let mut connection = store.connection().await?;
    let bytes = sqlx::query_scalar("select (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint")
        .fetch_one(&mut *connection)
        .await?;
    Ok(bytes)
}

/// Which of these messages are on record, for everybody to see.
///
/// # Errors
/// What the database says.
pub async fn on_record(store: &Store, receipts: &[Uuid]) -> Result<HashSet<Uuid>, StoreError> {
    let mut connection = store.connection().await?;
    let there: Vec<Uuid> =
        sqlx::query_scalar("select receipt_id from receipts where receipt_id = any($1)")
            .bind(receipts)
            // Planned anew each time: a plan of when the table was empty would
            // read the whole of it.
            .persistent(false)
            .fetch_all(&mut *connection)
            .await?;
    Ok(there.into_iter().collect())
}
