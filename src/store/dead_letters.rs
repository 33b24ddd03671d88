//! `dead_letters`: messages and deliveries that failed for good. Only this file writes the table.

mod archive;
mod queries;

use std::collections::HashMap;

use serde_json::json;
use uuid::Uuid;

use super::{
    Conn, StoreError,
    audit_log::{self, Actor, Subject},
    deliveries,
};
use crate::domain::{AuditAction, DeadLetter, Outcome, ReasonCode};
pub use archive::archive;
pub use queries::{
    DeadLetterContents, DeadLetterCount, DeadLetterFilter, DeadLetterSummary, contents, count_open,
    find_by_delivery, list,
};

/// Inserts dead-lettered messages, each with another receipt. Their receipts must be recorded
/// before, in the same transaction: see `archive()`.
///
/// A dead letter whose replay failed is opened again. A message that is archived twice has one row.
///
/// # Errors
/// A database error.
pub async fn insert(conn: &mut Conn, dead_letters: &[DeadLetter]) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        insert into dead_letters as known (
            dead_letter_id, receipt_id, event_key, source, tenant, topic, business_key, reason,
            error, attempts, received_at, first_failed_at, last_failed_at, replay_id, headers,
            payload, state, outcome, closed_at)
        select
            dead_letter_id, new.receipt_id, new.event_key, new.source, new.tenant, new.topic,
            new.business_key, reason, new.error, new.attempts, new.received_at,
            first_failed_at, last_failed_at,
            (select replay_id from replays where replays.replay_id = replay), headers::jsonb,
            new.payload,
            -- Another copy of the message may have been processed meanwhile. Then the dead letter
            -- is on record and needs no operator.
            case when receipt.outcome = 'dead' then 'open' else 'resolved' end,
            nullif(receipt.outcome, 'dead'),
            case when receipt.outcome = 'dead' then null else now() end
        from unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::int[], $11::timestamptz[], $12::timestamptz[],
            $13::timestamptz[], $14::uuid[], $15::text[], $16::bytea[]
        ) as new (
            dead_letter_id, receipt_id, event_key, source, tenant, topic, business_key, reason,
            error, attempts, received_at, first_failed_at, last_failed_at, replay, headers,
            payload)
        join receipts as receipt using (receipt_id)
        order by new.receipt_id
        on conflict (receipt_id) do update set
            state = excluded.state,
            outcome = excluded.outcome,
            closed_at = excluded.closed_at,
            business_key = coalesce(excluded.business_key, known.business_key),
            reason = excluded.reason,
            error = excluded.error,
            attempts = excluded.attempts,
            last_failed_at = excluded.last_failed_at,
            headers = excluded.headers,
            replay_id = excluded.replay_id
        -- Only the failure of a replay opens a dead letter again. Archiving the first failure
        -- twice changes nothing. If a newer replay is under way, its result closes the row.
        where excluded.replay_id is not null and known.state in ('open', 'replayed')
        "#,
        // The rows are sorted by receipt in the statement, so the order of these ids is irrelevant.
        &column!(dead_letters, _ => Uuid::now_v7()),
        &column!(dead_letters, dead_letter => dead_letter.envelope.receipt_id),
        &column!(dead_letters, dead_letter => dead_letter.envelope.key.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => dead_letter.envelope.source.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => dead_letter.envelope.tenant.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => dead_letter.envelope.topic.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => dead_letter.business_key.as_deref()) as &[Option<&str>],
        &column!(dead_letters, dead_letter => dead_letter.reason.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => dead_letter.error.as_str()) as &[&str],
        &column!(dead_letters, dead_letter => i32::try_from(dead_letter.envelope.failed_attempts).unwrap_or(i32::MAX)),
        &column!(dead_letters, dead_letter => dead_letter.envelope.received_at),
        &column!(dead_letters, dead_letter => dead_letter.first_failed_at),
        &column!(dead_letters, dead_letter => dead_letter.last_failed_at),
        &column!(dead_letters, dead_letter => dead_letter.envelope.replay_id) as &[Option<Uuid>],
        &column!(dead_letters, dead_letter => dead_letter.headers.to_string()),
        &column!(dead_letters, dead_letter => dead_letter.envelope.body.as_ref()) as &[&[u8]],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts dead letters for deliveries that failed for good, with their request and last response.
/// A dead letter whose delivery was retried and failed again is opened again.
pub(super) async fn insert_for_deliveries(
    conn: &mut Conn,
    failed: &[(Uuid, ReasonCode)],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        insert into dead_letters as known (
            dead_letter_id, receipt_id, delivery_id, event_key, source, tenant, topic,
            business_key, reason, error, attempts, received_at, first_failed_at, last_failed_at,
            headers, payload)
        select new.dead_letter_id, failed.delivery_id, failed.delivery_id,
            coalesce(failed.idempotency_key, failed.delivery_id)::text, failed.source,
            failed.tenant, failed.event, failed.document_number, new.reason, failed.error,
            failed.attempts, failed.created_at, now(), now(),
            jsonb_build_object(
                'delivery_id', failed.delivery_id, 'destination', failed.destination,
                'idempotency_key', failed.idempotency_key, 'issue', failed.issue,
                'response_status', failed.response_status, 'response', failed.response),
            convert_to(coalesce(failed.request, failed.document::text), 'UTF8')
        from unnest($1::uuid[], $2::text[], $3::uuid[]) as new (delivery_id, reason, dead_letter_id)
        join deliveries as failed using (delivery_id)
        on conflict (receipt_id) do update set
            state = 'open',
            reason = excluded.reason,
            error = excluded.error,
            attempts = excluded.attempts,
            last_failed_at = excluded.last_failed_at,
            headers = excluded.headers,
            payload = excluded.payload
        where known.state in ('open', 'replayed')
        "#,
        &column!(failed, (delivery_id, _) => *delivery_id),
        &column!(failed, (_, reason) => reason.as_str()) as &[&str],
        &column!(failed, _ => Uuid::now_v7()),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A message that was processed and may have a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct Resolution {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The replay run that published it, if one did.
    pub replay_id: Option<Uuid>,
    /// Its outcome: not `retried` or `dead`.
    pub outcome: Outcome,
}

/// Resolves the dead letters of processed messages. Call it in the transaction that processes them.
///
/// # Errors
/// A database error.
pub async fn resolve(conn: &mut Conn, resolutions: &[Resolution]) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        with processed as (
            select dead_letter.dead_letter_id, processed.replay, processed.outcome
            from unnest($1::uuid[], $2::uuid[], $3::text[])
                as processed (receipt_id, replay, outcome)
            join dead_letters as dead_letter using (receipt_id)
            where dead_letter.state <> 'resolved'
            order by dead_letter.receipt_id
            for update of dead_letter
        )
        update dead_letters as dead_letter
        set state = 'resolved', outcome = processed.outcome, closed_at = now(),
            replay_id = coalesce(
                (select replay_id from replays where replays.replay_id = processed.replay),
                dead_letter.replay_id)
        from processed
        where dead_letter.dead_letter_id = processed.dead_letter_id
        "#,
        &column!(resolutions, resolution => resolution.receipt_id),
        &column!(resolutions, resolution => resolution.replay_id) as &[Option<Uuid>],
        &column!(resolutions, resolution => resolution.outcome.as_str()) as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Resolves the dead letters of deliveries that were delivered after all.
pub(super) async fn resolve_for_deliveries(
    conn: &mut Conn,
    delivered: &[Uuid],
) -> Result<(), StoreError> {
    sqlx::query!(
        "update dead_letters set state = 'resolved', outcome = 'applied', closed_at = now()
         where delivery_id = any($1) and state in ('open', 'replayed')",
        delivered
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Marks a dead letter as replayed after the broker has confirmed the message. A worker may have
/// resolved it already; then only the audit log changes. Call it in a transaction.
///
/// # Errors
/// A database error.
pub async fn mark_replayed(
    conn: &mut Conn,
    id: Uuid,
    replay_id: Uuid,
    actor: Actor<'_>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update dead_letters set state = 'replayed', replay_id = $2
         where dead_letter_id = $1 and state = 'open' and replay_id is distinct from $2",
        id,
        replay_id,
    )
    .execute(&mut *conn)
    .await?;
    let subject = Subject { detail: json!({"replay_id": replay_id}), ..Subject::dead_letter(id) };
    audit_log::insert(conn, AuditAction::Replay, actor, &[subject]).await
}

/// Marks the dead letters of deliveries that are retried as replayed.
pub(super) async fn mark_replayed_for_deliveries(
    conn: &mut Conn,
    delivery_ids: &[Uuid],
    replay_id: Uuid,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update dead_letters set state = 'replayed', replay_id = $2
         where delivery_id = any($1) and state in ('open', 'replayed')",
        delivery_ids,
        replay_id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Discards those of these dead letters that are open, and returns how many were. The delivery of a
/// discarded dead letter is voided. Call it in a transaction.
///
/// # Errors
/// A database error.
pub async fn discard(conn: &mut Conn, ids: &[Uuid], actor: Actor<'_>) -> Result<u64, StoreError> {
    // Deliveries are locked before dead letters, as when attempts are recorded.
    let voided = deliveries::void_failed(conn, ids, actor).await?;
    let discarded = sqlx::query!(
        r#"
        with discarded as (
            update dead_letters set state = 'discarded', closed_at = now()
            where dead_letter_id = any($1) and state = 'open'
              and (delivery_id is null or delivery_id = any($2))
            returning dead_letter_id, delivery_id
        )
        select dead_letter_id, delivery_id from discarded order by dead_letter_id
        "#,
        ids,
        &voided,
    )
    .fetch_all(&mut *conn)
    .await?;
    let subjects = column!(discarded, row => Subject {
        delivery_id: row.delivery_id,
        ..Subject::dead_letter(row.dead_letter_id)
    });
    audit_log::insert(conn, AuditAction::Discard, actor, &subjects).await?;
    Ok(discarded.len() as u64)
}

/// Discards the dead letter of a delivery that an operator voids.
pub(super) async fn discard_for_delivery(
    conn: &mut Conn,
    delivery_id: Uuid,
) -> Result<(), StoreError> {
    sqlx::query!(
        "update dead_letters set state = 'discarded', closed_at = now()
         where delivery_id = $1 and state in ('open', 'replayed')",
        delivery_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The dead letters of deliveries, in any state, by delivery.
pub(super) async fn ids_by_delivery(
    conn: &mut Conn,
    delivery_ids: &[Uuid],
) -> Result<HashMap<Uuid, Uuid>, StoreError> {
    let rows = sqlx::query!(
        r#"select delivery_id as "delivery_id!", dead_letter_id from dead_letters
           where delivery_id = any($1)"#,
        delivery_ids
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.delivery_id, row.dead_letter_id)).collect())
}
