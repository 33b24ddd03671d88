//! A delivery that was claimed, and the record of what came of it.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{RESULTS, Tools};
use crate::{
    domain::{DeliveryName, DocumentEvent, Failure},
    retry,
    store::{
        StoreError,
        deliveries::{self, Attempt, Claimed, Due, Outcome},
    },
    target::{About, Target},
};

/// A delivery that is ours for a while.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) due: Due,
    /// The key that goes with it.
    pub(super) key: Uuid,
    /// What is sent.
    pub(super) request: String,
    /// Until when it is ours, as the database says.
    pub(super) lease_until: OffsetDateTime,
    /// When we began to ask for it: before that, it cannot have been ours.
    pub(super) asked_at: Instant,
}

impl Errand {
    /// What the target is told it is about.
    pub(super) fn about(&self) -> About<'_> {
        about(&self.due, self.key)
    }

    /// The record of what came of it.
    pub(super) fn attempt(
        &self,
        outcome: Outcome,
        status: Option<u16>,
        response: Option<String>,
    ) -> Attempt {
        Attempt {
            delivery_id: self.due.delivery_id,
            lease_until: Some(self.lease_until),
            outcome,
            status,
            response,
        }
    }
}

fn about(due: &Due, key: Uuid) -> About<'_> {
    About {
        document: &due.document,
        event: &due.event,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        document_number: due.document_number.as_deref(),
        generation: u32::try_from(due.generation).unwrap_or_default(),
        key,
    }
}

fn key(target: &Target, due: &Due) -> Option<Uuid> {
    // Once sent it stays, whatever a later version would derive.
    if due.idempotency_key.is_some() {
        return due.idempotency_key;
    }
    let name = DeliveryName {
        target: &target.name,
        // A constraint knows the same words.
        event: DocumentEvent::from_word(&due.event)?,
        source: &due.source,
        tenant: &due.tenant,
        document_id: &due.document_id,
        generation: u32::try_from(due.generation).ok()?,
        revision: due.revision,
    };
    Some(name.idempotency_key())
}

/// Claims at most so many deliveries for so long. `write` makes the request
/// of one that was never sent; what cannot be written goes before a person, so
/// that fewer may come of it. `None` if none was due.
pub(super) async fn claim(
    tools: &Tools,
    target: &Target,
    limit: usize,
    lease: Duration,
    write: impl Fn(&About<'_>, &Due) -> Result<String, Failure>,
) -> Result<Option<Vec<Errand>>, StoreError> {
    let asked_at = Instant::now();
    let work = async {
        let mut tx = tools.store.begin().await?;
        let mut claims = Vec::new();
        let mut unfit = Vec::new();
        let found = deliveries::due(&mut tx, &target.name, limit).await?;
        if found.is_empty() {
            tx.rollback().await?;
            return Ok(None);
        }
        for due in found {
            let Some(key) = key(target, &due) else { continue };
            let request = match &due.request {
                // Under one key always the same bytes.
                Some(request) => Ok(request.clone()),
                None => write(&about(&due, key), &due),
            };
            match request {
                Ok(request) => {
                    claims.push((due, Claimed { delivery_id: Uuid::nil(), key, request }));
                }
                Err(failure) => unfit.push((due, failure)),
            }
        }
        if !unfit.is_empty() {
            refuse(&mut tx, tools, target, &unfit).await?;
        }
        let claimed: Vec<Claimed> = claims
            .iter()
            .map(|(due, claim)| Claimed { delivery_id: due.delivery_id, ..claim.clone() })
            .collect();
        if claimed.is_empty() {
            tx.commit().await?;
            return Ok(Some(Vec::new()));
        }
        let lease_until = deliveries::claim(&mut tx, &claimed, lease).await?;
        tx.commit().await?;
        let errand = |((due, _), Claimed { key, request, .. }): ((Due, _), Claimed)| Errand {
            due,
            key,
            request,
            lease_until,
            asked_at,
        };
        Ok(Some(claims.into_iter().zip(claimed).map(errand).collect()))
    };
    tools.store.in_time(work).await
}

/// Lays deliveries before a person that could not even be written.
async fn refuse(
    tx: &mut crate::store::Conn,
    tools: &Tools,
    target: &Target,
    unfit: &[(Due, Failure)],
) -> Result<(), StoreError> {
    let attempt = |(due, failure): &(Due, Failure)| {
        let delivery_id = due.delivery_id;
        let error = failure.to_string();
        warn!(%delivery_id, target = target.name, error, "the delivery cannot be written");
        let outcome = Outcome::Failed { reason: failure.reason, error };
        Attempt { delivery_id, lease_until: None, outcome, status: None, response: None }
    };
    let attempts: Vec<Attempt> = unfit.iter().map(attempt).collect();
    count(tools, target, &attempts);
    deliveries::settle(tx, &attempts).await?;
    Ok(())
}

/// Records what came of attempts, however long the database is away; but not
/// beyond their leases: whoever takes them over finds out by itself.
pub(super) async fn record(
    tools: &Tools,
    target: &Target,
    attempts: &[Attempt],
    stop: &CancellationToken,
) {
    count(tools, target, attempts);
    let Some(until) = attempts.iter().filter_map(|attempt| attempt.lease_until).min() else {
        return;
    };
    // Our clock may differ from the database's; the lease is the database's,
    // and it decides in the end.
    let patience = Duration::try_from(until - OffsetDateTime::now_utc()).unwrap_or_default();
    let (begun, mut pause) = (Instant::now(), retry::reconnect());
    loop {
        let work = async {
            let mut tx = tools.store.begin().await?;
            let recorded = deliveries::settle(&mut tx, attempts).await?;
            tx.commit().await?;
            Ok(recorded)
        };
        match tools.store.in_time(work).await {
            Ok(recorded) => {
                for attempt in attempts {
                    tell(target, attempt, recorded.contains(&attempt.delivery_id));
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

fn tell(target: &Target, attempt: &Attempt, recorded: bool) {
    let (target, delivery_id) = (&target.name, attempt.delivery_id);
    if !recorded {
        warn!(%delivery_id, target, "taken over or voided while it was sent; nothing is recorded");
        return;
    }
    match &attempt.outcome {
        Outcome::Delivered { warning: Some(warning), .. } => {
            warn!(%delivery_id, target, warning, "delivered, with a warning");
        }
        Outcome::Delivered { remote_id, .. } => {
            debug!(%delivery_id, target, remote_id, "delivered");
        }
        Outcome::Again { is_doubtful, after, error, .. } => {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            info!(%delivery_id, target, is_doubtful, after_ms, error, "delivered later");
        }
        Outcome::Failed { reason, error } => {
            warn!(%delivery_id, target, reason = reason.code(), error, "the delivery failed");
        }
    }
}

fn count(tools: &Tools, target: &Target, attempts: &[Attempt]) {
    let [delivered, uncertain, not_now, refused] = RESULTS;
    for attempt in attempts {
        let result = match &attempt.outcome {
            Outcome::Delivered { .. } => delivered,
            Outcome::Again { is_doubtful: true, .. } => uncertain,
            Outcome::Again { .. } => not_now,
            Outcome::Failed { .. } => refused,
        };
        tools.metrics.delivery_attempts.with_label_values(&[&target.name, result]).inc();
    }
}
