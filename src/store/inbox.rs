//! The transactional inbox: which event keys were processed.
//!
//! The table is [partitioned](partitions); one partition is active and takes new keys. No two
//! transactions claim one key, although no index covers all partitions:
//!
//! - Every claim locks the inbox in ROW EXCLUSIVE mode until its transaction ends. Creating the next
//!   partition locks it in ACCESS EXCLUSIVE mode. So no claim is under way while the active
//!   partition changes.
//! - Of two claims of one key, either both use the same partition, whose unique index decides; or a
//!   partition was created between them, and the earlier claim had committed before the later one
//!   got its lock.
//! - At the isolation level READ COMMITTED, which [`Store`](super::Store) sets, PostgreSQL takes the
//!   snapshot of a statement after it has acquired the locks of its plan. So the later claim sees
//!   what the earlier one committed, in every partition. A cached plan for the former active
//!   partition is discarded: with the lock, the session learns that the column's default changed.
//!
//! `tests/it/inbox_partitions.rs` tests this.

pub mod partitions;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Conn, StoreError};

/// A message's claim of its event key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// [`crate::domain::EventKey::inbox_id`].
    pub key: Uuid,
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The first 16 bytes of the SHA-256 of its body.
    pub body_digest: Uuid,
}

/// The message that processed a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessedKey {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The first 16 bytes of the SHA-256 of its body.
    pub body_digest: Uuid,
}

/// The results of claims.
#[derive(Clone, Debug, Default)]
pub struct ClaimResult {
    /// The keys that the claims won.
    pub won: HashSet<Uuid>,
    /// The keys that were processed before.
    pub existing: HashMap<Uuid, ProcessedKey>,
}

/// Claims keys; no two claims may have the same key.
///
/// If another open transaction has claimed a key, this waits for its end. That keeps two workers
/// from applying one event twice.
///
/// # Errors
/// A database error.
pub async fn claim(conn: &mut Conn, claims: &[Claim]) -> Result<ClaimResult, StoreError> {
    let keys = column!(claims, claim => claim.key);
    let rows = sqlx::query!(
        r#"
        with existing as materialized (
            select key, receipt_id, body_digest from inbox_lookup($1)
        ), won as (
            insert into inbox (key, receipt_id, body_digest)
            select key, receipt_id, body_digest
            from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as claim (key, receipt_id, body_digest)
            where not exists (select from existing where existing.key = claim.key)
            order by key
            on conflict do nothing
            returning key
        )
        select key as "key!", null::uuid as receipt_id, null::uuid as body_digest from won
        union all
        select key, receipt_id, body_digest from existing
        "#,
        &keys,
        &column!(claims, claim => claim.receipt_id),
        &column!(claims, claim => claim.body_digest),
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut result = ClaimResult::default();
    for row in rows {
        match (row.receipt_id, row.body_digest) {
            (Some(receipt_id), Some(body_digest)) => {
                result.existing.insert(row.key, ProcessedKey { receipt_id, body_digest });
            }
            _ => {
                result.won.insert(row.key);
            }
        }
    }
    // A key in neither set was claimed by a concurrent transaction that committed while this one
    // waited. Only a later snapshot shows its row.
    let is_known = |key: &Uuid| result.won.contains(key) || result.existing.contains_key(key);
    let concurrent: Vec<Uuid> = keys.into_iter().filter(|key| !is_known(key)).collect();
    if !concurrent.is_empty() {
        result.existing.extend(lookup(conn, &concurrent).await?);
    }
    Ok(result)
}

/// Deletes claims of this transaction, given as key and receipt: their messages had no effect.
///
/// # Errors
/// A database error.
pub async fn release(conn: &mut Conn, claims: &[(Uuid, Uuid)]) -> Result<(), StoreError> {
    let keys = column!(claims, (key, _) => *key);
    let receipt_ids = column!(claims, (_, receipt_id) => *receipt_id);
    sqlx::query!("select from inbox_unclaim($1, $2)", &keys, &receipt_ids).execute(conn).await?;
    Ok(())
}

/// Finds which of these keys were processed, and by which message.
///
/// # Errors
/// A database error.
pub async fn lookup(
    conn: &mut Conn,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, ProcessedKey>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select key as "key!", receipt_id as "receipt_id!", body_digest as "body_digest!"
        from inbox_lookup($1)
        "#,
        keys
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let (receipt_id, body_digest) = (row.receipt_id, row.body_digest);
            (row.key, ProcessedKey { receipt_id, body_digest })
        })
        .collect())
}
