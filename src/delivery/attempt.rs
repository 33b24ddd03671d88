//! Claims due deliveries, and records the results of attempts.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{ATTEMPT_RESULTS, DeliveryContext};
use crate::{
    destinations::{DeliveryPayload, Destination},
    domain::{DeliveryIdentity, PermanentFailure},
    retry,
    store::{
        Conn, StoreError, Tx, deliveries,
        deliveries::{AttemptOutcome, AttemptRecord, ClaimRequest, DueDelivery},
    },
};

/// A delivery with a lease of ours.
#[derive(Debug)]
pub(super) struct ClaimedDelivery {
    pub(super) due: DueDelivery,
    pub(super) idempotency_key: Uuid,
    /// The request's body.
    pub(super) request: String,
    /// The end of the lease, by the database's clock.
    pub(super) lease_until: OffsetDateTime,
    /// When the claim began; the lease is not older.
    pub(super) claim_started_at: Instant,
}

impl ClaimedDelivery {
    pub(super) fn payload(&self) -> DeliveryPayload<'_> {
        delivery_payload(&self.due, self.idempotency_key)
    }

    pub(super) fn attempt_record(
        &self,
        outcome: AttemptOutcome,
        status: Option<u16>,
        response: Option<String>,
    ) -> AttemptRecord {
        AttemptRecord {
            delivery_id: self.due.delivery_id,
            lease_until: Some(self.lease_until),
            outcome,
            status,
            response,
        }
    }
}

fn delivery_payload(due: &DueDelivery, idempotency_key: Uuid) -> DeliveryPayload<'_> {
    DeliveryPayload {
        document: &due.document,
        event: &due.event,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        document_number: due.document_number.as_deref(),
        issue: u32::try_from(due.issue).unwrap_or_default(),
        idempotency_key,
    }
}

fn idempotency_key(destination: &Destination, due: &DueDelivery) -> Option<Uuid> {
    // A key that was sent stays, even if a later version would derive another.
    if due.idempotency_key.is_some() {
        return due.idempotency_key;
    }
    let identity = DeliveryIdentity {
        destination: &destination.name,
        // Always known: a CHECK constraint lists the same words.
        event: due.event.parse().ok()?,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        issue: u32::try_from(due.issue).ok()?,
        cause_receipt_id: due.cause_receipt_id,
    };
    Some(identity.idempotency_key())
}

/// Claims up to `limit` due deliveries with a lease. `render` makes the request
/// of a delivery that was never sent; a delivery that it cannot render becomes
/// a dead letter, so the result may be empty. `None` if none was due.
pub(super) async fn claim(
    context: &DeliveryContext,
    destination: &Destination,
    limit: usize,
    lease: Duration,
    render: impl Fn(&DeliveryPayload<'_>, &DueDelivery) -> Result<String, PermanentFailure>,
) -> Result<Option<Vec<ClaimedDelivery>>, StoreError> {
    let claim_started_at = Instant::now();
    let work = async |tx: &mut Tx| {
        let due_deliveries = deliveries::lock_due(tx, &destination.name, limit).await?;
        if due_deliveries.is_empty() {
            return Ok(None);
        }
        let (mut claimed, mut requests) = (Vec::new(), Vec::new());
        let mut unrenderable = Vec::new();
        for due in due_deliveries {
            let Some(idempotency_key) = idempotency_key(destination, &due) else { continue };
            let request = match &due.request {
                // The same key always goes with the same bytes.
                Some(request) => Ok(request.clone()),
                None => render(&delivery_payload(&due, idempotency_key), &due),
            };
            match request {
                Ok(request) => {
                    let delivery_id = due.delivery_id;
                    requests.push(ClaimRequest { delivery_id, idempotency_key, request });
                    claimed.push(due);
                }
                Err(failure) => unrenderable.push((due, failure)),
            }
        }
        if !unrenderable.is_empty() {
            fail_unrenderable(tx, context, destination, &unrenderable).await?;
        }
        if requests.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let lease_until = deliveries::claim(tx, &requests, lease).await?;
        let deliveries = claimed.into_iter().zip(requests).map(|(due, request)| {
            let ClaimRequest { idempotency_key, request, .. } = request;
            ClaimedDelivery { due, idempotency_key, request, lease_until, claim_started_at }
        });
        Ok(Some(deliveries.collect()))
    };
    context.store.transaction(work).await
}

/// Dead-letters deliveries whose request cannot be rendered.
async fn fail_unrenderable(
    conn: &mut Conn,
    context: &DeliveryContext,
    destination: &Destination,
    unrenderable: &[(DueDelivery, PermanentFailure)],
) -> Result<(), StoreError> {
    let attempt = |(due, failure): &(DueDelivery, PermanentFailure)| {
        let (delivery_id, error) = (due.delivery_id, failure.to_string());
        warn!(%delivery_id, destination = destination.name, error, "the request cannot be rendered");
        let outcome = AttemptOutcome::Failed { reason: failure.reason, error };
        AttemptRecord { delivery_id, lease_until: None, outcome, status: None, response: None }
    };
    let attempts: Vec<AttemptRecord> = unrenderable.iter().map(attempt).collect();
    count_attempts(context, destination, &attempts);
    deliveries::record_attempts(conn, &attempts).await?;
    Ok(())
}

/// Records results, and retries while the database is unavailable, until the
/// leases expire. After that another worker takes the deliveries over and finds
/// their state out by itself.
pub(super) async fn record_attempts(
    context: &DeliveryContext,
    destination: &Destination,
    attempts: &[AttemptRecord],
    stop: &CancellationToken,
) {
    count_attempts(context, destination, attempts);
    let Some(lease_until) = attempts.iter().filter_map(|attempt| attempt.lease_until).min() else {
        return;
    };
    // Our clock may differ from the database's, which decides in the end.
    let timeout = Duration::try_from(lease_until - OffsetDateTime::now_utc()).unwrap_or_default();
    let (started_at, mut retry_delay) = (Instant::now(), retry::reconnect_delays());
    // Not `retry_while_unavailable`: any error is retried until the lease expires or `stop`.
    loop {
        let record =
            context.store.transaction(async |tx| deliveries::record_attempts(tx, attempts).await);
        match record.await {
            Ok(recorded) => {
                for attempt in attempts {
                    log_outcome(destination, attempt, recorded.contains(&attempt.delivery_id));
                }
                return;
            }
            Err(error) => {
                let destination = &destination.name;
                warn!(destination, %error, "the result of a delivery cannot be recorded");
                if started_at.elapsed() > timeout || stop.is_cancelled() {
                    return;
                }
            }
        }
        tokio::time::sleep(retry_delay()).await;
    }
}

fn log_outcome(destination: &Destination, attempt: &AttemptRecord, is_recorded: bool) {
    let (destination, delivery_id) = (&destination.name, attempt.delivery_id);
    if !is_recorded {
        warn!(%delivery_id, destination, "result not recorded: the lease was lost, or it was voided");
        return;
    }
    match &attempt.outcome {
        AttemptOutcome::Delivered { warning: Some(warning), .. } => {
            warn!(%delivery_id, destination, warning, "delivered with a warning");
        }
        AttemptOutcome::Delivered { remote_id, .. } => {
            debug!(%delivery_id, destination, remote_id, "delivered");
        }
        AttemptOutcome::Retry { may_be_delivered, delay, error, .. } => {
            let retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            info!(%delivery_id, destination, may_be_delivered, retry_ms, error, "retry scheduled");
        }
        AttemptOutcome::Failed { reason, error } => {
            warn!(%delivery_id, destination, reason = reason.as_str(), error, "the delivery failed");
        }
    }
}

fn count_attempts(
    context: &DeliveryContext,
    destination: &Destination,
    attempts: &[AttemptRecord],
) {
    let [delivered, uncertain, retry_later, rejected] = ATTEMPT_RESULTS;
    for attempt in attempts {
        let result = match &attempt.outcome {
            AttemptOutcome::Delivered { .. } => delivered,
            AttemptOutcome::Retry { may_be_delivered: true, .. } => uncertain,
            AttemptOutcome::Retry { .. } => retry_later,
            AttemptOutcome::Failed { .. } => rejected,
        };
        context.metrics.delivery_attempts.with_label_values(&[&destination.name, result]).inc();
    }
}
