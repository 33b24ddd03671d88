//! Deliveries over HTTP, limited in concurrency and rate, and paused while the
//! destination is unavailable.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DeliveryContext, attempt, attempt::ClaimedDelivery, backoff, sleep_or_stop};
use crate::{
    destinations::{
        AttemptReport, AttemptResult, DeliveryPayload, Destination, DestinationResponse,
        LookupResult, http::HttpDestination,
    },
    domain::ReasonCode,
    net::call_limiter::{CallLimiter, CallPermit},
    store::deliveries::{AttemptRecord, DueDelivery},
};

/// Requests that a lease covers: a look-up before the delivery, the delivery
/// itself, the look-up of an existing document, and a look-up afterwards.
const CALLS_PER_LEASE: u32 = 4;
/// Time in a lease for the rate limit and for recording the result.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// How often the state of an open circuit breaker is checked.
const OPEN_CIRCUIT_POLL: Duration = Duration::from_secs(1);

/// Delivers to one destination until stopped.
pub(super) async fn run(
    context: &DeliveryContext,
    destination: &Destination,
    http: &HttpDestination,
    stop: &CancellationToken,
) {
    let policy = &destination.policy;
    let breaker_open =
        context.metrics.circuit_breaker_open.with_label_values(&["destination", &destination.name]);
    breaker_open.set(0);
    let name = destination.name.clone();
    let call_limiter = CallLimiter::new(&policy.call_limits(), move |is_open| {
        breaker_open.set(i64::from(is_open));
        if is_open {
            warn!(destination = name, "the destination is unavailable; deliveries wait");
        } else {
            info!(destination = name, "the destination is available again");
        }
    });
    let dispatcher = HttpDispatcher {
        context,
        destination,
        http,
        call_limiter: &call_limiter,
        admitted: Mutex::default(),
        waiting_workers: AtomicUsize::new(0),
        stop,
    };
    let workers = (0..policy.max_concurrency).map(|_| dispatcher.run_worker());
    futures_util::future::join_all(workers).await;
}

/// The workers that send the deliveries of one destination.
struct HttpDispatcher<'a> {
    context: &'a DeliveryContext,
    destination: &'a Destination,
    http: &'a HttpDestination,
    call_limiter: &'a CallLimiter,
    /// Claimed deliveries. One worker at a time claims, for all workers that
    /// wait for this lock.
    admitted: Mutex<VecDeque<AdmittedDelivery<'a>>>,
    /// Workers that claim or wait for the lock.
    waiting_workers: AtomicUsize,
    stop: &'a CancellationToken,
}

/// A claimed delivery and the permit to send it.
struct AdmittedDelivery<'a> {
    delivery: ClaimedDelivery,
    permit: CallPermit<'a>,
    /// Whether it has already waited for the rate limit.
    has_rate_slot: bool,
}

impl<'a> HttpDispatcher<'a> {
    /// Sends one delivery after the other until stopped.
    async fn run_worker(&self) {
        loop {
            self.waiting_workers.fetch_add(1, Ordering::Relaxed);
            let next = {
                let mut admitted = self.admitted.lock().await;
                if admitted.is_empty() {
                    *admitted = self.claim_next().await;
                }
                admitted.pop_front()
            };
            self.waiting_workers.fetch_sub(1, Ordering::Relaxed);
            let Some(AdmittedDelivery { delivery, permit, has_rate_slot }) = next else { return };
            if !has_rate_slot {
                self.call_limiter.wait_for_rate_limit().await;
            }
            let attempt = self.attempt(&delivery, permit).await;
            attempt::record_attempts(self.context, self.destination, &[attempt], self.stop).await;
        }
    }

    /// Waits for permits and then for due deliveries, one for each waiting
    /// worker. Empty once stopped. The permits come first: while the circuit
    /// breaker is open nothing is claimed, and no attempt can count.
    async fn claim_next(&self) -> VecDeque<AdmittedDelivery<'a>> {
        let timeout = self.destination.policy.timeout;
        let lease = timeout.saturating_mul(CALLS_PER_LEASE).saturating_add(LEASE_MARGIN);
        while !self.stop.is_cancelled() {
            if let Some(wait) = self.call_limiter.open_for() {
                sleep_or_stop(wait.min(OPEN_CIRCUIT_POLL), self.stop).await;
                continue;
            }
            let permit = tokio::select! {
                permit = self.call_limiter.acquire() => permit,
                () = self.stop.cancelled() => break,
            };
            let Ok(permit) = permit else { continue };
            let mut permits = vec![permit];
            permits.extend(self.permits_for_waiting_workers(&permits[0]));
            let render = |payload: &DeliveryPayload<'_>, _: &DueDelivery| self.http.render(payload);
            let claimed =
                attempt::claim(self.context, self.destination, permits.len(), lease, render).await;
            match claimed {
                // None could be rendered: claim more.
                Ok(Some(deliveries)) if deliveries.is_empty() => {}
                Ok(Some(deliveries)) => {
                    let admitted = deliveries.into_iter().zip(permits).enumerate();
                    return admitted
                        .map(|(index, (delivery, permit))| AdmittedDelivery {
                            delivery,
                            permit,
                            has_rate_slot: index == 0,
                        })
                        .collect();
                }
                Ok(None) => {
                    drop(permits);
                    self.context.wait_for_work(self.stop).await;
                }
                Err(error) => {
                    drop(permits);
                    let destination = &self.destination.name;
                    warn!(destination, %error, "the outbox cannot be read");
                    sleep_or_stop(OPEN_CIRCUIT_POLL, self.stop).await;
                }
            }
        }
        VecDeque::new()
    }

    /// Permits for the waiting workers, so that one transaction claims for all
    /// of them. No more than the rate limit admits in one second: a delivery
    /// must not wait long after it was claimed.
    fn permits_for_waiting_workers(&self, own: &CallPermit<'a>) -> Vec<CallPermit<'a>> {
        if own.is_probe() {
            return Vec::new();
        }
        let others = self.waiting_workers.load(Ordering::Relaxed).saturating_sub(1);
        let per_second =
            usize::try_from(self.destination.policy.rate_limit_per_second).unwrap_or(usize::MAX);
        self.call_limiter.try_acquire_many(others.min(per_second))
    }

    /// Sends a delivery and reports the result to the circuit breaker.
    async fn attempt(&self, delivery: &ClaimedDelivery, permit: CallPermit<'_>) -> AttemptRecord {
        let Destination { name, policy, .. } = self.destination;
        let may_count = !permit.is_probe();
        let started_at = Instant::now();
        let report = self.send(delivery).await;
        let duration = self.context.metrics.delivery_duration.with_label_values(&[name]);
        duration.observe(started_at.elapsed().as_secs_f64());
        permit.record(report.call_result());
        let AttemptReport { result, response } = report;
        let outcome = backoff::attempt_outcome(policy, &delivery.due, may_count, result);
        let (status, response) = match response {
            Some(DestinationResponse { status, body }) => (status, Some(body)),
            None => (None, None),
        };
        delivery.attempt_record(outcome, status, response)
    }

    async fn send(&self, delivery: &ClaimedDelivery) -> AttemptReport {
        let payload = delivery.payload();
        let supports_lookup = self.http.supports_lookup();
        if delivery.due.may_be_delivered && supports_lookup {
            match self.http.look_up_document(&payload).await {
                Ok(LookupResult::Found { remote_id }) => {
                    let warning = "found by a look-up: an earlier request created it, but its \
                                   response was lost";
                    return without_response(AttemptResult::Delivered {
                        remote_id,
                        warning: Some(warning.to_owned()),
                    });
                }
                Ok(LookupResult::NotFound) => {}
                Err(error) => {
                    return without_response(AttemptResult::Unknown(format!(
                        "the look-up failed: {error}"
                    )));
                }
            }
        }
        // If the process was suspended since the claim, the request could
        // outlast the lease and overlap that of another worker.
        let timeout = self.destination.policy.timeout;
        if delivery.claim_started_at.elapsed() > timeout.saturating_add(LEASE_MARGIN / 2) {
            let error = "it was not sent: the lease has nearly expired".to_owned();
            return without_response(AttemptResult::RetryLater {
                error,
                retry_after: None,
                counts_as_attempt: false,
            });
        }
        let report = self.http.send(&payload, &delivery.request).await;
        let AttemptResult::Delivered { remote_id, warning: None } = report.result else {
            return report;
        };
        // The destination may repeat its response to an earlier request with
        // this key, although the document was deleted since.
        if !supports_lookup || !delivery.due.was_sent {
            return AttemptReport {
                result: AttemptResult::Delivered { remote_id, warning: None },
                ..report
            };
        }
        let result = match self.http.look_up_document(&payload).await {
            Ok(LookupResult::Found { remote_id: found_id }) => {
                AttemptResult::Delivered { remote_id: remote_id.or(found_id), warning: None }
            }
            Ok(LookupResult::NotFound) => AttemptResult::Rejected {
                reason: ReasonCode::DeliveryGone,
                error: "the destination reports success, but the look-up does not find it: it \
                        was deleted there after an earlier request; void it and re-issue it"
                    .to_owned(),
            },
            Err(error) => {
                let warning = format!("the look-up after the delivery failed: {error}");
                AttemptResult::Delivered { remote_id, warning: Some(warning) }
            }
        };
        AttemptReport { result, ..report }
    }
}

/// A result for which the delivery itself got no response.
fn without_response(result: AttemptResult) -> AttemptReport {
    AttemptReport { result, response: None }
}
