//! `replays`: the replay runs of operators.

use serde_json::Value;
use uuid::Uuid;

use super::{Conn, StoreError, audit_log::Actor};

/// Inserts a replay run for `letter_count` dead letters that `filter` selected.
///
/// # Errors
/// A database error.
pub async fn insert(
    conn: &mut Conn,
    replay_id: Uuid,
    actor: Actor<'_>,
    filter: &Value,
    letter_count: usize,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into replays (replay_id, requested_by, comment, filter, letter_count)
         values ($1, $2, $3, $4, $5)",
        replay_id,
        actor.name,
        actor.comment,
        filter,
        i32::try_from(letter_count).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}
