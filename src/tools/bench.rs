//! `tallyhook bench`: measures throughput, latency and memory on the given servers.
//!
//! A run creates its own database and queue prefix and deletes both at the
//! end, also after an error or Ctrl-C. After `kill -9` a database
//! `tallyhook_bench_...` and queues `tallyhook-bench-...` remain.
//!
//! | Module | Content |
//! |---|---|
//! | `receive`, `drain`, `workers`, `end_to_end`, `dedupe`, `memory`, `limits`, `soak` | one scenario each |
//! | `baseline` | what the product is compared with |
//! | `environment` | the database and the queues of a run |
//! | `process` | `tallyhook serve` as a child process |
//! | `payload`, `backlog`, `load`, `schedule`, `commit_probe` | what is sent, when, and when it is committed |
//! | `measure`, `machine` | figures |
//! | `report`, `readme` | output |
//!
//! Everything that is compared runs alternately within one run, with the same
//! load generator on the same servers. Reported figures are medians over the
//! runs. Absolute figures depend on the machine; compare the ratios.

#![expect(clippy::float_arithmetic, reason = "rates and percentiles, not money")]

pub(crate) mod backlog;
mod baseline;
mod commit_probe;
mod dedupe;
mod drain;
mod end_to_end;
mod environment;
mod limits;
mod load;
mod machine;
mod measure;
mod memory;
mod payload;
mod process;
pub(crate) mod readme;
mod receive;
pub(crate) mod report;
mod schedule;
mod soak;
mod workers;

use std::{collections::BTreeSet, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Map;

use crate::{app::stop_signal, config::Config};
use backlog::Mix;
use environment::BenchEnvironment;
use machine::Machine;
use report::{Report, RunSettings};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// Webhooks over HTTP, confirmed before the response.
    Receive,
    /// A backlog, applied by one worker process.
    Drain,
    /// A backlog, applied by several worker processes.
    Workers,
    /// A constant arrival rate, from due to committed.
    EndToEnd,
    /// Claims in a full inbox.
    DedupeAtScale,
    /// Resident memory of `tallyhook serve`.
    Memory,
    /// The limits of the servers themselves.
    Baseline,
    /// A constant load for a long time.
    Soak,
}

impl Scenario {
    /// The default scenarios: all but the soak.
    pub(crate) fn defaults() -> impl Iterator<Item = Self> {
        let all = <Self as clap::ValueEnum>::value_variants().iter().copied();
        all.filter(|scenario| *scenario != Self::Soak)
    }

    /// The key of its figures in JSON.
    const fn key(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Drain => "drain",
            Self::Workers => "workers",
            Self::EndToEnd => "end_to_end",
            Self::DedupeAtScale => "dedupe_at_scale",
            Self::Memory => "memory",
            Self::Baseline => "baseline",
            Self::Soak => "soak",
        }
    }
}

/// What to measure, and how thoroughly.
#[derive(Clone, Debug)]
pub(crate) struct BenchOptions {
    pub(crate) scenarios: BTreeSet<Scenario>,
    /// Runs of each scenario; 1 or more.
    pub(crate) runs: u32,
    /// HTTP connections; 1 or more.
    pub(crate) connections: usize,
    /// Length of each load.
    pub(crate) load_duration: Duration,
    /// Messages in a backlog, limited by memory.
    pub(crate) messages: u32,
    pub(crate) mix: Mix,
    /// Arrivals a second in `end-to-end` and `soak`.
    pub(crate) rate: NonZeroU32,
    pub(crate) soak_duration: Duration,
    /// Keys in the full inbox.
    pub(crate) keys: u64,
    /// The binary to start as `serve`.
    pub(crate) program: PathBuf,
}

/// Runs the scenarios, and deletes what they created, whatever happens.
pub(crate) async fn run(options: &BenchOptions, config: &Config) -> anyhow::Result<Report> {
    let mut environment = BenchEnvironment::new(config).await?;
    let measured = tokio::select! {
        report = run_scenarios(options, &mut environment) => report,
        signal = stop_signal() => signal.and_then(|()| bail!("stopped; nothing is left behind")),
    };
    let deleted = environment.delete().await.context("the bench could not clean up after itself");
    let report = measured?;
    deleted?;
    Ok(report)
}

async fn run_scenarios(
    options: &BenchOptions,
    environment: &mut BenchEnvironment,
) -> anyhow::Result<Report> {
    environment.create().await?;
    // A soak is always a single run.
    let only_soak = options.scenarios.iter().all(|scenario| *scenario == Scenario::Soak);
    let mut report = Report {
        machine: Machine::inspect(environment).await?,
        settings: RunSettings {
            runs: if only_soak { 1 } else { options.runs },
            connections: options.connections,
            messages: options.messages,
            seconds: options.load_duration.as_secs_f64(),
        },
        figures: Map::new(),
        rows: Vec::new(),
    };
    for scenario in &options.scenarios {
        let measured = match scenario {
            Scenario::Receive => receive::run(environment, options).await?,
            Scenario::Drain => drain::run(environment, options).await?,
            Scenario::Workers => workers::run(environment, options).await?,
            Scenario::EndToEnd => end_to_end::run(environment, options).await?,
            Scenario::DedupeAtScale => dedupe::run(environment, options).await?,
            Scenario::Memory => memory::run(environment, options).await?,
            Scenario::Baseline => limits::run(environment, options).await?,
            Scenario::Soak => soak::run(environment, options).await?,
        };
        report.figures.insert(scenario.key().to_owned(), measured.figures);
        report.rows.extend(measured.rows);
    }
    Ok(report)
}
