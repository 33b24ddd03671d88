//! `secret_uses`: when each secret last verified a message.

use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::SourceName;

/// When a secret last verified a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// The source that the secret is configured for.
    pub source: String,
    /// The secret's name in the configuration, never its value.
    pub secret: String,
    /// The latest receipt time of a message that it verified, to the minute.
    pub last_used_at: OffsetDateTime,
}

/// Records that a secret verified a message received at `at`, unless a use within the minute before
/// is on record. Call it outside of a transaction, so that concurrent writers of the row do not
/// wait for each other.
///
/// # Errors
/// A database error.
pub async fn record(
    conn: &mut Conn,
    source: &SourceName,
    secret: &str,
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    // `least`: a clock that is ahead must not make a secret look used forever.
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

/// Lists all uses on record.
///
/// # Errors
/// A database error.
pub async fn list(conn: &mut Conn) -> Result<Vec<SecretUse>, StoreError> {
    Ok(sqlx::query_as!(
        SecretUse,
        "select source, secret, last_used_at from secret_uses order by source, secret"
    )
    .fetch_all(conn)
    .await?)
}
