//! Deliveries over HTTP: so many at once, so many a second, and none while
//! the target does not answer.

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

/// A lease covers a look-up, the call and what it looks up, another look-up,
/// the record of it all, and the second that it may wait for the pace.
const CALLS_PER_LEASE: u32 = 4;
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// While the target is left alone, somebody may have something to say.
const OPEN_CIRCUIT_POLL: Duration = Duration::from_secs(1);

/// Delivers to one target until stopped.
pub(super) async fn run(
    tools: &DeliveryContext,
    target: &Destination,
    http: &HttpDestination,
    stop: &CancellationToken,
) {
    let effort = &target.policy;
    let open = tools.metrics.circuit_breaker_open.with_label_values(&["destination", &target.name]);
    open.set(0);
    let name = target.name.clone();
    let gate = CallLimiter::new(&effort.call_limits(), move |is_open| {
        open.set(i64::from(is_open));
        if is_open {
            warn!(target = name, "the target does not answer; deliveries wait");
        } else {
            info!(target = name, "the target answers again");
        }
    });
    let (turn, waiting) = (Mutex::default(), AtomicUsize::new(0));
    let courier = HttpDispatcher {
        tools,
        target,
        http,
        call_limiter: &gate,
        admitted: turn,
        waiting_workers: waiting,
        stop,
    };
    let seats = (0..effort.max_concurrency).map(|_| courier.run_worker());
    futures_util::future::join_all(seats).await;
}

struct HttpDispatcher<'a> {
    tools: &'a DeliveryContext,
    target: &'a Destination,
    http: &'a HttpDestination,
    call_limiter: &'a CallLimiter,
    /// One seat at a time looks for work, for all that wait behind it; the
    /// others carry. What was found has been claimed.
    admitted: Mutex<VecDeque<AdmittedDelivery<'a>>>,
    /// How many seats look for work or wait for it.
    waiting_workers: AtomicUsize,
    stop: &'a CancellationToken,
}

/// A delivery that was claimed, and leave to send it.
struct AdmittedDelivery<'a> {
    delivery: ClaimedDelivery,
    permit: CallPermit<'a>,
    /// Whether its slot of the pace has come.
    has_rate_slot: bool,
}

impl<'a> HttpDispatcher<'a> {
    /// One seat: a delivery after the other.
    async fn run_worker(&self) {
        loop {
            self.waiting_workers.fetch_add(1, Ordering::Relaxed);
            let ready = {
                let mut ready = self.admitted.lock().await;
                if ready.is_empty() {
                    *ready = self.claim_next().await;
                }
                ready.pop_front()
            };
            self.waiting_workers.fetch_sub(1, Ordering::Relaxed);
            let Some(AdmittedDelivery { delivery: errand, permit: pass, has_rate_slot: is_paced }) =
                ready
            else {
                return;
            };
            if !is_paced {
                self.call_limiter.wait_for_rate_limit().await;
            }
            let attempt = self.attempt(&errand, pass).await;
            attempt::record_attempts(self.tools, self.target, &[attempt], self.stop).await;
        }
    }

    /// Waits for deliveries whose turn it is, one for each seat that waits, and
    /// for leave to send them; none once it is time to stop. Leave comes first:
    /// while the target is left alone nothing is claimed, and no attempt can
    /// count.
    async fn claim_next(&self) -> VecDeque<AdmittedDelivery<'a>> {
        let lease =
            self.target.policy.timeout.saturating_mul(CALLS_PER_LEASE).saturating_add(LEASE_MARGIN);
        while !self.stop.is_cancelled() {
            if let Some(wait) = self.call_limiter.open_for() {
                sleep_or_stop(wait.min(OPEN_CIRCUIT_POLL), self.stop).await;
                continue;
            }
            let pass = tokio::select! {
                pass = self.call_limiter.acquire() => pass,
                () = self.stop.cancelled() => break,
            };
            let Ok(pass) = pass else { continue };
            let mut passes = vec![pass];
            passes.extend(self.permits_for_waiting_workers(&passes[0]));
            let write = |about: &DeliveryPayload<'_>, _: &DueDelivery| self.http.render(about);
            match attempt::claim(self.tools, self.target, passes.len(), lease, write).await {
                // Nothing that could be written: look for more.
                Ok(Some(errands)) if errands.is_empty() => {}
                Ok(Some(errands)) => {
                    let ready = errands.into_iter().zip(passes).enumerate();
                    return ready
                        .map(|(index, (errand, pass))| AdmittedDelivery {
                            delivery: errand,
                            permit: pass,
                            has_rate_slot: index == 0,
                        })
                        .collect();
                }
                Ok(None) => {
                    drop(passes);
                    self.tools.wait_for_work(self.stop).await;
                }
                Err(error) => {
                    drop(passes);
                    warn!(target = self.target.name, %error, "the outbox cannot be read");
                    sleep_or_stop(OPEN_CIRCUIT_POLL, self.stop).await;
                }
            }
        }
        VecDeque::new()
    }

    /// Leave for the seats that wait behind this one: to claim for each of
    /// them by itself would cost a transaction each. None lies claimed for
    /// longer than a second before its slot comes.
    fn permits_for_waiting_workers(&self, mine: &CallPermit<'a>) -> Vec<CallPermit<'a>> {
        if mine.is_probe() {
            return Vec::new();
        }
        let others = self.waiting_workers.load(Ordering::Relaxed).saturating_sub(1);
        let per_second =
            usize::try_from(self.target.policy.rate_limit_per_second).unwrap_or(usize::MAX);
        self.call_limiter.try_acquire_many(others.min(per_second))
    }

    /// Sends a delivery, and finds out what came of it as far as it can be.
    async fn attempt(&self, errand: &ClaimedDelivery, pass: CallPermit<'_>) -> AttemptRecord {
        let may_count = !pass.is_probe();
        let begun = Instant::now();
        let report = self.send(errand).await;
        let seconds = self.tools.metrics.delivery_duration.with_label_values(&[&self.target.name]);
        seconds.observe(begun.elapsed().as_secs_f64());
        pass.record(report.call_result());
        let AttemptReport { result: told, response: answer } = report;
        let outcome = backoff::attempt_outcome(&self.target.policy, &errand.due, may_count, told);
        let (status, response) = match answer {
            Some(DestinationResponse { status, body }) => (status, Some(body)),
            None => (None, None),
        };
        errand.attempt_record(outcome, status, response)
    }

    async fn send(&self, errand: &ClaimedDelivery) -> AttemptReport {
        let about = errand.payload();
        let asks = self.http.supports_lookup();
        if errand.due.may_be_delivered && asks {
            match self.http.look_up_document(&about).await {
                Ok(LookupResult::Found { remote_id }) => {
                    let warning = "found by looking it up: the answer to the call that made it \
                                   never came";
                    return without_response(AttemptResult::Delivered {
                        remote_id,
                        warning: Some(warning.to_owned()),
                    });
                }
                Ok(LookupResult::NotFound) => {}
                Err(error) => {
                    return without_response(AttemptResult::Unknown(format!(
                        "it could not be looked up: {error}"
                    )));
                }
            }
        }
        // A process may have stood still since it claimed it. Sent now, the
        // call could outlast the lease, and meet that of another worker.
        if errand.claim_started_at.elapsed()
            > self.target.policy.timeout.saturating_add(LEASE_MARGIN / 2)
        {
            let error = "it was not sent in time after it was claimed".to_owned();
            return without_response(AttemptResult::RetryLater {
                error,
                retry_after: None,
                counts_as_attempt: false,
            });
        }
        let report = self.http.send(&about, &errand.request).await;
        let AttemptResult::Delivered { remote_id, warning: None } = report.result else {
            return report;
        };
        // The answer to a key that was used before may be an old one, of what
        // was deleted since.
        if !asks || !errand.due.was_sent {
            return AttemptReport {
                result: AttemptResult::Delivered { remote_id, warning: None },
                ..report
            };
        }
        let told = match self.http.look_up_document(&about).await {
            Ok(LookupResult::Found { remote_id: looked_up }) => {
                AttemptResult::Delivered { remote_id: remote_id.or(looked_up), warning: None }
            }
            Ok(LookupResult::NotFound) => AttemptResult::Rejected {
                reason: ReasonCode::DeliveryGone,
                error: "the target answers that it has it, and cannot show it: it was deleted \
                        there after an earlier call; void it and re-issue it"
                    .to_owned(),
            },
            Err(error) => {
                let warning = format!("it could not be looked up afterwards: {error}");
                AttemptResult::Delivered { remote_id, warning: Some(warning) }
            }
        };
        AttemptReport { result: told, ..report }
    }
}

/// What was found out without an answer to the delivery itself.
fn without_response(told: AttemptResult) -> AttemptReport {
    AttemptReport { result: told, response: None }
}
