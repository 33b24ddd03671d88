//! What a failed message comes to: a retry queue or the dead, each made
//! durable before the original is acknowledged.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{Tools, Trouble, patience::patiently};
use crate::{
    broker::{Confirmed, DeadMark, Outgoing, Parcel, PublishError},
    domain::{Envelope, Failure, Outcome, Reason, SourceName},
    retry::Disposition,
    store::{StoreError, receipts},
};

/// A message whose attempt failed for a reason that may pass.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The event.
    pub envelope: Envelope,
    /// The message as it came.
    pub parcel: Parcel,
    /// The number that people know the document by.
    pub business_key: Option<String>,
    /// The error and its causes.
    pub error: String,
}

/// A message that can never be applied.
#[derive(Clone, Debug)]
pub struct Doomed {
    /// The message as it came.
    pub parcel: Parcel,
    /// The number that people know the document by, if it could be read.
    pub business_key: Option<String>,
    /// Why.
    pub failure: Failure,
}

/// A message on its way to a retry queue.
struct Waiting {
    one: Failed,
    delay: Duration,
    /// How many attempts have failed.
    attempt: u32,
}

/// Sends failed messages on to their next attempt, or to the dead when they
/// have had enough of them.
///
/// # Errors
/// [`Trouble`]: not everything is durable; nothing may be acknowledged.
pub async fn retry_or_bury(
    tools: &Tools,
    source: &SourceName,
    failed: Vec<Failed>,
) -> Result<(), Trouble> {
    if failed.is_empty() {
        return Ok(());
    }
    let mut waiting = Vec::new();
    let mut dead = Vec::new();
    for one in failed {
        tools.metrics.attempts.with_label_values(&[source.as_str()]).inc();
        match tools.schedule.after(one.envelope.attempt) {
            Disposition::Retry(delay) => {
                let attempt = one.envelope.attempt.saturating_add(1);
                waiting.push(Waiting { one, delay, attempt });
            }
            Disposition::Bury => dead.push(exhausted(one)),
        }
    }
    send_on(tools, source, &waiting).await?;
    bury(tools, dead).await
}

/// Sends messages whose attempt has not begun round by the longest retry
/// queue. No attempt is counted.
///
/// # Errors
/// [`Trouble`]: not everything is durable; nothing may be acknowledged.
pub async fn put_off(
    tools: &Tools,
    source: &SourceName,
    messages: Vec<Failed>,
) -> Result<(), Trouble> {
    let Some(delay) = tools.schedule.longest() else {
        // The configuration refuses to enrich without a retry queue.
        return retry_or_bury(tools, source, messages).await;
    };
    let wait = |one: Failed| Waiting { delay, attempt: one.envelope.attempt, one };
    let waiting: Vec<Waiting> = messages.into_iter().map(wait).collect();
    send_on(tools, source, &waiting).await
}

async fn send_on(tools: &Tools, source: &SourceName, waiting: &[Waiting]) -> Result<(), Trouble> {
    let now = OffsetDateTime::now_utc();
    remember(tools, waiting).await?;
    let sent = waiting.iter().map(|Waiting { one, delay, attempt }| {
        let envelope = Envelope { attempt: *attempt, ..one.envelope.clone() };
        let first = one.parcel.first_failed_at().unwrap_or(now);
        let message = Outgoing::retry(&tools.topology, &envelope, *delay, first);
        tools.publisher.publish(message)
    });
    confirmed(join_all(sent).await)?;
    for Waiting { one, delay, attempt } in waiting {
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
    tools.metrics.count_outcomes(source, outcomes);
    Ok(())
}

fn exhausted(one: Failed) -> Doomed {
    let attempts = one.envelope.attempt.saturating_add(1);
    Doomed {
        parcel: one.parcel,
        business_key: one.business_key,
        failure: Failure::new(
            Reason::AttemptsExhausted,
            format!("{attempts} attempts failed, the last with: {}", one.error),
        ),
    }
}

/// Records that messages wait for their next attempt.
async fn remember(tools: &Tools, waiting: &[Waiting]) -> Result<(), Trouble> {
    if waiting.is_empty() {
        return Ok(());
    }
    let rows: Vec<receipts::Row<'_>> = waiting
        .iter()
        .map(|Waiting { one, attempt, .. }| receipts::Row {
            envelope: &one.envelope,
            business_key: one.business_key.as_deref(),
            outcome: Outcome::Retried,
            wrote: None,
            attempts: *attempt,
            error: Some(&one.error),
            keep_payload: true,
        })
        .collect();
    let hold = Duration::from_millis(tools.settings.hold_ms);
    if let Err(error) = patiently(hold, || write(tools, &rows)).await? {
        // The row that failed before may fail here too, for the same reason.
        // The message matters more than its log line.
        warn!(%error, "retries could not be recorded on their receipts");
    }
    Ok(())
}

async fn write(tools: &Tools, rows: &[receipts::Row<'_>]) -> Result<(), StoreError> {
    tools
        .store
        .in_time(async {
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
pub async fn bury(tools: &Tools, doomed: Vec<Doomed>) -> Result<(), Trouble> {
    let now = OffsetDateTime::now_utc();
    let sent = doomed.into_iter().map(|mut one| async move {
        one.parcel.ensure_receipt();
        let mark = DeadMark {
            reason: one.failure.reason,
            error: one.failure.to_string(),
            business_key: one.business_key,
            attempts: one.parcel.attempts().saturating_add(1),
            first_failed_at: one.parcel.first_failed_at().unwrap_or(now),
            last_failed_at: now,
        };
        let receipt_id = one.parcel.receipt_id().ok().flatten().unwrap_or_default();
        warn!(
            %receipt_id,
            source = one.parcel.routing_key,
            reason = mark.reason.code(),
            error = mark.error,
            "the message is dead"
        );
        tools.publisher.publish(Outgoing::dead(&tools.topology, &one.parcel, &mark)).await
    });
    confirmed(join_all(sent).await)
}

fn confirmed(results: Vec<Result<Confirmed, PublishError>>) -> Result<(), Trouble> {
    let _all: Vec<Confirmed> = results.into_iter().collect::<Result<_, _>>()?;
    Ok(())
}
