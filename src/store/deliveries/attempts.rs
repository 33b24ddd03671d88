//! The way of a delivery that is sent: due, claimed, settled.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::update_mirrored_at;
use crate::{
    domain::{DeliveryState, DocumentEvent, ReasonCode},
    store::{Conn, StoreError},
};

/// A delivery whose turn it is.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its id.
    pub delivery_id: Uuid,
    /// What it tells.
    pub event: String,
    /// Where the document came in.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// Our id of the document.
    pub document_id: String,
    /// The number that people know it by.
    pub document_number: Option<String>,
    /// Which issue of it.
    pub issue: i32,
    /// The message that made it; nil for what is told once.
    pub cause_receipt_id: Uuid,
    /// The document as it was when the delivery was written.
    pub document: Value,
    /// When the delivery was written.
    pub created_at: OffsetDateTime,
    /// The key under which it was sent before.
    pub idempotency_key: Option<Uuid>,
    /// What was sent before under the same key.
    pub request: Option<String>,
    /// How many attempts failed that count.
    pub attempts: i32,
    /// Whether it was sent before.
    pub was_sent: bool,
    /// Whether the target may have it already.
    pub may_be_delivered: bool,
}

/// Locks the deliveries to a target whose turn it is, longest due first, until
/// the transaction ends. What another worker holds is left out, and so is what
/// stands behind an unfinished delivery of its document, and events that only
/// a newer version knows.
///
/// # Errors
/// What the database says.
pub async fn lock_due(
    conn: &mut Conn,
    target: &str,
    limit: usize,
) -> Result<Vec<DueDelivery>, StoreError> {
    let events: Vec<&str> = DocumentEvent::ALL.iter().map(|event| event.as_str()).collect();
    Ok(sqlx::query_as!(
        DueDelivery,
        r#"
        select delivery_id, event, source, tenant, document_id, document_number, issue,
            cause_receipt_id, document, created_at, idempotency_key, request, attempts,
            first_sent_at is not null as "was_sent!",
            -- What is written anew had been sent, and not always in vain.
            (state <> 'pending' or (first_sent_at is not null and request is null))
                as "may_be_delivered!"
        from deliveries as mine
        where destination = $1 and next_attempt_at <= now() and event = any($3)
          -- Whoever was sending is dead, or as good as that. Not with `or`
          -- between states: then the index would not give them in order.
          and state in ('pending', 'sending', 'uncertain')
          and (state <> 'sending' or lease_until < now())
          -- Not with `not exists`: that is joined as a whole, all of the
          -- outbox to itself, for the few rows that are wanted.
          and (
            select before.sequence from deliveries as before
            where before.document_id = mine.document_id and before.destination = mine.destination
              and before.source = mine.source and before.tenant = mine.tenant
              -- An order and a refund may have the same id.
              and split_part(before.event, '.', 1) = split_part(mine.event, '.', 1)
              and before.sequence < mine.sequence
              and before.state in ('pending', 'sending', 'uncertain', 'failed')
            limit 1) is null
        -- What failed goes behind what was not tried yet: one that makes the
        -- destination hang must not be every probe of an open breaker.
        order by next_attempt_at, sequence
        limit $2
        for update of mine skip locked
        "#,
        target,
        i64::try_from(limit).unwrap_or(i64::MAX),
        &events as &[&str],
    )
    .fetch_all(conn)
    .await?)
}

/// A due delivery that is about to be sent.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// Its id.
    pub delivery_id: Uuid,
    /// The key that goes with it.
    pub idempotency_key: Uuid,
    /// What is sent.
    pub request: String,
}

/// Takes due deliveries for so long, and gives back until when that is. Key
/// and request are on record once this is committed, before the first call.
///
/// # Errors
/// What the database says.
pub async fn claim(
    conn: &mut Conn,
    claims: &[ClaimRequest],
    lease: Duration,
) -> Result<OffsetDateTime, StoreError> {
    let ids: Vec<Uuid> = claims.iter().map(|claim| claim.delivery_id).collect();
    let keys: Vec<Uuid> = claims.iter().map(|claim| claim.idempotency_key).collect();
    let requests: Vec<&str> = claims.iter().map(|claim| claim.request.as_str()).collect();
    let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let until = sqlx::query_scalar!(
        r#"select now() + $1::bigint * interval '1 millisecond' as "until!""#,
        lease
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        update deliveries as known
        set state = 'sending', lease_until = $4, idempotency_key = told.key,
            request = told.request, first_sent_at = coalesce(known.first_sent_at, now()),
            updated_at = now()
        from unnest($1::uuid[], $2::uuid[], $3::text[]) as told (delivery_id, key, request)
        where known.delivery_id = told.delivery_id
        "#,
        &ids,
        &keys,
        &requests as &[&str],
        until,
    )
    .execute(conn)
    .await?;
    Ok(until)
}

/// What an attempt comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The target has it.
    Delivered {
        /// The target's own id of what it made.
        remote_id: Option<String>,
        /// What a person should know all the same.
        warning: Option<String>,
    },
    /// It is tried again, not before this pause is over.
    Retry {
        /// Whether the target may have it.
        may_be_delivered: bool,
        /// Whether the attempt counts.
        counts_as_attempt: bool,
        /// The pause.
        delay: Duration,
        /// Why.
        error: String,
    },
    /// A person must look at it.
    Failed {
        /// Why, as a code.
        reason: ReasonCode,
        /// Why, in words.
        error: String,
    },
}

/// An attempt that came to an end.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The delivery.
    pub delivery_id: Uuid,
    /// Until when it was [claimed](claim); none if it could not even be sent.
    pub lease_until: Option<OffsetDateTime>,
    /// What it comes to.
    pub outcome: AttemptOutcome,
    /// The status that the target answered.
    pub status: Option<u16>,
    /// The start of the body of the answer.
    pub response: Option<String>,
}

/// Records what attempts came to: each of a delivery that is still claimed
/// for the same time. Others were taken over meanwhile, and their new owner
/// finds out by itself. Gives back the ids of those that were recorded.
///
/// # Errors
/// What the database says.
pub async fn record_attempts(
    conn: &mut Conn,
    attempts: &[AttemptRecord],
) -> Result<Vec<Uuid>, StoreError> {
    let told: Vec<AttemptRow<'_>> = attempts.iter().map(AttemptRow::of).collect();
    macro_rules! column {
        ($row:ident => $value:expr) => {
            told.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let recorded = sqlx::query!(
        r#"
        update deliveries as known
        set state = told.state,
            attempts = known.attempts + told.counted,
            next_attempt_at = now() + told.pause_ms * interval '1 millisecond',
            lease_until = null,
            remote_id = coalesce(told.remote_id, known.remote_id),
            response_status = told.status,
            response = told.response,
            error = told.error,
            warning = told.warning,
            delivered_at = case when told.state = 'delivered' then now() end,
            updated_at = now()
        from unnest(
            $1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::bigint[], $6::text[],
            $7::smallint[], $8::text[], $9::text[], $10::text[]
        ) as told (
            delivery_id, lease_until, state, counted, pause_ms, remote_id, status, response,
            error, warning)
        where known.delivery_id = told.delivery_id
          and known.state in ('pending', 'uncertain', 'sending')
          and known.lease_until is not distinct from told.lease_until
        returning known.delivery_id, known.document_id, known.is_mirror, known.state
        "#,
        &column!(row => row.attempt.delivery_id),
        &column!(row => row.attempt.lease_until) as &[Option<OffsetDateTime>],
        &column!(row => row.state.as_str()) as &[&str],
        &column!(row => i32::from(row.counts_as_attempt)),
        &column!(row => row.delay_ms),
        &column!(row => row.remote_id) as &[Option<&str>],
        &column!(row => row.attempt.status.and_then(|status| i16::try_from(status).ok()))
            as &[Option<i16>],
        &column!(row => row.attempt.response.as_deref()) as &[Option<&str>],
        &column!(row => row.error) as &[Option<&str>],
        &column!(row => row.warning) as &[Option<&str>],
    )
    .fetch_all(&mut *conn)
    .await?;
    let reasons: Vec<(Uuid, ReasonCode)> = recorded
        .iter()
        .filter_map(|row| {
            let told = told.iter().find(|told| told.attempt.delivery_id == row.delivery_id)?;
            Some((row.delivery_id, told.reason?))
        })
        .collect();
    if !reasons.is_empty() {
        insert_dead_letters(conn, &reasons).await?;
    }
    let delivered: Vec<Uuid> = recorded
        .iter()
        .filter(|row| row.state == DeliveryState::Delivered.as_str())
        .map(|row| row.delivery_id)
        .collect();
    if !delivered.is_empty() {
        resolve_dead_letters(conn, &delivered).await?;
    }
    let mirrored: Vec<String> = recorded
        .iter()
        .filter(|row| row.is_mirror && row.state == DeliveryState::Delivered.as_str())
        .map(|row| row.document_id.clone())
        .collect();
    if !mirrored.is_empty() {
        update_mirrored_at(conn, &mirrored).await?;
    }
    Ok(recorded.into_iter().map(|row| row.delivery_id).collect())
}

/// An attempt as the columns want it.
struct AttemptRow<'a> {
    attempt: &'a AttemptRecord,
    state: DeliveryState,
    counts_as_attempt: bool,
    delay_ms: i64,
    remote_id: Option<&'a str>,
    error: Option<&'a str>,
    warning: Option<&'a str>,
    reason: Option<ReasonCode>,
}

impl<'a> AttemptRow<'a> {
    fn of(attempt: &'a AttemptRecord) -> Self {
        let row = Self {
            attempt,
            state: DeliveryState::Delivered,
            counts_as_attempt: false,
            delay_ms: 0,
            remote_id: None,
            error: None,
            warning: None,
            reason: None,
        };
        match &attempt.outcome {
            AttemptOutcome::Delivered { remote_id, warning } => {
                Self { remote_id: remote_id.as_deref(), warning: warning.as_deref(), ..row }
            }
            AttemptOutcome::Retry {
                may_be_delivered,
                counts_as_attempt: counts,
                delay: after,
                error,
            } => Self {
                state: if *may_be_delivered {
                    DeliveryState::Uncertain
                } else {
                    DeliveryState::Pending
                },
                counts_as_attempt: *counts,
                delay_ms: i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
                error: Some(error),
                ..row
            },
            AttemptOutcome::Failed { reason, error } => Self {
                state: DeliveryState::Failed,
                counts_as_attempt: true,
                error: Some(error),
                reason: Some(*reason),
                ..row
            },
        }
    }
}

/// Lays failed deliveries before a person, with both bodies. One that a
/// person had tried again is open again.
async fn insert_dead_letters(
    conn: &mut Conn,
    failed: &[(Uuid, ReasonCode)],
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = failed.iter().map(|(id, _)| *id).collect();
    let reasons: Vec<&str> = failed.iter().map(|(_, reason)| reason.as_str()).collect();
    let letters: Vec<Uuid> = failed.iter().map(|_| Uuid::now_v7()).collect();
    sqlx::query!(
        r#"
        insert into dead_letters as known (
            dead_letter_id, receipt_id, delivery_id, event_key, source, tenant, topic,
            business_key, reason, error, attempts, received_at, first_failed_at, last_failed_at,
            headers, payload)
        select told.letter, failed.delivery_id, failed.delivery_id,
            coalesce(failed.idempotency_key, failed.delivery_id)::text, failed.source,
            failed.tenant, failed.event, failed.document_number, told.reason, failed.error,
            failed.attempts, failed.created_at, now(), now(),
            jsonb_build_object(
                'delivery_id', failed.delivery_id, 'destination', failed.destination,
                'idempotency_key', failed.idempotency_key, 'issue', failed.issue,
                'response_status', failed.response_status, 'response', failed.response),
            convert_to(coalesce(failed.request, failed.document::text), 'UTF8')
        from unnest($1::uuid[], $2::text[], $3::uuid[]) as told (delivery_id, reason, letter)
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
        &ids,
        &reasons as &[&str],
        &letters,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Closes the letters of deliveries that arrived after all.
async fn resolve_dead_letters(conn: &mut Conn, delivered: &[Uuid]) -> Result<(), StoreError> {
    sqlx::query!(
        "update dead_letters set state = 'resolved', outcome = 'applied', closed_at = now()
         where delivery_id = any($1) and state in ('open', 'replayed')",
        delivered
    )
    .execute(conn)
    .await?;
    Ok(())
}
