//! `tallyhook bench`: measures throughput, latency and memory.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use super::{EXIT_DONE, EXIT_FAILED};
use crate::{
    app::stop_signal,
    config::Config,
    observability::telemetry,
    tools::{
        bench,
        bench::{BenchOptions, Scenario, backlog::Mix, readme, report::Report},
        dev::servers::Servers,
        send::plan::Share,
    },
};

/// Measure throughput, latency and memory, and the limits of the servers.
///
/// Uses its own database and queue prefix, on the configured servers or on private
/// ones, and deletes both at the end, also after Ctrl-C. It loads the servers fully:
/// do not use servers that others need.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
receive          the maximum rate of webhooks over HTTP, verified and confirmed before the response;
                 then latencies at half of that rate, from when each request was due
drain            a backlog applied by one worker process, until the last commit; compared with one
                 transaction a message, 16 at a time, and with inserting the same rows from memory
workers          a backlog applied by 1, 2 and 4 processes of `tallyhook serve --only worker`;
                 checks that every message has the expected outcome and that nothing deadlocked
end-to-end       a constant arrival rate, all payloads alternately: from when a webhook was due
                 until its rows were visible
dedupe-at-scale  claims in an inbox full of keys, compared with an empty one
memory           resident memory of `tallyhook serve` with both roles
baseline         the limits of the servers: publish and insert without the product
soak             a constant load on `tallyhook serve` for a long time: whether latencies, commits,
                 memory and tables stay stable. Only on request:
                 --only soak --minutes 30 --rate 500. Choose a rate at which end-to-end has low
                 latencies; 500 on two small cores is 900000 messages and some GB of disk in half
                 an hour. Fails if a message is not accounted for

Compared variants run alternately within each run; figures are medians over the runs. Load
generator and servers share the machine, unless the servers are remote.")]
pub(super) struct BenchArgs {
    /// Use private servers that are started for the bench
    #[arg(long)]
    private: bool,

    /// Measure these only
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO,...")]
    only: Vec<Scenario>,

    /// One short run of everything
    #[arg(long)]
    quick: bool,

    /// Runs of each [default: 3; quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,

    /// HTTP connections
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,

    /// Length of each load in seconds [default: 2; quick: 0.5]
    #[arg(long, value_name = "SECONDS", value_parser = load_duration)]
    seconds: Option<Duration>,

    /// Messages in a backlog, limited to 256 MiB [default: 20000; quick: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    messages: Option<u32>,

    /// The share of a backlog that repeats an earlier event (0.1 or 10%)
    #[arg(long, value_name = "SHARE", default_value = "0.333")]
    duplicates: Share,

    /// The share of a backlog with an older version after the newer one
    #[arg(long, value_name = "SHARE", default_value = "0")]
    stale: Share,

    /// The share of a backlog that is authentic and cannot be applied
    #[arg(long, value_name = "SHARE", default_value = "0")]
    poison: Share,

    /// Arrivals a second in end-to-end and soak
    #[arg(long, value_name = "PER_SECOND", default_value = "1000")]
    rate: NonZeroU32,

    /// Length of a soak in minutes; 0.1 is six seconds
    #[arg(long, value_name = "MINUTES", default_value = "30", value_parser = soak_duration)]
    minutes: Duration,

    /// Keys in the full inbox [default: 2000000; quick: 100000]
    ///
    /// 50000000 keys need about 6 GB and most of an hour.
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    keys: Option<u64>,

    /// Write all figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Replace the table between the markers of this Markdown file
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

impl BenchArgs {
    fn options(&self) -> anyhow::Result<BenchOptions> {
        let scenarios = match self.only.as_slice() {
            [] => Scenario::defaults().collect(),
            only => only.iter().copied().collect(),
        };
        let quick = |quick, thorough| if self.quick { quick } else { thorough };
        Ok(BenchOptions {
            scenarios,
            runs: self.runs.unwrap_or_else(|| quick(1, 3)),
            connections: usize::from(self.connections),
            load_duration: self
                .seconds
                .unwrap_or_else(|| Duration::from_millis(quick(500, 2000).into())),
            messages: self.messages.unwrap_or_else(|| quick(2_000, 20_000)),
            mix: Mix { duplicates: self.duplicates, stale: self.stale, poison: self.poison },
            rate: self.rate,
            soak_duration: self.minutes,
            keys: self.keys.unwrap_or_else(|| quick(100_000, 2_000_000).into()),
            program: std::env::current_exe().context("cannot find the running program")?,
        })
    }
}

pub(super) async fn run(arguments: &BenchArgs, mut config: Config) -> anyhow::Result<ExitCode> {
    let options = arguments.options()?;
    // A file without markers is reported before anything is measured.
    if let Some(path) = &arguments.readme {
        readme::replace_table(&read(path)?, "").with_context(|| path.display().to_string())?;
    }
    // Log lines and spans cost as much as in `serve`.
    telemetry::init_discarding(&config.log)?;
    let report = if arguments.private {
        eprintln!("starting a private PostgreSQL and a private RabbitMQ (about 10 seconds)...");
        let mut servers = tokio::select! {
            servers = Servers::start_temporary() => servers?,
            stopped = stop_signal() => {
                stopped?;
                anyhow::bail!("stopped");
            }
        };
        config.database.url = servers.postgres.url("postgres");
        config.broker.url = servers.rabbitmq.url();
        let report = bench::run(&options, &config).await;
        let stopped = servers.stop().await;
        let report = report?;
        stopped?;
        report
    } else {
        bench::run(&options, &config).await?
    };
    write_files(arguments, &report)?;
    outln!("{}", report.terminal().trim_end());
    Ok(ExitCode::from(if report.lost_messages() { EXIT_FAILED } else { EXIT_DONE }))
}

fn write_files(arguments: &BenchArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &arguments.json {
        write(path, &format!("{}\n", serde_json::to_string_pretty(report)?))?;
    }
    if let Some(path) = &arguments.readme {
        write(path, &readme::replace_table(&read(path)?, &report.markdown())?)?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn load_duration(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(100)..=Duration::from_hours(1);
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|length| limits.contains(length))
        .ok_or_else(|| "it must be 0.1 to 3600".to_owned())
}

fn soak_duration(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_secs(3)..=Duration::from_hours(7 * 24);
    text.parse()
        .ok()
        .and_then(|minutes| Duration::try_from_secs_f64(minutes).ok()?.checked_mul(60))
        .filter(|length| limits.contains(length))
        .ok_or_else(|| "it must be 0.05 to 10080".to_owned())
}
