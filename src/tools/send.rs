//! `tallyhook send`: webhooks of any configured source, signed and posted as
//! the platform would.
//!
//! A `scenario` is a `plan` (which webhooks in which order) and their
//! content, generated or read from files. `send` posts them; the
//! `report` has the responses and the outcomes that must be on record.

pub(crate) mod generate;
pub(crate) mod plan;
mod poison;
pub(crate) mod post;
pub(crate) mod predict;
pub(crate) mod report;
pub(crate) mod scenario;

#[cfg(test)]
mod tests;

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::sources::Source;
use plan::{Step, StepKind};
use post::{PostResult, Poster};
use predict::{headers, headers_with_invalid_signature};
use scenario::SendScenario;

#[derive(Clone, Copy, Debug)]
pub(crate) struct SendOptions {
    /// The maximum of concurrent requests; 1 or more.
    pub(crate) concurrency: usize,
    /// The maximum of new requests a second; `None` sends as fast as responses come.
    pub(crate) rate: Option<NonZeroU32>,
    /// The pause before late webhooks, for the earlier ones to be applied.
    pub(crate) settle: Duration,
}

/// Ends a run early.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopSignals {
    /// Sends nothing new, but waits for responses.
    pub(crate) stop_sending: CancellationToken,
    /// Waits for nothing.
    pub(crate) stop_waiting: CancellationToken,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) results: Vec<(Step, PostResult)>,
    /// Requests without a response when waiting was stopped.
    pub(crate) abandoned: u32,
    /// Time of sending, without the pause.
    pub(crate) duration: Duration,
}

/// Sends a scenario, and calls `progress` after each response.
pub(crate) async fn send(
    scenario: &SendScenario,
    source: &Source,
    poster: &Poster,
    options: SendOptions,
    stop: &StopSignals,
    progress: impl Fn() + Sync,
) -> Sent {
    let mut sent = Sent::default();
    let sender = Sender { scenario, source, poster, options, stop };
    for (index, steps) in [&scenario.plan.first, &scenario.plan.late].into_iter().enumerate() {
        if index > 0 && !steps.is_empty() && !stop.stop_sending.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(options.settle) => {}
                () = stop.stop_sending.cancelled() => {}
            }
        }
        let started = Instant::now();
        sender.send_steps(steps, &progress, &mut sent).await;
        sent.duration += started.elapsed();
    }
    sent
}

struct Sender<'a> {
    scenario: &'a SendScenario,
    source: &'a Source,
    poster: &'a Poster,
    options: SendOptions,
    stop: &'a StopSignals,
}

impl Sender<'_> {
    async fn send_steps(&self, steps: &[Step], progress: &(impl Fn() + Sync), sent: &mut Sent) {
        let started = tokio::time::Instant::now();
        let in_flight = AtomicU32::new(0);
        let deliver = |(nth, step): (u64, Step)| {
            let in_flight = &in_flight;
            async move {
                if let Some(rate) = self.options.rate {
                    tokio::select! {
                        () = sleep_until(started + due_after(nth, rate)) => {}
                        () = self.stop.stop_sending.cancelled() => {}
                    }
                }
                if self.stop.stop_sending.is_cancelled() {
                    return None;
                }
                in_flight.fetch_add(1, Ordering::Relaxed);
                let result = self.post(step).await;
                in_flight.fetch_sub(1, Ordering::Relaxed);
                progress();
                Some((step, result))
            }
        };
        let mut results = stream::iter((0..).zip(steps.iter().copied()))
            .map(deliver)
            .buffer_unordered(self.options.concurrency.max(1));
        loop {
            tokio::select! {
                next = results.next() => match next {
                    Some(result) => sent.results.extend(result),
                    None => break,
                },
                () = self.stop.stop_waiting.cancelled() => {
                    sent.abandoned += in_flight.load(Ordering::Relaxed);
                    break;
                }
            }
        }
    }

    async fn post(&self, step: Step) -> PostResult {
        let webhook = self.scenario.webhook(step);
        let headers = || {
            let headers = match step.kind {
                StepKind::Forged => headers_with_invalid_signature,
                _ => headers,
            };
            headers(self.source, &self.scenario.tenant, &webhook, OffsetDateTime::now_utc())
        };
        self.poster.post(headers, &webhook.body, &self.stop.stop_sending).await
    }
}

/// When the nth request is due, relative to the first one.
fn due_after(nth: u64, rate: NonZeroU32) -> Duration {
    let rate = u64::from(rate.get());
    // Both are below 2^32, because the rate is.
    let [rest, per_second] = [nth % rate, rate].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    Duration::from_secs(nth / rate) + Duration::from_secs(1) * rest / per_second
}
