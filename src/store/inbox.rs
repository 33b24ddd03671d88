//! The transactional inbox: which event keys have had their effect.
//!
//! It is kept in generations (see [`partitions`]), of which one is open: new
//! keys go there. No two transactions claim one key, although no index spans
//! the generations:
//!
//! - Every claim locks the inbox ROW EXCLUSIVE until its transaction ends, and
//!   whoever opens the next generation locks it ACCESS EXCLUSIVE. So while the
//!   open generation changes, no claim is under way.
//! - Of two claims, then, either both put their keys into the same generation,
//!   whose unique index decides; or another one was opened between them, and
//!   the earlier one had committed before the later one got its lock.
//! - PostgreSQL takes the snapshot of a statement after the locks of its plan,
//!   at the isolation level READ COMMITTED, which [`Store`](super::Store) sets.
//!   So the later one sees what the earlier one committed, in whichever
//!   generation. And a plan that was made for another open generation is made
//!   anew: getting the lock, the session hears that the column's default was
//!   changed.
//!
//! The tests in `tests/it/generations.rs` try it.

pub mod partitions;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::{Conn, StoreError};

/// A message's wish to be the one that settles its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// [`crate::domain::EventKey::inbox_id`].
    pub key: Uuid,
    /// The message.
    pub receipt_id: Uuid,
    /// The first 16 bytes of the SHA-256 of its body.
    pub body_digest: Uuid,
}

/// Who settled a key, and with which body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessedKey {
    /// The message that did.
    pub receipt_id: Uuid,
    /// The first 16 bytes of the SHA-256 of its body.
    pub body_digest: Uuid,
}

/// What became of claims.
#[derive(Clone, Debug, Default)]
pub struct ClaimResult {
    /// The keys that were free, and are the claimants' now.
    pub won: HashSet<Uuid>,
    /// The rest, which had been settled before.
    pub existing: HashMap<Uuid, ProcessedKey>,
}

/// Claims keys, each of which must be there once.
///
/// A claim of a key that another transaction has just claimed waits for that
/// one's end: this is what keeps two workers from applying one event twice.
///
/// # Errors
/// What the database says.
pub async fn claim(conn: &mut Conn, claims: &[Claim]) -> Result<ClaimResult, StoreError> {
    let keys: Vec<Uuid> = claims.iter().map(|claim| claim.key).collect();
    let receipts: Vec<Uuid> = claims.iter().map(|claim| claim.receipt_id).collect();
    let digests: Vec<Uuid> = claims.iter().map(|claim| claim.body_digest).collect();
    let rows = sqlx::query!(
        r#"
        with settled as materialized (
            select key, receipt_id, body_digest from inbox_lookup($1)
        ), free as (
            insert into inbox (key, receipt_id, body_digest)
            select key, receipt_id, body_digest
            from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as claim (key, receipt_id, body_digest)
            where not exists (select from settled where settled.key = claim.key)
            order by key
            on conflict do nothing
            returning key
        )
        select key as "key!", null::uuid as receipt_id, null::uuid as body_digest from free
        union all
        select key, receipt_id, body_digest from settled
        "#,
        &keys,
        &receipts,
        &digests,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut claimed = ClaimResult::default();
    for row in rows {
        match (row.receipt_id, row.body_digest) {
            (Some(receipt_id), Some(body_digest)) => {
                claimed.existing.insert(row.key, ProcessedKey { receipt_id, body_digest });
            }
            _ => {
                claimed.won.insert(row.key);
            }
        }
    }
    // Another transaction claimed these in that very moment, and committed
    // while we waited for it: only a later snapshot shows what it wrote.
    let told = |key: &Uuid| claimed.won.contains(key) || claimed.existing.contains_key(key);
    let unseen: Vec<Uuid> = keys.into_iter().filter(|key| !told(key)).collect();
    if !unseen.is_empty() {
        claimed.existing.extend(lookup(conn, &unseen).await?);
    }
    Ok(claimed)
}

/// Gives claims back that these messages made in this transaction: what a
/// person must see first has had no effect yet.
///
/// # Errors
/// What the database says.
pub async fn release(conn: &mut Conn, claims: &[(Uuid, Uuid)]) -> Result<(), StoreError> {
    let keys: Vec<Uuid> = claims.iter().map(|(key, _)| *key).collect();
    let receipts: Vec<Uuid> = claims.iter().map(|(_, receipt_id)| *receipt_id).collect();
    sqlx::query!("select from inbox_unclaim($1, $2)", &keys, &receipts).execute(conn).await?;
    Ok(())
}

/// Who settled these keys, of those that are settled.
///
/// # Errors
/// What the database says.
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
            (row.key, ProcessedKey { receipt_id: row.receipt_id, body_digest: row.body_digest })
        })
        .collect())
}
