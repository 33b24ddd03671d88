//! `secret_uses`: when each secret last verified a message.

use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::SourceName;

/// A secret, by its label, and when it last verified a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The source.
    pub source: String,
    /// The label.
    pub secret: String,
    /// When.
    pub last_used_at: OffsetDateTime,
}

/// Notes that a secret verified a message at this time, unless a use of the
/// minute before it is on record. Each statement is a transaction of its own,
/// so that whoever writes the same row at the same time does not wait long.
///
/// # Errors
/// What the database says.
pub async fn record(
    conn: &mut Conn,
    source: &SourceName,
    secret: &str,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    // A clock that is ahead, or another producer's idea of the time, must not
    // make a secret look used for ever.
    let updated = sqlx::query!(
        "update secret_uses set last_used_at = least($3, now())
         where source = $1 and secret = $2
           and last_used_at < least($3, now()) - interval '1 minute'",
        source.as_str(),
        secret,
        at,
    )
    .execute(&mut *conn)
    .await?;
    if updated.rows_affected() == 0 {
        sqlx::query!(
            "insert into secret_uses (source, secret, last_used_at)
             values ($1, $2, least($3, now())) on conflict do nothing",
            source.as_str(),
            secret,
            at,
        )
        .execute(conn)
        .await?;
    }
    Ok(())
}

/// Every use on record.
///
/// # Errors
/// What the database says.
pub async fn list(conn: &mut Conn) -> Result<Vec<SecretUse>, StoreError> {
    Ok(sqlx::query_as!(
        SecretUse,
        "select source, secret, last_used_at from secret_uses order by source, secret"
    )
    .fetch_all(conn)
    .await?)
}
