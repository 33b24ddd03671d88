//! The attempts of a delivery: it is due, claimed by a worker, and its result is recorded.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::update_mirrored_at;
use crate::{
    domain::{DeliveryState, DocumentEvent, ReasonCode},
    store::{Conn, StoreError, dead_letters},
};

/// A delivery whose next attempt is due.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// The id of the delivery.
    pub delivery_id: Uuid,
    /// What happened to the document: a word of [`DocumentEvent`].
    pub event: String,
    /// The source of the document.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// Our id of the document.
    pub document_id: String,
    /// The document's number.
    pub document_number: Option<String>,
    /// The issue number, from 0.
    pub issue: i32,
    /// The receipt of the causing message; the nil UUID for events that occur once.
    pub cause_receipt_id: Uuid,
    /// The document when the delivery was written.
    pub document: Value,
    /// When the delivery was written.
    pub created_at: OffsetDateTime,
    /// The idempotency key of earlier attempts.
    pub idempotency_key: Option<Uuid>,
    /// The request body of earlier attempts.
    pub request: Option<String>,
    /// How many attempts failed.
    pub attempts: i32,
    /// Whether an attempt was made before.
    pub was_sent: bool,
    /// Whether the destination may have it already.
    pub may_be_delivered: bool,
}

/// Locks at most `limit` due deliveries to a destination until the end of the transaction, longest
/// due first. Skips deliveries that another worker has locked, that wait for an unfinished delivery
/// of the same document, or whose event only a newer version knows.
///
/// # Errors
/// A database error.
pub async fn lock_due(
    conn: &mut Conn,
    destination: &str,
    limit: usize,
) -> Result<Vec<DueDelivery>, StoreError> {
    let events: Vec<&str> = DocumentEvent::ALL.iter().map(|event| event.as_str()).collect();
    Ok(sqlx::query_as!(
        DueDelivery,
        r#"
        select delivery_id, event, source, tenant, document_id, document_number, issue,
            cause_receipt_id, document, created_at, idempotency_key, request, attempts,
            first_sent_at is not null as "was_sent!",
            -- A retried delivery whose request is rendered again was sent before, and the
            -- destination may have it.
            (state <> 'pending' or (first_sent_at is not null and request is null))
                as "may_be_delivered!"
        from deliveries as mine
        where destination = $1 and next_attempt_at <= now() and event = any($3)
          -- An expired lease: assume that its worker died. With `or` between the states, the index
          -- would not return the rows in order.
          and state in ('pending', 'sending', 'uncertain')
          and (state <> 'sending' or lease_until < now())
          -- Not `not exists`: the planner would join the whole outbox to itself for a few rows.
          and (
            select earlier.sequence from deliveries as earlier
            where earlier.document_id = mine.document_id
              and earlier.destination = mine.destination
              and earlier.source = mine.source and earlier.tenant = mine.tenant
              -- An order and a refund may have the same id.
              and split_part(earlier.event, '.', 1) = split_part(mine.event, '.', 1)
              and earlier.sequence < mine.sequence
              and earlier.state in ('pending', 'sending', 'uncertain', 'failed')
            limit 1) is null
        -- A delivery that failed goes behind those that were not tried yet. Otherwise one request
        -- that makes the destination hang could be every probe of an open circuit breaker.
        order by next_attempt_at, sequence
        limit $2
        for update of mine skip locked
        "#,
        destination,
        i64::try_from(limit).unwrap_or(i64::MAX),
        &events as &[&str],
    )
    .fetch_all(conn)
    .await?)
}

/// A due delivery that a worker claims, with what it will send.
#[derive(Clone, Debug)]
pub struct ClaimRequest {
    /// The id of the delivery.
    pub delivery_id: Uuid,
    /// The idempotency key.
    pub idempotency_key: Uuid,
    /// The request body.
    pub request: String,
}

/// Claims due deliveries for the duration of a lease, and returns the end of the lease. Commit
/// before the first call, so that key and request are on record.
///
/// # Errors
/// A database error.
pub async fn claim(
    conn: &mut Conn,
    claims: &[ClaimRequest],
    lease: Duration,
) -> Result<OffsetDateTime, StoreError> {
    let lease_until = sqlx::query_scalar!(
        r#"select now() + $1::bigint * interval '1 millisecond' as "lease_until!""#,
        i64::try_from(lease.as_millis()).unwrap_or(i64::MAX)
    )
    .fetch_one(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        update deliveries as known
        set state = 'sending', lease_until = $4, idempotency_key = claim.key,
            request = claim.request, first_sent_at = coalesce(known.first_sent_at, now()),
            updated_at = now()
        from unnest($1::uuid[], $2::uuid[], $3::text[]) as claim (delivery_id, key, request)
        where known.delivery_id = claim.delivery_id
        "#,
        &column!(claims, claim => claim.delivery_id),
        &column!(claims, claim => claim.idempotency_key),
        &column!(claims, claim => claim.request.as_str()) as &[&str],
        lease_until,
    )
    .execute(conn)
    .await?;
    Ok(lease_until)
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The destination has it.
    Delivered {
        /// The destination's own id of the document.
        remote_id: Option<String>,
        /// What an operator should know although it was delivered.
        warning: Option<String>,
    },
    /// It will be tried again after `delay`.
    Retry {
        /// Whether the destination may have it already.
        may_be_delivered: bool,
        /// Whether the attempt counts as failed.
        counts_as_attempt: bool,
        /// The shortest time until the next attempt.
        delay: Duration,
        /// Why it failed.
        error: String,
    },
    /// It failed for good and becomes a dead letter.
    Failed {
        /// Why, as a code.
        reason: ReasonCode,
        /// Why, as a text.
        error: String,
    },
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The id of the delivery.
    pub delivery_id: Uuid,
    /// The lease of the [claim]; none if the delivery could not be sent at all.
    pub lease_until: Option<OffsetDateTime>,
    /// The result.
    pub outcome: AttemptOutcome,
    /// The HTTP status of the response.
    pub status: Option<u16>,
    /// The beginning of the response body.
    pub response: Option<String>,
}

/// Records the results of attempts and returns the deliveries that were recorded. Skips a delivery
/// whose lease has changed: another worker took it over and records its own result.
///
/// # Errors
/// A database error.
pub async fn record_attempts(
    conn: &mut Conn,
    attempts: &[AttemptRecord],
) -> Result<Vec<Uuid>, StoreError> {
    let rows: Vec<AttemptRow<'_>> = attempts.iter().map(AttemptRow::of).collect();
    let recorded = sqlx::query!(
        r#"
        update deliveries as known
        set state = attempt.state,
            attempts = known.attempts + attempt.counted,
            next_attempt_at = now() + attempt.delay_ms * interval '1 millisecond',
            lease_until = null,
            remote_id = coalesce(attempt.remote_id, known.remote_id),
            response_status = attempt.status,
            response = attempt.response,
            error = attempt.error,
            warning = attempt.warning,
            delivered_at = case when attempt.state = 'delivered' then now() end,
            updated_at = now()
        from unnest(
            $1::uuid[], $2::timestamptz[], $3::text[], $4::int[], $5::bigint[], $6::text[],
            $7::smallint[], $8::text[], $9::text[], $10::text[]
        ) as attempt (
            delivery_id, lease_until, state, counted, delay_ms, remote_id, status, response,
            error, warning)
        where known.delivery_id = attempt.delivery_id
          and known.state in ('pending', 'uncertain', 'sending')
          and known.lease_until is not distinct from attempt.lease_until
        returning known.delivery_id, known.document_id, known.is_mirror, known.state
        "#,
        &column!(rows, row => row.attempt.delivery_id),
        &column!(rows, row => row.attempt.lease_until) as &[Option<OffsetDateTime>],
        &column!(rows, row => row.state.as_str()) as &[&str],
        &column!(rows, row => i32::from(row.counts_as_attempt)),
        &column!(rows, row => row.delay_ms),
        &column!(rows, row => row.remote_id) as &[Option<&str>],
        &column!(rows, row => row.attempt.status.and_then(|status| i16::try_from(status).ok()))
            as &[Option<i16>],
        &column!(rows, row => row.attempt.response.as_deref()) as &[Option<&str>],
        &column!(rows, row => row.error) as &[Option<&str>],
        &column!(rows, row => row.warning) as &[Option<&str>],
    )
    .fetch_all(&mut *conn)
    .await?;
    let failed: Vec<(Uuid, ReasonCode)> = recorded
        .iter()
        .filter_map(|recorded| {
            let row = rows.iter().find(|row| row.attempt.delivery_id == recorded.delivery_id)?;
            Some((recorded.delivery_id, row.reason?))
        })
        .collect();
    if !failed.is_empty() {
        dead_letters::insert_for_deliveries(conn, &failed).await?;
    }
    let delivered: Vec<_> =
        recorded.iter().filter(|row| row.state == DeliveryState::Delivered.as_str()).collect();
    if !delivered.is_empty() {
        let ids = column!(delivered, row => row.delivery_id);
        dead_letters::resolve_for_deliveries(conn, &ids).await?;
    }
    let mirrored: Vec<String> =
        delivered.iter().filter(|row| row.is_mirror).map(|row| row.document_id.clone()).collect();
    if !mirrored.is_empty() {
        update_mirrored_at(conn, &mirrored).await?;
    }
    Ok(recorded.into_iter().map(|row| row.delivery_id).collect())
}

/// The column values of an attempt.
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
            AttemptOutcome::Retry { may_be_delivered, counts_as_attempt, delay, error } => Self {
                state: if *may_be_delivered {
                    DeliveryState::Uncertain
                } else {
                    DeliveryState::Pending
                },
                counts_as_attempt: *counts_as_attempt,
                delay_ms: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX),
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
