//! A delivery that was claimed, and the record of what came of it.

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
        StoreError, deliveries,
        deliveries::{AttemptOutcome, AttemptRecord, ClaimRequest, DueDelivery},
    },
};

/// A delivery that is ours for a while.
#[derive(Debug)]
pub(super) struct ClaimedDelivery {
    pub(super) due: DueDelivery,
    /// The key that goes with it.
    pub(super) idempotency_key: Uuid,
    /// What is sent.
    pub(super) request: String,
    /// Until when it is ours, as the database says.
    pub(super) lease_until: OffsetDateTime,
    /// When we began to ask for it: before that, it cannot have been ours.
    pub(super) claim_started_at: Instant,
}

impl ClaimedDelivery {
    /// What the target is told it is about.
    pub(super) fn payload(&self) -> DeliveryPayload<'_> {
        delivery_payload(&self.due, self.idempotency_key)
    }

    /// The record of what came of it.
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

fn delivery_payload(due: &DueDelivery, key: Uuid) -> DeliveryPayload<'_> {
    DeliveryPayload {
        document: &due.document,
        event: &due.event,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        document_number: due.document_number.as_deref(),
        issue: u32::try_from(due.issue).unwrap_or_default(),
        idempotency_key: key,
    }
}

fn idempotency_key(target: &Destination, due: &DueDelivery) -> Option<Uuid> {
    // Once sent it stays, whatever a later version would derive.
    if due.idempotency_key.is_some() {
        return due.idempotency_key;
    }
    let name = DeliveryIdentity {
        destination: &target.name,
        // A constraint knows the same words.
        event: due.event.parse().ok()?,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        issue: u32::try_from(due.issue).ok()?,
        cause_receipt_id: due.cause_receipt_id,
    };
    Some(name.idempotency_key())
}

/// Claims at most so many deliveries for so long. `write` makes the request
/// of one that was never sent; what cannot be written goes before a person, so
/// that fewer may come of it. `None` if none was due.
pub(super) async fn claim(
    tools: &DeliveryContext,
    target: &Destination,
    limit: usize,
    lease: Duration,
    write: impl Fn(&DeliveryPayload<'_>, &DueDelivery) -> Result<String, PermanentFailure>,
) -> Result<Option<Vec<ClaimedDelivery>>, StoreError> {
    let asked_at = Instant::now();
    let work = async {
        let mut tx = tools.store.begin().await?;
        let mut claims = Vec::new();
        let mut unfit = Vec::new();
        let found = deliveries::lock_due(&mut tx, &target.name, limit).await?;
        if found.is_empty() {
            tx.rollback().await?;
            return Ok(None);
        }
        for due in found {
            let Some(key) = idempotency_key(target, &due) else { continue };
            let request = match &due.request {
                // Under one key always the same bytes.
                Some(request) => Ok(request.clone()),
                None => write(&delivery_payload(&due, key), &due),
            };
            match request {
                Ok(request) => {
                    claims.push((
                        due,
                        ClaimRequest { delivery_id: Uuid::nil(), idempotency_key: key, request },
                    ));
                }
                Err(failure) => unfit.push((due, failure)),
            }
        }
        if !unfit.is_empty() {
            fail_unrenderable(&mut tx, tools, target, &unfit).await?;
        }
        let claimed: Vec<ClaimRequest> = claims
            .iter()
            .map(|(due, claim)| ClaimRequest { delivery_id: due.delivery_id, ..claim.clone() })
            .collect();
        if claimed.is_empty() {
            tx.commit().await?;
            return Ok(Some(Vec::new()));
        }
        let lease_until = deliveries::claim(&mut tx, &claimed, lease).await?;
        tx.commit().await?;
        let errand = |((due, _), ClaimRequest { idempotency_key: key, request, .. }): (
            (DueDelivery, _),
            ClaimRequest,
        )| ClaimedDelivery {
            due,
            idempotency_key: key,
            request,
            lease_until,
            claim_started_at: asked_at,
        };
        Ok(Some(claims.into_iter().zip(claimed).map(errand).collect()))
    };
    tools.store.with_timeout(work).await
}

/// Lays deliveries before a person that could not even be written.
async fn fail_unrenderable(
    tx: &mut crate::store::Conn,
    tools: &DeliveryContext,
    target: &Destination,
    unfit: &[(DueDelivery, PermanentFailure)],
) -> Result<(), StoreError> {
    let attempt = |(due, failure): &(DueDelivery, PermanentFailure)| {
        let delivery_id = due.delivery_id;
        let error = failure.to_string();
        warn!(%delivery_id, target = target.name, error, "the delivery cannot be written");
        let outcome = AttemptOutcome::Failed { reason: failure.reason, error };
        AttemptRecord { delivery_id, lease_until: None, outcome, status: None, response: None }
    };
    let attempts: Vec<AttemptRecord> = unfit.iter().map(attempt).collect();
    count_attempts(tools, target, &attempts);
    deliveries::record_attempts(tx, &attempts).await?;
    Ok(())
}

/// Records what came of attempts, however long the database is away; but not
/// beyond their leases: whoever takes them over finds out by itself.
pub(super) async fn record_attempts(
    tools: &DeliveryContext,
    target: &Destination,
    attempts: &[AttemptRecord],
    stop: &CancellationToken,
) {
    count_attempts(tools, target, attempts);
    let Some(until) = attempts.iter().filter_map(|attempt| attempt.lease_until).min() else {
        return;
    };
    // Our clock may differ from the database's; the lease is the database's,
    // and it decides in the end.
    let patience = Duration::try_from(until - OffsetDateTime::now_utc()).unwrap_or_default();
    let (begun, mut pause) = (Instant::now(), retry::reconnect_delays());
    loop {
        let work = async {
            let mut tx = tools.store.begin().await?;
            let recorded = deliveries::record_attempts(&mut tx, attempts).await?;
            tx.commit().await?;
            Ok(recorded)
        };
        match tools.store.with_timeout(work).await {
            Ok(recorded) => {
                for attempt in attempts {
                    log_outcome(target, attempt, recorded.contains(&attempt.delivery_id));
                }
                return;
            }
            Err(error) => {
                warn!(target = target.name, %error, "what came of a delivery is not on record");
                if begun.elapsed() > patience || stop.is_cancelled() {
                    return;
                }
            }
        }
        tokio::time::sleep(pause()).await;
    }
}

fn log_outcome(target: &Destination, attempt: &AttemptRecord, recorded: bool) {
    let (target, delivery_id) = (&target.name, attempt.delivery_id);
    if !recorded {
        warn!(%delivery_id, target, "taken over or voided while it was sent; nothing is recorded");
        return;
    }
    match &attempt.outcome {
        AttemptOutcome::Delivered { warning: Some(warning), .. } => {
            warn!(%delivery_id, target, warning, "delivered, with a warning");
        }
        AttemptOutcome::Delivered { remote_id, .. } => {
            debug!(%delivery_id, target, remote_id, "delivered");
        }
        AttemptOutcome::Retry { may_be_delivered, delay: after, error, .. } => {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            info!(%delivery_id, target, may_be_delivered, after_ms, error, "delivered later");
        }
        AttemptOutcome::Failed { reason, error } => {
            warn!(%delivery_id, target, reason = reason.as_str(), error, "the delivery failed");
        }
    }
}

fn count_attempts(tools: &DeliveryContext, target: &Destination, attempts: &[AttemptRecord]) {
    let [delivered, uncertain, not_now, refused] = ATTEMPT_RESULTS;
    for attempt in attempts {
        let result = match &attempt.outcome {
            AttemptOutcome::Delivered { .. } => delivered,
            AttemptOutcome::Retry { may_be_delivered: true, .. } => uncertain,
            AttemptOutcome::Retry { .. } => not_now,
            AttemptOutcome::Failed { .. } => refused,
        };
        tools.metrics.delivery_attempts.with_label_values(&[&target.name, result]).inc();
    }
}
