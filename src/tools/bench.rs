//! `tallyhook bench`: what this will do on your machines.
//!
//! It runs against the servers it is given, in a database and a queue prefix
//! of its own, and takes both away when it ends, also after an error or
//! Ctrl-C. After `kill -9` a database `tallyhook_bench_...` and queues
//! `tallyhook-bench-...` are left.
//!
//! | Module | About |
//! |---|---|
//! | [`receive_webhook`], [`drain`], [`workers`], [`end_to_end`], [`dedupe`], [`memory`], [`call_limits`] | one scenario each |
//! | [`soak`] | the one that takes its time |
//! | [`baseline`] | what the product is measured against |
//! | [`stage`] | what is made on the servers, and taken away |
//! | [`process`] | a `tallyhook serve` of our own |
//! | [`payload`], [`max_queue_age`], [`load`], [`retry_schedule`] | what is sent, and when |
//! | [`measure`], [`machine`], [`report`] | figures |
//! | [`table`], [`plot`], [`readme`], [`progress`] | how they are shown |
//!
//! Whatever is compared is measured in one run, in turns, with the same load
//! generator on the same servers; what is told is the median over the runs.
//! Absolute figures are of the machine and of whatever else it does; ratios
//! are of the program.

#![expect(clippy::float_arithmetic, reason = "rates and percentiles for people, not money")]

pub mod backlog;
pub mod baseline;
pub mod dedupe;
pub mod drain;
pub mod end_to_end;
pub mod limits;
pub mod load;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod payload;
pub mod plot;
pub mod process;
pub mod progress;
pub mod readme;
pub mod receive;
pub mod report;
pub mod schedule;
pub mod soak;
pub mod stage;
pub mod table;
pub mod workers;

use std::{collections::BTreeSet, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use crate::{app::stop_signal, config::Config, store::inbox::partitions::PARTITIONS_PER_WINDOW};
use backlog::Mix;
use machine::Machine;
use payload::Payload;
use progress::Progress;
use report::{How, Report};
use stage::Stage;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// Webhooks over HTTP, confirmed before they are answered.
    Receive,
    /// A backlog, applied to the books.
    Drain,
    /// A backlog, by several worker processes.
    Workers,
    /// A constant rate of arrivals, from due to committed.
    EndToEnd,
    /// Claims in an inbox that is full.
    DedupeAtScale,
    /// Resident memory of `tallyhook serve`.
    Memory,
    /// The raw limits of these servers.
    Baseline,
    /// A constant load for a long time.
    Soak,
}

impl Scenario {
    /// Those that are measured if nobody asks for others.
    pub fn usual() -> impl Iterator<Item = Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|scenario| *scenario != Self::Soak)
    }
}

/// What is to be measured, and how thoroughly.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which scenarios.
    pub scenarios: BTreeSet<Scenario>,
    /// Runs of each; 1 or more.
    pub runs: u32,
    /// HTTP connections; 1 or more.
    pub connections: usize,
    /// How long each load lasts.
    pub length: Duration,
    /// Messages in a backlog, as far as their bodies fit into memory.
    pub messages: u32,
    /// What a backlog is made of.
    pub mix: Mix,
    /// Arrivals a second, end to end and in a soak.
    pub rate: NonZeroU32,
    /// How long a soak lasts.
    pub soak: Duration,
    /// Keys in the full inbox.
    pub keys: u64,
    /// The binary to start as `serve`.
    pub program: PathBuf,
}

impl Settings {
    /// How many arrivals there are at this rate, in a load's time.
    fn arrivals(&self, rate: NonZeroU32) -> usize {
        Self::arrivals_in(rate, self.length)
    }

    /// How many arrivals there are at this rate in so much time.
    fn arrivals_in(rate: NonZeroU32, length: Duration) -> usize {
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let count = millis.saturating_mul(u64::from(rate.get())) / 1000;
        usize::try_from(count).unwrap_or(usize::MAX).max(1)
    }

    /// Keys that are repeated in a run of claims: enough for the messages of
    /// a backlog.
    fn claims(&self) -> u32 {
        (self.messages / 3).max(1)
    }

    /// Different bodies of 28 kB for a load at full speed: beyond these they
    /// come again, as duplicates.
    fn distinct_bodies(&self) -> u32 {
        backlog::affordable(self.messages, Payload::Shopify)
    }

    /// About how many steps there are to be told.
    fn steps(&self) -> u64 {
        let runs = u64::from(self.runs);
        let of = |scenario: &Scenario| match scenario {
            Scenario::Receive | Scenario::Drain => 4 * runs,
            Scenario::Workers => 3 * runs,
            Scenario::EndToEnd | Scenario::Baseline => runs,
            Scenario::DedupeAtScale => {
                self.keys.div_ceil(1_000_000) + u64::from(PARTITIONS_PER_WINDOW) + runs
            }
            Scenario::Memory => 1,
            Scenario::Soak => u64::try_from(soak::samples(self.soak)).unwrap_or(u64::MAX) + 2,
        };
        self.scenarios.iter().map(of).sum()
    }
}

/// Measures, and takes away what it made, whatever happens.
///
/// # Errors
/// A server that is missing or fails; Ctrl-C; something that was left behind.
pub async fn run(settings: &Settings, config: &Config) -> anyhow::Result<Report> {
    let mut stage = Stage::plan(config).await?;
    let measured = tokio::select! {
        report = scenarios(settings, &mut stage) => report,
        signal = stop_signal() => signal.and_then(|()| bail!("stopped; nothing is left behind")),
    };
    let struck = stage.strike().await.context("the bench could not clean up after itself");
    let report = measured?;
    struck?;
    Ok(report)
}

async fn scenarios(settings: &Settings, stage: &mut Stage) -> anyhow::Result<Report> {
    stage.set().await?;
    let mut report = Report {
        machine: Machine::look(stage).await?,
        settings: How {
            // A soak is one run, however many there are of others.
            runs: if settings.scenarios.iter().all(|one| *one == Scenario::Soak) {
                1
            } else {
                settings.runs
            },
            connections: settings.connections,
            messages: settings.messages,
            seconds: settings.length.as_secs_f64(),
        },
        ..Report::default()
    };
    let progress = Progress::new(settings.steps());
    for scenario in &settings.scenarios {
        match scenario {
            Scenario::Receive => {
                report.receive = Some(receive::run(stage, settings, &progress).await?);
            }
            Scenario::Drain => report.drain = Some(drain::run(stage, settings, &progress).await?),
            Scenario::Workers => {
                report.workers = Some(workers::run(stage, settings, &progress).await?);
            }
            Scenario::EndToEnd => {
                report.end_to_end = Some(end_to_end::run(stage, settings, &progress).await?);
            }
            Scenario::DedupeAtScale => {
                report.dedupe_at_scale = Some(dedupe::run(stage, settings, &progress).await?);
            }
            Scenario::Memory => {
                report.memory = Some(memory::run(stage, settings, &progress).await?);
            }
            Scenario::Baseline => {
                report.baseline = Some(limits::run(stage, settings, &progress).await?);
            }
            Scenario::Soak => report.soak = Some(soak::run(stage, settings, &progress).await?),
        }
    }
    Ok(report)
}
