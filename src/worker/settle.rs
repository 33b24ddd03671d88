//! What a failed message comes to: a retry queue or the dead, each made
//! durable before the original is acknowledged.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{info, warn};

use super::{
    Tools, Trouble,
    patience::{After, Patience},
};
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
    let now = OffsetDateTime::now_utc();
    let mut waiting = Vec::new();
    let mut dead = Vec::new();
    for one in failed {
        tools.metrics.attempts.with_label_values(&[source.as_str()]).inc();
        match tools.schedule.after(one.envelope.attempt) {
            Disposition::Retry(delay) => waiting.push((one, delay)),
            Disposition::Bury => dead.push(exhausted(one)),
        }
    }
    remember(tools, &waiting).await?;
    let sent = waiting.iter().map(|(one, delay)| {
        let mut envelope = one.envelope.clone();
        envelope.attempt = envelope.attempt.saturating_add(1);
        let first = one.parcel.first_failed_at().unwrap_or(now);
        let message = Outgoing::retry(&tools.topology, &envelope, *delay, first);
        tools.publisher.publish(message)
    });
    confirmed(join_all(sent).await)?;
    for (one, delay) in &waiting {
        info!(
            receipt_id = %one.envelope.receipt_id,
            %source,
            attempt = one.envelope.attempt.saturating_add(1),
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            error = one.error,
            "the message is tried again later"
        );
    }
    let outcomes = waiting.iter().map(|_| Outcome::Retried);
    tools.metrics.count_outcomes(source, outcomes);
    bury(tools, dead).await
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
async fn remember(tools: &Tools, waiting: &[(Failed, Duration)]) -> Result<(), Trouble> {
    if waiting.is_empty() {
        return Ok(());
    }
    let rows: Vec<receipts::Row<'_>> = waiting
        .iter()
        .map(|(one, _)| receipts::Row {
            envelope: &one.envelope,
            business_key: one.business_key.as_deref(),
            outcome: Outcome::Retried,
            attempts: one.envelope.attempt.saturating_add(1),
            error: Some(&one.error),
            keep_payload: true,
        })
        .collect();
    let mut patience = Patience::new(Duration::from_millis(tools.settings.hold_ms));
    while let Err(error) = write(tools, &rows).await {
        if let After::Final(error) = patience.bear(error).await? {
            // The row that failed before may fail here too, for the same
            // reason. The message matters more than its log line.
            warn!(%error, "retries could not be recorded on their receipts");
            break;
        }
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
