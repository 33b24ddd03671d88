//! The transactional inbox: which event keys have had their effect.

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
pub struct Settled {
    /// The message that did.
    pub receipt_id: Uuid,
    /// The first 16 bytes of the SHA-256 of its body.
    pub body_digest: Uuid,
}

/// Claims keys, each of which must be there once; gives back those that were
/// free. The rest had been settled before.
///
/// A claim of a key that another transaction has just claimed waits for that
/// one's end: this is what keeps two workers from applying one event twice.
///
/// # Errors
/// What the database says.
pub async fn claim(conn: &mut Conn, claims: &[Claim]) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<Uuid> = claims.iter().map(|claim| claim.key).collect();
    let receipts: Vec<Uuid> = claims.iter().map(|claim| claim.receipt_id).collect();
    let digests: Vec<Uuid> = claims.iter().map(|claim| claim.body_digest).collect();
    let free = sqlx::query_scalar!(
        r#"
        insert into inbox (key, receipt_id, body_digest)
        select key, receipt_id, body_digest
        from unnest($1::uuid[], $2::uuid[], $3::uuid[]) as claim (key, receipt_id, body_digest)
        order by key
        on conflict do nothing
        returning key
        "#,
        &keys,
        &receipts,
        &digests,
    )
    .fetch_all(conn)
    .await?;
    Ok(free.into_iter().collect())
}

/// Gives claims back that these messages made in this transaction: what a
/// person must see first has had no effect yet.
///
/// # Errors
/// What the database says.
pub async fn release(conn: &mut Conn, claims: &[(Uuid, Uuid)]) -> Result<(), StoreError> {
    let keys: Vec<Uuid> = claims.iter().map(|(key, _)| *key).collect();
    let receipts: Vec<Uuid> = claims.iter().map(|(_, receipt_id)| *receipt_id).collect();
    sqlx::query!(
        r#"
        delete from inbox
        using unnest($1::uuid[], $2::uuid[]) as claim (key, receipt_id)
        where inbox.key = claim.key and inbox.receipt_id = claim.receipt_id
        "#,
        &keys,
        &receipts,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Who settled these keys.
///
/// # Errors
/// What the database says.
pub async fn settled(conn: &mut Conn, keys: &[Uuid]) -> Result<HashMap<Uuid, Settled>, StoreError> {
    let rows =
        sqlx::query!("select key, receipt_id, body_digest from inbox where key = any($1)", keys)
            .fetch_all(conn)
            .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.key, Settled { receipt_id: row.receipt_id, body_digest: row.body_digest }))
        .collect())
}
