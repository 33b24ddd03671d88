//! `tallyhook send`: signs and posts webhooks of a configured source.

use std::{io::Write as _, num::NonZeroU32, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use time::OffsetDateTime;

use super::receiver_url;
use crate::{
    app::Components,
    config::Config,
    domain::SourceName,
    sources::Source,
    tools::send::{
        SendOptions, StopSignals,
        generate::Run,
        plan::{Counts, Share},
        post::Poster,
        report::{SendOutcome, SendReport},
        scenario::{Selection, SendScenario},
        send,
    },
};

/// The maximum number of webhooks: events are numbered with 20 bits.
const MAX_WEBHOOKS: i64 = 1_000_000;

/// Sign and post webhooks of a configured source, generated or from files.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = "\
Generated webhooks have realistic size and format and invented data. Every order and invoice is
new, unless --run repeats an earlier run. The summary has the responses and the outcomes that must
be on record.

Exit codes: 0 every webhook got the expected status (2xx, or 401 if forged), 3 some did not, 1 none
did, 2 usage. The first Ctrl-C stops sending, the second one stops waiting for responses.")]
pub(super) struct SendArgs {
    /// The configured source to send as
    source: SourceName,

    /// The receiver's base URL [default: receiver.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,

    /// Send this topic only; required with --file if the topic is in a header
    #[arg(long)]
    topic: Option<String>,

    /// The sending shop or company [default: the source's first tenant, else a demo one]
    #[arg(long)]
    tenant: Option<String>,

    /// Send this file's bytes as they are; may be repeated
    ///
    /// A file is one event: with --count N it is sent once as new and N-1 times as a
    /// duplicate.
    #[arg(long, value_name = "PATH",
        conflicts_with_all = ["duplicates", "out_of_order", "poison", "forged", "seed", "run"])]
    file: Vec<PathBuf>,

    /// The file's event id [default: from a digest of topic and bytes]
    ///
    /// With the default, the same file sent again is a duplicate. Has no effect if
    /// the id is in the body.
    #[arg(long, value_name = "ID", requires = "file")]
    event_id: Option<String>,

    /// The number of webhooks; with --file, how often to send each file
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=MAX_WEBHOOKS))]
    count: u32,

    /// The maximum of new requests a second [default: as fast as responses come]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,

    /// The maximum of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// The share of --count that repeats an earlier event, byte for byte (0.1 or 10%)
    ///
    /// Half of them directly follow the first webhook, so that both are in flight at
    /// once.
    #[arg(long, value_name = "SHARE", default_value = "0")]
    duplicates: Share,

    /// The share of --count with an older version after the newer one
    #[arg(long, value_name = "SHARE", default_value = "0")]
    out_of_order: Share,

    /// The share of --count that is authentic and cannot be applied
    #[arg(long, value_name = "SHARE", default_value = "0")]
    poison: Share,

    /// The number of additional webhooks with an invalid signature
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=MAX_WEBHOOKS / 10))]
    forged: u32,

    /// The pause in seconds before older versions are sent
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = seconds)]
    settle: Duration,

    /// Retry up to 8 times after 429, 503 or no response, as Retry-After says
    #[arg(long)]
    retry: bool,

    /// Seed of customers, articles and amounts
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The id of the run; the same id and seed send the same events again
    /// [default: from the time and a random number]
    #[arg(long, value_name = "ID", value_parser = run_id)]
    run: Option<String>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Sends webhooks and prints the summary.
pub(super) async fn run(
    args: SendArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let Some(source) = components.sources.get(&args.source) else {
        let known: Vec<_> = components.sources.keys().map(SourceName::as_str).collect();
        bail!("source {} is not configured; known: {}", args.source, known.join(", "));
    };
    let base = receiver_url::base_url(args.url.as_ref(), config.receiver.listen)?;
    let url = receiver_url::append_path(&base, &["hooks", args.source.as_str()]);
    let scenario = scenario(&args, source).await?;
    let concurrency = usize::from(args.concurrency);
    let poster =
        Poster::new(url, concurrency, args.retry).context("the HTTP client cannot be set up")?;
    let options = SendOptions { concurrency, rate: args.rate, settle: args.settle };

    let bar = progress_bar(&scenario, args.json);
    let stop = StopSignals::default();
    let listener = tokio::spawn(interrupt(stop.clone()));
    let sent = send(&scenario, source, &poster, options, &stop, || bar.inc(1)).await;
    listener.abort();
    bar.finish_and_clear();

    let report = SendReport::new(&scenario, &poster, &sent, scenario.trace_number(source));
    let text = if args.json { serde_json::to_string(&report)? } else { report.table() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::from(match report.outcome() {
        SendOutcome::All => 0,
        SendOutcome::Some => 3,
        SendOutcome::None => 1,
    }))
}

async fn scenario(args: &SendArgs, source: &Source) -> anyhow::Result<SendScenario> {
    let selection = Selection { topic: args.topic.clone(), tenant: args.tenant.clone() };
    let now = OffsetDateTime::now_utc();
    if args.file.is_empty() {
        let SendArgs { count, duplicates, out_of_order, poison, forged, .. } = *args;
        let counts = Counts::split(count, duplicates, out_of_order, poison, forged)?;
        let id = args.run.clone().unwrap_or_else(|| Run::new_id(now, rand::random()));
        let run = Run { id, seed: args.seed };
        return Ok(SendScenario::generated(source, &args.source, &selection, &run, counts)?);
    }
    ensure!(args.count > 0, "--count 0 sends no file");
    ensure!(
        args.event_id.is_none() || args.file.len() == 1,
        "--event-id names one event: give one --file with it"
    );
    let mut files = Vec::new();
    for path in &args.file {
        let body = tokio::fs::read(path)
            .await
            .with_context(|| format!("cannot read the file {}", path.display()))?;
        files.push((Bytes::from(body), args.event_id.clone()));
    }
    Ok(SendScenario::files(source, &args.source, selection, files, args.count, now)?)
}

/// The first Ctrl-C stops sending, the second stops waiting.
async fn interrupt(stop: StopSignals) {
    for token in [&stop.stop_sending, &stop.stop_waiting] {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        token.cancel();
    }
}

fn progress_bar(scenario: &SendScenario, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    // Shown on stderr if that is a terminal.
    let bar = ProgressBar::new(scenario.plan.counts.total().into());
    let style = "{wide_bar} {pos}/{len}  {per_sec}  {eta} left";
    bar.with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|pause| *pause <= Duration::from_hours(1))
        .ok_or_else(|| "it must be 0 to 3600".to_owned())
}

fn run_id(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.'".to_owned())
    }
}
