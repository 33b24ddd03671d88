//! `replays` and `audit_log`: what people did to dead letters and deliveries,
//! and why.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};

/// What a person did to a letter.
#[derive(Clone, Debug, Serialize)]
pub struct AuditEntry {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// What: `replay`, `discard`, and of deliveries `void` and `reissue` too.
    pub action: String,
    /// Why.
    pub comment: String,
    /// What belongs to it: the run of a replay, what a re-issue rests on.
    pub detail: Value,
}

/// What people did to a letter, oldest first.
///
/// # Errors
/// What the database says.
pub async fn list_for_dead_letter(
    conn: &mut Conn,
    id: Uuid,
) -> Result<Vec<AuditEntry>, StoreError> {
    Ok(sqlx::query_as!(
        AuditEntry,
        "select at, actor, action, comment, detail from audit_log where dead_letter_id = $1
         order by audit_id",
        id
    )
    .fetch_all(conn)
    .await?)
}

/// What people did to a delivery, and to its letter, oldest first.
///
/// # Errors
/// What the database says.
pub async fn list_for_delivery(conn: &mut Conn, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
    Ok(sqlx::query_as!(
        AuditEntry,
        "select at, actor, action, comment, detail from audit_log where delivery_id = $1
         order by audit_id",
        id
    )
    .fetch_all(conn)
    .await?)
}

/// A person who acts, and why.
#[derive(Clone, Copy, Debug)]
pub struct Actor<'a> {
    /// Who.
    pub name: &'a str,
    /// Why.
    pub comment: &'a str,
}

/// Opens a replay run.
///
/// # Errors
/// What the database says.
pub async fn insert_replay(
    conn: &mut Conn,
    replay: Uuid,
    actor: Actor<'_>,
    filter: &Value,
    letters: usize,
) -> Result<(), StoreError> {
    sqlx::query!(
        "insert into replays (replay_id, requested_by, comment, filter, letter_count)
         values ($1, $2, $3, $4, $5)",
        replay,
        actor.name,
        actor.comment,
        filter,
        i32::try_from(letters).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks a letter as sent again, after the broker confirmed it, and says so
/// in the audit log. The worker may have been faster: then nothing is marked.
///
/// # Errors
/// What the database says.
pub async fn mark_replayed(
    conn: &mut Conn,
    id: Uuid,
    replay: Uuid,
    actor: Actor<'_>,
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        with marked as (
            update dead_letters set state = 'replayed', replay_id = $2
            where dead_letter_id = $1 and state = 'open' and replay_id is distinct from $2
        )
        insert into audit_log (actor, action, comment, dead_letter_id, detail)
        values ($3, 'replay', $4, $1, jsonb_build_object('replay_id', $2))
        "#,
        id,
        replay,
        actor.name,
        actor.comment,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Discards letters that are open, and says so in the audit log; gives back
/// how many were. Nobody waits for the delivery of a discarded letter any
/// more: it is voided by the same act.
///
/// # Errors
/// What the database says.
pub async fn discard(conn: &mut Conn, ids: &[Uuid], actor: Actor<'_>) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        with failed as (
            select delivery_id from deliveries
            where state = 'failed' and delivery_id in (
                select delivery_id from dead_letters
                where dead_letter_id = any($1) and state = 'open')
            -- Deliveries before letters, as whoever settles them.
            order by delivery_id for update
        ), voided as (
            -- No invoice is unticked: a is_mirror that failed ticked none off.
            update deliveries as known
            set state = 'voided', voided_at = now(), voided_by = $2, void_comment = $3,
                updated_at = now()
            from failed where known.delivery_id = failed.delivery_id
            returning known.delivery_id
        ), discarded as (
            update dead_letters set state = 'discarded', closed_at = now()
            where dead_letter_id = any($1) and state = 'open'
              and (delivery_id is null or delivery_id in (select delivery_id from voided))
            returning dead_letter_id, delivery_id
        )
        insert into audit_log (actor, action, comment, dead_letter_id, delivery_id)
        select $2, 'discard', $3, dead_letter_id, delivery_id
        from discarded order by dead_letter_id
        "#,
        ids,
        actor.name,
        actor.comment,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
