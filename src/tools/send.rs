//! `tallyhook send`: webhooks of any configured source, signed and posted as
//! the platform would.
//!
//! A [`campaign`] is a [`plan`] (which deliveries in which order) and its
//! webhooks, [generated](generate) or read from files. [`send`] posts them;
//! the [`report`] says what was answered and what the books must show.

pub mod campaign;
pub mod generate;
pub mod plan;
pub mod poison;
pub mod post;
pub mod rehearse;
pub mod report;

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
use campaign::Campaign;
use plan::{Part, Step};
use post::{Answer, Poster};
use rehearse::{forged_headers, headers};

/// How fast, and how much at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The most requests under way at once; 1 or more.
    pub concurrency: usize,
    /// The most new requests in a second; as fast as answers come if `None`.
    pub rate: Option<NonZeroU32>,
    /// The pause before late webhooks are sent, for what was sent before to
    /// reach the books.
    pub settle: Duration,
}

/// How a campaign is ended before its end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Nothing new is sent; answers under way are waited for.
    pub gently: CancellationToken,
    /// Nothing is waited for.
    pub now: CancellationToken,
}

/// What was sent and answered.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Each delivery that was answered or given up.
    pub answers: Vec<(Step, Answer)>,
    /// Deliveries that were under way when nothing was waited for any more.
    pub abandoned: u32,
    /// How long the sending took, without the pause to settle.
    pub took: Duration,
}

/// Sends a campaign and calls `progress` after each answer.
pub async fn send(
    campaign: &Campaign,
    adapter: &Source,
    poster: &Poster,
    pace: Pace,
    stop: &Stop,
    progress: impl Fn() + Sync,
) -> Sent {
    let mut sent = Sent::default();
    for (index, steps) in [&campaign.plan.first, &campaign.plan.late].into_iter().enumerate() {
        if index > 0 && !steps.is_empty() && !stop.gently.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(pace.settle) => {}
                () = stop.gently.cancelled() => {}
            }
        }
        let begun = Instant::now();
        phase(campaign, adapter, poster, pace, stop, steps, &progress, &mut sent).await;
        sent.took += begun.elapsed();
    }
    sent
}

#[expect(clippy::too_many_arguments, reason = "one caller, and no object to be made of them")]
async fn phase(
    campaign: &Campaign,
    adapter: &Source,
    poster: &Poster,
    pace: Pace,
    stop: &Stop,
    steps: &[Step],
    progress: &(impl Fn() + Sync),
    sent: &mut Sent,
) {
    let begun = tokio::time::Instant::now();
    let under_way = AtomicU32::new(0);
    let deliver = |(nth, step): (u64, Step)| {
        let under_way = &under_way;
        async move {
            if let Some(rate) = pace.rate {
                tokio::select! {
                    () = sleep_until(begun + place(nth, rate)) => {}
                    () = stop.gently.cancelled() => {}
                }
            }
            if stop.gently.is_cancelled() {
                return None;
            }
            under_way.fetch_add(1, Ordering::Relaxed);
            let webhook = campaign.webhook(step);
            let dress = || {
                let dress = if step.part == Part::Forged { forged_headers } else { headers };
                dress(adapter, &campaign.tenant, &webhook, OffsetDateTime::now_utc())
            };
            let answer = poster.post(dress, &webhook.body, &stop.gently).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
            progress();
            Some((step, answer))
        }
    };
    let mut answers = stream::iter((0..).zip(steps.iter().copied()))
        .map(deliver)
        .buffer_unordered(pace.concurrency.max(1));
    loop {
        tokio::select! {
            next = answers.next() => match next {
                Some(answer) => sent.answers.extend(answer),
                None => break,
            },
            () = stop.now.cancelled() => {
                sent.abandoned += under_way.load(Ordering::Relaxed);
                break;
            }
        }
    }
}

/// When the nth request is due, from the first one on.
fn place(nth: u64, rate: NonZeroU32) -> Duration {
    let rate = u64::from(rate.get());
    Duration::from_secs(nth / rate) + Duration::from_secs(1) * low(nth % rate) / low(rate)
}

/// A number that is known to be less than 2^32.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
