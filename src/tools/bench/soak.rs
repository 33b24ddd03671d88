//! `soak`: a constant load for a long time, which shows whether answers,
//! commits, memory and tables stay as they were, or grow.
//!
//! `tallyhook serve`, receiver and worker, is a process of its own, as in
//! [`super::memory`]. All payloads come in turns: new documents, updates of
//! the same few again and again, repeats, states that are late, and a little
//! that cannot be applied ([`story`]). The load generator makes each body when
//! it is about to be due and forgets it, so that it stays as small as it was.
//!
//! | Module | About |
//! |---|---|
//! | [`story`], [`sender`] | what is sent, and how |
//! | [`check_writable`], [`sample`] | what is noted, once in an interval |
//! | [`flatness`], [`account`] | what is made of it in the end |
//! | [`rows`], [`picture`] | how it is shown |

pub mod account;
pub mod flatness;
pub mod picture;
pub mod probe;
pub mod rows;
pub mod sample;
pub mod sender;
pub mod story;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};

use super::{
    Settings, measure::Percentiles, process::Process, progress::Progress, schedule::Schedule,
    stage::Stage,
};
use crate::{app::Roles, broker::BrokerConnection};
use account::Accounts;
use flatness::Trend;
use sample::{Interval, Sample, Sampler};
use sender::{Answered, Sender};
use story::Story;

/// How many samples there are, of a soak that is long enough.
const SAMPLES: u32 = 60;
/// The shortest interval: the server's own counts are no finer.
const SHORTEST: Duration = Duration::from_secs(1);

/// A soak and what came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Soak {
    /// How many messages were due a second.
    pub rate: u32,
    /// For how long, in seconds.
    pub seconds: f64,
    /// From one sample to the next, in seconds.
    pub interval_seconds: f64,
    /// Whether every figure is flat, everything was accepted and everything
    /// is accounted for.
    pub steady: bool,
    /// The last third against the first, by figure.
    pub flatness: BTreeMap<String, Trend>,
    /// What became of every message.
    pub accounts: Accounts,
    /// Each interval.
    pub samples: Vec<Sample>,
}

/// From one sample to the next.
pub fn interval(length: Duration) -> Duration {
    (length / SAMPLES).max(SHORTEST)
}

/// How many samples a soak of this length takes.
pub fn samples(length: Duration) -> usize {
    let interval = interval(length).as_nanos();
    // What is left over in the end belongs to the interval before it.
    let count = (length.as_nanos() + interval / 2) / interval;
    usize::try_from(count).unwrap_or(usize::MAX).max(1)
}

/// Runs the scenario.
///
/// # Errors
/// A server fails, `serve` ends, or an answer is one that no load explains.
/// What is not accounted for is no error here: [`Accounts::complete`] tells.
pub async fn run(stage: &Stage, settings: &Settings, progress: &Progress) -> anyhow::Result<Soak> {
    progress.step("soak, beginning");
    stage.clear().await?;
    let serving = Process::start(stage, &settings.program, Roles::ALL).await?;
    serving.ready().await?;
    let link = BrokerConnection::open(&stage.config.broker.url, "tallyhook bench").await?;
    let (samples, accounts) = soaked(stage, settings, &serving, &link, progress).await?;
    link.close().await;
    serving.stop().await?;
    stage.clear().await?;
    let flatness = flatness::judge(&samples);
    Ok(Soak {
        rate: settings.rate.get(),
        seconds: settings.soak.as_secs_f64(),
        interval_seconds: interval(settings.soak).as_secs_f64(),
        steady: accounts.complete
            && accounts.refused == 0
            && flatness.len() == flatness::FIGURES
            && flatness.values().all(|trend| trend.flat),
        flatness,
        accounts,
        samples,
    })
}

async fn soaked(
    stage: &Stage,
    settings: &Settings,
    serving: &Process,
    link: &BrokerConnection,
    progress: &Progress,
) -> anyhow::Result<(Vec<Sample>, Accounts)> {
    let total = Settings::arrivals_in(settings.rate, settings.soak);
    let story = Story::new(stage, total)?;
    let (answers, mut answered) = mpsc::unbounded_channel();
    let (probes, asked) = mpsc::unbounded_channel();
    let (found, mut committed) = mpsc::unbounded_channel();
    let mut sampler = Sampler::new(stage, serving, link).await?;
    let begun = sampler.begun;
    let sending = sender::run(Sender {
        address: serving.receiver.context("serve takes no webhooks")?,
        connections: connections(settings.connections, settings.rate),
        schedule: Schedule { begun, rate: settings.rate, total },
        story,
        stride: story::stride(settings.rate, probe::A_SECOND),
        answers,
        probes,
    });
    let mut probing = JoinSet::new();
    probing.spawn(probe::run(stage.store.clone(), asked, found));

    let mut times = Times::of(begun, settings.soak);
    let mut kept = Kept { progress, length: settings.soak, samples: Vec::new() };
    let mut now = Interval::default();
    tokio::pin!(sending);
    loop {
        tokio::select! {
            Some(answer) = answered.recv() => now.answered(answer),
            Some(took) = committed.recv() => now.committed.push(took),
            done = &mut sending => {
                done?;
                break;
            }
            Some(ended) = probing.join_next() => {
                ended.context("the probes' task ended")??;
                bail!("the probes ended by themselves");
            }
            // The last sample is taken when the last answer is there.
            () = sleep_until(times.next.into()), if !times.is_last() => {
                kept.keep(sampler.take(std::mem::take(&mut now)).await?);
                times.advance(Instant::now());
            }
        }
    }
    // Nobody sends any more; what was probed last is still looked for.
    while let Some(done) = probing.join_next().await {
        done.context("the probes' task ended")??;
    }
    while let Ok(answer) = answered.try_recv() {
        now.answered(answer);
    }
    while let Ok(took) = committed.try_recv() {
        now.committed.push(took);
    }
    kept.keep(sampler.take(now).await?);
    let sum = |of: fn(&Sample) -> usize| kept.samples.iter().map(of).sum::<usize>();
    let (accepted, refused) = (sum(|sample| sample.accepted), sum(|sample| sample.refused));
    progress.step("soak, is everything accounted for?");
    let accounts = account::settle(stage, link, accepted, refused).await?;
    Ok((kept.samples, accounts))
}

/// No more than each has its turn about once a second: a receiver closes what
/// says nothing for long.
fn connections(asked: usize, rate: NonZeroU32) -> usize {
    asked.min(usize::try_from(rate.get()).unwrap_or(usize::MAX))
}

/// When samples are due.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// The next one.
    next: Instant,
    every: Duration,
    end: Instant,
}

impl Times {
    fn of(begun: Instant, length: Duration) -> Self {
        let every = interval(length);
        Self { next: begun + every, every, end: begun + length }
    }

    /// Whether what is left is one interval: what is over belongs to it.
    fn is_last(&self) -> bool {
        self.next + self.every / 2 > self.end
    }

    /// On to the next one that leaves at least half an interval from now: one
    /// that took long makes no short one after it.
    fn advance(&mut self, now: Instant) {
        self.next += self.every;
        while self.next < now + self.every / 2 {
            self.next += self.every;
        }
    }
}

/// Samples, told as they come.
struct Kept<'a> {
    progress: &'a Progress,
    length: Duration,
    samples: Vec<Sample>,
}

impl Kept<'_> {
    fn keep(&mut self, sample: Sample) {
        let told = |times: Option<Percentiles>| {
            times.map_or_else(
                || "none".to_owned(),
                |times| format!("p50 {:.1} ms, p99 {:.1} ms", times.p50_ms, times.p99_ms),
            )
        };
        self.progress.step(&format!(
            "soak, {:.1} of {:.1} min: answers {}; commits {}; {:.0} MiB; {} queued",
            sample.at_seconds / 60.0,
            self.length.as_secs_f64() / 60.0,
            told(sample.answered),
            told(sample.committed),
            sample.resident_mib,
            sample.queued,
        ));
        self.samples.push(sample);
    }
}

impl Interval {
    fn answered(&mut self, answer: Answered) {
        match answer {
            Answered::Accepted(took) => self.answered.push(took),
            Answered::Refused => self.refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_samples_and_none_of_less_than_a_second() {
        for (millis, every, count) in [
            (1_800_000, 30_000, 60),
            (60_000, 1_000, 60),
            (5_000, 1_000, 5),
            (5_700, 1_000, 6),
            (5_300, 1_000, 5),
            (200, 1_000, 1),
            (3_600_000, 60_000, 60),
        ] {
            let length = Duration::from_millis(millis);
            assert_eq!(interval(length), Duration::from_millis(every), "{millis}");
            assert_eq!(samples(length), count, "{millis}");
        }
        // What does not divide evenly has as many.
        assert_eq!(samples(Duration::from_secs(100)), 60);
    }

    #[test]
    fn samples_are_due_at_even_times_and_never_soon_after_each_other() {
        let begun = Instant::now();
        for millis in [200, 5_000, 5_300, 5_700, 100_000, 1_800_000] {
            let length = Duration::from_millis(millis);
            let (mut times, mut count) = (Times::of(begun, length), 1);
            while !times.is_last() {
                times.advance(times.next);
                count += 1;
            }
            assert_eq!(count, samples(length), "{millis}");
        }
        let mut times = Times::of(begun, Duration::from_secs(10));
        let after = |millis| begun + Duration::from_millis(millis);
        for (now, next) in [(1_020, 2_000), (3_400, 4_000), (5_600, 7_000), (7_000, 8_000)] {
            times.advance(after(now));
            assert_eq!(times.next, after(next), "at {now}");
        }
        assert!(!times.is_last());
        times.advance(after(9_400));
        assert!(times.is_last());
    }

    #[test]
    fn few_messages_take_few_connections() {
        for (asked, rate, expected) in [(64, 500, 64), (64, 5, 5), (1, 5, 1)] {
            assert_eq!(connections(asked, NonZeroU32::new(rate).unwrap()), expected);
        }
    }
}
