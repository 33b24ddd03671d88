//! `tallyhook bench`: what this will do on your machines.

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
        bench::{Scenario, Settings, backlog::Mix, plot, readme, report::Report, table},
        dev::servers::Servers,
        send::plan::Share,
    },
};

/// Measures what this will do on your machines, beside their raw limits.
///
/// Everything happens in a database and under a queue prefix of its own, on
/// the servers of the configuration or on private ones, and is taken away in
/// the end, also after Ctrl-C. It takes all that the servers can give: do not
/// point it at servers that others need.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "\
receive          the most webhooks a second over HTTP, verified and confirmed before the answer;
                 then answer times at half of that, from when each request was due
drain            a backlog applied to the books, until the last commit; against one transaction a
                 message, 16 at once, and against the same rows inserted from memory
workers          a backlog applied by 1, 2 and 4 processes of `tallyhook serve --only worker` on
                 one queue, from when all of them are ready until the last commit; that every
                 message has the outcome it must have, and that nothing deadlocked, is proven
end-to-end       a constant rate of arrivals, all payloads in turns: from when a webhook was due
                 until its transaction's commit came back to the worker
dedupe-at-scale  claims in an inbox that is full of keys, against an empty one
memory           what `tallyhook serve`, receiver and worker, keeps resident
baseline         the raw limits: publish, consume, insert
soak             a constant load for a long time, against `tallyhook serve`: whether answers,
                 commits, memory, tables and their indexes stay as they were. Only if it is asked
                 for: --only soak --minutes 30 --rate 500. A fair rate is one at which end-to-end is
                 at ease: 500 on two small cores, which is 900000 messages and some GB of disk
                 in half an hour. It fails if a message is not accounted for

Comparisons are made in turns within each run; figures are medians over the runs. Load generator
and servers share the machine, except with servers elsewhere.")]
pub(super) struct BenchArgs {
    /// On private servers, started for this and gone afterwards
    #[arg(long)]
    private: bool,

    /// Measure these only
    #[arg(long, value_enum, value_delimiter = ',', value_name = "SCENARIO,...")]
    only: Vec<Scenario>,

    /// A rough look, in less than a minute: one run of everything
    #[arg(long)]
    quick: bool,

    /// Runs of each [default: 3; quick: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,

    /// HTTP connections
    #[arg(long, value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,

    /// How long each load lasts, in seconds [default: 2; quick: 0.5]
    #[arg(long, value_name = "SECONDS", value_parser = length)]
    seconds: Option<Duration>,

    /// Messages in a backlog, as far as 256 MiB hold them [default: 20000; quick: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    messages: Option<u32>,

    /// The share of a backlog that repeats an earlier event (0.1 or 10%)
    #[arg(long, value_name = "SHARE", default_value = "0.333")]
    duplicates: Share,

    /// The share of a backlog that tells an older version after the newer one
    #[arg(long, value_name = "SHARE", default_value = "0")]
    stale: Share,

    /// The share of a backlog that is authentic and cannot be applied
    #[arg(long, value_name = "SHARE", default_value = "0")]
    poison: Share,

    /// Arrivals a second, end to end and in a soak
    #[arg(long, value_name = "PER_SECOND", default_value = "1000")]
    rate: NonZeroU32,

    /// How long a soak lasts, in minutes
    ///
    /// 0.1 is six seconds.
    #[arg(long, value_name = "MINUTES", default_value = "30", value_parser = minutes)]
    minutes: Duration,

    /// Keys in the full inbox [default: 2000000; quick: 100000]
    ///
    /// 50000000 take some 6 GB and the better part of an hour.
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    keys: Option<u64>,

    /// Write everything here as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw throughput and latency here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Put the table between the marks of this Markdown file
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

impl BenchArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        let scenarios = match self.only.as_slice() {
            [] => Scenario::usual().collect(),
            only => only.iter().copied().collect(),
        };
        let quick = |quick, thorough| if self.quick { quick } else { thorough };
        Ok(Settings {
            scenarios,
            runs: self.runs.unwrap_or_else(|| quick(1, 3)),
            connections: usize::from(self.connections),
            length: self.seconds.unwrap_or_else(|| Duration::from_millis(quick(500, 2000).into())),
            messages: self.messages.unwrap_or_else(|| quick(2_000, 20_000)),
            mix: Mix { duplicates: self.duplicates, stale: self.stale, poison: self.poison },
            rate: self.rate,
            soak: self.minutes,
            keys: self.keys.unwrap_or_else(|| quick(100_000, 2_000_000).into()),
            program: std::env::current_exe().context("cannot find the running program")?,
        })
    }
}

pub(super) async fn run(arguments: &BenchArgs, mut config: Config) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings()?;
    // Nothing is measured whose table could not be kept.
    if let Some(path) = &arguments.readme {
        readme::refreshed(&read(path)?, "").with_context(|| path.display().to_string())?;
    }
    // Spans and lines cost what they cost in `serve`.
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
        let report = bench::run(&settings, &config).await;
        let stopped = servers.stop().await;
        let report = report?;
        stopped?;
        report
    } else {
        bench::run(&settings, &config).await?
    };
    keep(arguments, &report)?;
    outln!("{}", table::terminal(&report).trim_end());
    let lost = report.soak.as_ref().is_some_and(|soak| !soak.accounts.complete);
    Ok(ExitCode::from(if lost { EXIT_FAILED } else { EXIT_DONE }))
}

fn keep(arguments: &BenchArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &arguments.json {
        write(path, &format!("{}\n", serde_json::to_string_pretty(report)?))?;
    }
    if let Some(path) = &arguments.svg {
        write(path, &plot::svg(report)?)?;
    }
    if let Some(path) = &arguments.readme {
        write(path, &readme::refreshed(&read(path)?, &table::markdown(report))?)?;
    }
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn length(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_millis(100)..=Duration::from_hours(1);
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|length| limits.contains(length))
        .ok_or_else(|| "it must be 0.1 to 3600".to_owned())
}

/// Three seconds make the least that can be compared; a week is long enough.
fn minutes(text: &str) -> Result<Duration, String> {
    let limits = Duration::from_secs(3)..=Duration::from_hours(7 * 24);
    text.parse()
        .ok()
        .and_then(|minutes| Duration::try_from_secs_f64(minutes).ok()?.checked_mul(60))
        .filter(|length| limits.contains(length))
        .ok_or_else(|| "it must be 0.05 to 10080".to_owned())
}
