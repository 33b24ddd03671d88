//! Publishes failed messages to a retry queue or the dead-letter queue. The
//! original is acknowledged only after the publisher confirm: a crash in
//! between costs a duplicate, never a message.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{
    ConsumerError, WorkerContext,
    message::{Disposition, Message},
};
use crate::{
    broker::{Confirmed, DeathInfo, IncomingMessage, OutgoingMessage, PublishError},
    domain::{Outcome, PermanentFailure, ReasonCode, SourceName},
    retry::RetryDecision,
    store::{StoreError, receipts, retry::retry_while_unavailable},
};

/// A message for the dead-letter queue.
#[derive(Clone, Debug)]
pub(super) struct Unprocessable {
    /// The message as RabbitMQ delivered it.
    pub(super) incoming: IncomingMessage,
    /// The document's number for operators, if it could be read.
    pub(super) business_key: Option<String>,
    /// Why it cannot be processed.
    pub(super) failure: PermanentFailure,
}

/// A message for a retry queue. Its envelope counts the failed attempt.
#[derive(Debug)]
struct ScheduledRetry {
    message: Message,
    delay: Duration,
    error: String,
}

/// Carries out the dispositions of a batch. After `Ok` all of it may be
/// acknowledged; returns the longest `retry_after` of a deferred message.
///
/// # Errors
/// [`ConsumerError`]: a publish was not confirmed. Nothing may be acknowledged.
pub(super) async fn route(
    context: &WorkerContext,
    source: &SourceName,
    messages: Vec<(Message, Disposition)>,
    now: OffsetDateTime,
) -> Result<Duration, ConsumerError> {
    let mut pause = Duration::ZERO;
    let mut retries = Vec::new();
    let mut dead = Vec::new();
    for (mut message, disposition) in messages {
        match disposition {
            Disposition::Processed => {}
            Disposition::Retry { error } => {
                context.metrics.failed_attempts.with_label_values(&[source.as_str()]).inc();
                match context.retry_schedule.decide(message.envelope.failed_attempts) {
                    RetryDecision::Retry(delay) => {
                        let failed_attempts = message.envelope.failed_attempts.saturating_add(1);
                        message.envelope.failed_attempts = failed_attempts;
                        retries.push(ScheduledRetry { message, delay, error });
                    }
                    RetryDecision::DeadLetter => dead.push(retries_exhausted(message, &error)),
                }
            }
            Disposition::Defer { error, retry_after } => {
                pause = pause.max(retry_after);
                // The configuration requires a retry queue where events are
                // enriched, and only these are deferred.
                if let Some(delay) = context.retry_schedule.max_delay() {
                    retries.push(ScheduledRetry { message, delay, error });
                } else {
                    dead.push(retries_exhausted(message, &error));
                }
            }
            Disposition::DeadLetter(failure) => dead.push(unprocessable(message, failure)),
        }
    }
    publish_retries(context, source, retries, now).await?;
    dead_letter(context, dead, now).await?;
    Ok(pause)
}

fn retries_exhausted(message: Message, error: &str) -> Unprocessable {
    let attempts = message.envelope.failed_attempts.saturating_add(1);
    let detail = format!("{attempts} attempts failed, the last with: {error}");
    unprocessable(message, PermanentFailure::new(ReasonCode::AttemptsExhausted, detail))
}

fn unprocessable(message: Message, failure: PermanentFailure) -> Unprocessable {
    let business_key = message.business_key().map(str::to_owned);
    Unprocessable { incoming: message.incoming, business_key, failure }
}

async fn publish_retries(
    context: &WorkerContext,
    source: &SourceName,
    retries: Vec<ScheduledRetry>,
    now: OffsetDateTime,
) -> Result<(), ConsumerError> {
    if retries.is_empty() {
        return Ok(());
    }
    record_retries(context, &retries).await?;
    let publishes = retries.iter().map(|ScheduledRetry { message, delay, .. }| {
        let first_failed_at = message.incoming.first_failed_at().unwrap_or(now);
        let outgoing =
            OutgoingMessage::retry(&context.topology, &message.envelope, *delay, first_failed_at);
        context.publisher.publish(outgoing)
    });
    require_all_confirmed(join_all(publishes).await)?;
    for ScheduledRetry { message, delay, error } in &retries {
        info!(
            receipt_id = %message.envelope.receipt_id,
            %source,
            failed_attempts = message.envelope.failed_attempts,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            error,
            "the message is retried later"
        );
    }
    context.metrics.record_outcomes(source, retries.iter().map(|_| Outcome::Retried));
    Ok(())
}

/// Records on their receipts that messages wait for their next attempt.
async fn record_retries(
    context: &WorkerContext,
    retries: &[ScheduledRetry],
) -> Result<(), ConsumerError> {
    let rows: Vec<receipts::ReceiptRow<'_>> = retries
        .iter()
        .map(|ScheduledRetry { message, error, .. }| receipts::ReceiptRow {
            envelope: &message.envelope,
            business_key: message.business_key(),
            outcome: Outcome::Retried,
            write_kind: None,
            attempts: message.envelope.failed_attempts,
            error: Some(error),
            keep_payload: true,
        })
        .collect();
    let timeout = context.database_retry_timeout();
    if let Err(error) = retry_while_unavailable(timeout, || write_receipts(context, &rows)).await? {
        // Failing to record the retry must not block it: the row that failed
        // before may fail here for the same reason.
        warn!(%error, "retries could not be recorded on their receipts");
    }
    Ok(())
}

async fn write_receipts(
    context: &WorkerContext,
    rows: &[receipts::ReceiptRow<'_>],
) -> Result<(), StoreError> {
    context.store.transaction(async |tx| receipts::record(tx, rows).await).await?;
    Ok(())
}

/// Publishes messages to the dead-letter queue.
///
/// # Errors
/// [`ConsumerError`]: a publish was not confirmed. Nothing may be acknowledged.
pub(super) async fn dead_letter(
    context: &WorkerContext,
    messages: Vec<Unprocessable>,
    now: OffsetDateTime,
) -> Result<(), ConsumerError> {
    let publishes = messages.into_iter().map(|unprocessable| async move {
        let Unprocessable { mut incoming, business_key, failure } = unprocessable;
        let receipt_id = incoming.ensure_receipt_id();
        let death = DeathInfo {
            reason: failure.reason,
            error: failure.to_string(),
            business_key,
            attempts: incoming.failed_attempts().saturating_add(1),
            first_failed_at: incoming.first_failed_at().unwrap_or(now),
            last_failed_at: now,
        };
        warn!(
            %receipt_id,
            source = incoming.routing_key,
            reason = death.reason.as_str(),
            error = death.error,
            "the message is dead-lettered"
        );
        let outgoing = OutgoingMessage::dead_letter(&context.topology, &incoming, &death);
        context.publisher.publish(outgoing).await
    });
    require_all_confirmed(join_all(publishes).await)
}

fn require_all_confirmed(
    results: Vec<Result<Confirmed, PublishError>>,
) -> Result<(), ConsumerError> {
    let _all: Vec<Confirmed> = results.into_iter().collect::<Result<_, _>>()?;
    Ok(())
}
