//! What a failed message comes to: a retry queue or the dead, each made
//! durable before the original is acknowledged.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{ConsumerError, WorkerContext};
use crate::{
    broker::{Confirmed, DeathInfo, IncomingMessage, OutgoingMessage, PublishError},
    domain::{Envelope, Outcome, PermanentFailure, ReasonCode, SourceName},
    retry::RetryDecision,
    store::{StoreError, receipts, retry::retry_while_unavailable},
};

/// A message whose attempt failed for a reason that may pass.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// The event.
    pub envelope: Envelope,
    /// The message as it came.
    pub incoming: IncomingMessage,
    /// The number that people know the document by.
    pub business_key: Option<String>,
    /// The error and its causes.
    pub error: String,
}

/// A message that can never be applied.
#[derive(Clone, Debug)]
pub struct Unprocessable {
    /// The message as it came.
    pub incoming: IncomingMessage,
    /// The number that people know the document by, if it could be read.
    pub business_key: Option<String>,
    /// Why.
    pub failure: PermanentFailure,
}

/// A message on its way to a retry queue.
struct ScheduledRetry {
    failed: FailedAttempt,
    delay: Duration,
    /// How many attempts have failed.
    attempt: u32,
}

/// Sends failed messages on to their next attempt, or to the dead when they
/// have had enough of them.
///
/// # Errors
/// [`Trouble`]: not everything is durable; nothing may be acknowledged.
pub async fn retry_or_dead_letter(
    tools: &WorkerContext,
    source: &SourceName,
    failed: Vec<FailedAttempt>,
) -> Result<(), ConsumerError> {
    if failed.is_empty() {
        return Ok(());
    }
    let mut waiting = Vec::new();
    let mut dead = Vec::new();
    for one in failed {
        tools.metrics.failed_attempts.with_label_values(&[source.as_str()]).inc();
        match tools.retry_schedule.decide(one.envelope.failed_attempts) {
            RetryDecision::Retry(delay) => {
                let attempt = one.envelope.failed_attempts.saturating_add(1);
                waiting.push(ScheduledRetry { failed: one, delay, attempt });
            }
            RetryDecision::DeadLetter => dead.push(retries_exhausted(one)),
        }
    }
    publish_retries(tools, source, &waiting).await?;
    dead_letter(tools, dead).await
}

/// Sends messages whose attempt has not begun round by the longest retry
/// queue. No attempt is counted.
///
/// # Errors
/// [`Trouble`]: not everything is durable; nothing may be acknowledged.
pub async fn defer(
    tools: &WorkerContext,
    source: &SourceName,
    messages: Vec<FailedAttempt>,
) -> Result<(), ConsumerError> {
    let Some(delay) = tools.retry_schedule.max_delay() else {
        // The configuration refuses to enrich without a retry queue.
        return retry_or_dead_letter(tools, source, messages).await;
    };
    let wait = |one: FailedAttempt| ScheduledRetry {
        delay,
        attempt: one.envelope.failed_attempts,
        failed: one,
    };
    let waiting: Vec<ScheduledRetry> = messages.into_iter().map(wait).collect();
    publish_retries(tools, source, &waiting).await
}

async fn publish_retries(
    tools: &WorkerContext,
    source: &SourceName,
    waiting: &[ScheduledRetry],
) -> Result<(), ConsumerError> {
    let now = OffsetDateTime::now_utc();
    record_retries(tools, waiting).await?;
    let sent = waiting.iter().map(|ScheduledRetry { failed: one, delay, attempt }| {
        let envelope = Envelope { failed_attempts: *attempt, ..one.envelope.clone() };
        let first = one.incoming.first_failed_at().unwrap_or(now);
        let message = OutgoingMessage::retry(&tools.topology, &envelope, *delay, first);
        tools.publisher.publish(message)
    });
    require_all_confirmed(join_all(sent).await)?;
    for ScheduledRetry { failed: one, delay, attempt } in waiting {
        info!(
            receipt_id = %one.envelope.receipt_id,
            %source,
            attempt,
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            error = one.error,
            "the message is tried again later"
        );
    }
    let outcomes = waiting.iter().map(|_| Outcome::Retried);
    tools.metrics.record_outcomes(source, outcomes);
    Ok(())
}

fn retries_exhausted(one: FailedAttempt) -> Unprocessable {
    let attempts = one.envelope.failed_attempts.saturating_add(1);
    Unprocessable {
        incoming: one.incoming,
        business_key: one.business_key,
        failure: PermanentFailure::new(
            ReasonCode::AttemptsExhausted,
            format!("{attempts} attempts failed, the last with: {}", one.error),
        ),
    }
}

/// Records that messages wait for their next attempt.
async fn record_retries(
    tools: &WorkerContext,
    waiting: &[ScheduledRetry],
) -> Result<(), ConsumerError> {
    if waiting.is_empty() {
        return Ok(());
    }
    let rows: Vec<receipts::ReceiptRow<'_>> = waiting
        .iter()
        .map(|ScheduledRetry { failed: one, attempt, .. }| receipts::ReceiptRow {
            envelope: &one.envelope,
            business_key: one.business_key.as_deref(),
            outcome: Outcome::Retried,
            write_kind: None,
            attempts: *attempt,
            error: Some(&one.error),
            keep_payload: true,
        })
        .collect();
    let hold = Duration::from_millis(tools.settings.database_retry_timeout_ms);
    if let Err(error) = retry_while_unavailable(hold, || write_receipts(tools, &rows)).await? {
        // The row that failed before may fail here too, for the same reason.
        // The message matters more than its log line.
        warn!(%error, "retries could not be recorded on their receipts");
    }
    Ok(())
}

async fn write_receipts(
    tools: &WorkerContext,
    rows: &[receipts::ReceiptRow<'_>],
) -> Result<(), StoreError> {
    tools
        .store
        .with_timeout(async {
            let mut tx = tools.store.begin().await?;
            receipts::record(&mut tx, rows).await?;
            tx.commit().await
        })
        .await
}

/// Sends messages to the dead.
///
/// # Errors
/// [`Trouble`]: not everything is durable; nothing may be acknowledged.
pub async fn dead_letter(
    tools: &WorkerContext,
    doomed: Vec<Unprocessable>,
) -> Result<(), ConsumerError> {
    let now = OffsetDateTime::now_utc();
    let sent = doomed.into_iter().map(|mut one| async move {
        one.incoming.ensure_receipt_id();
        let mark = DeathInfo {
            reason: one.failure.reason,
            error: one.failure.to_string(),
            business_key: one.business_key,
            attempts: one.incoming.attempts().saturating_add(1),
            first_failed_at: one.incoming.first_failed_at().unwrap_or(now),
            last_failed_at: now,
        };
        let receipt_id = one.incoming.receipt_id().ok().flatten().unwrap_or_default();
        warn!(
            %receipt_id,
            source = one.incoming.routing_key,
            reason = mark.reason.as_str(),
            error = mark.error,
            "the message is dead"
        );
        tools
            .publisher
            .publish(OutgoingMessage::dead_letter(&tools.topology, &one.incoming, &mark))
            .await
    });
    require_all_confirmed(join_all(sent).await)
}

fn require_all_confirmed(
    results: Vec<Result<Confirmed, PublishError>>,
) -> Result<(), ConsumerError> {
    let _all: Vec<Confirmed> = results.into_iter().collect::<Result<_, _>>()?;
    Ok(())
}
