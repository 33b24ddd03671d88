//! `tallyhook send`: signs and posts webhooks of a configured source.

use std::{io::Write as _, num::NonZeroU32, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use time::OffsetDateTime;

use super::receiver_url;
use crate::{
    config::Config,
    domain::SourceName,
    sources::Source,
    tools::send::{
        Pace, Stop,
        campaign::{Campaign, Choice},
        generate::Run,
        plan::{Counts, Share},
        post::Poster,
        report::{Report, Verdict},
        send,
    },
};

/// The most deliveries of a run: its events are numbered in 20 bits.
const MOST: i64 = 1_000_000;

/// Signs and posts webhooks of a configured source, from files or generated.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = "\
Generated webhooks have the size and shape of the real ones and invented data; every order and
invoice is new, unless --run names an earlier run. The summary says what was answered and what the
books must show for it.

Exit codes: 0 every delivery got the answer it should have (2xx, or 401 if forged), 3 some did not,
1 none did, 2 usage. Ctrl-C ends the sending, a second one the waiting for answers.")]
pub(super) struct SendArgs {
    /// The configured source to send as
    source: SourceName,

    /// The receiver's base address [default: receiver.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,

    /// Send this topic only; needed beside --file where a header tells the topic
    #[arg(long)]
    topic: Option<String>,

    /// The shop or company that sends [default: the source's first tenant, else a demo one]
    #[arg(long)]
    tenant: Option<String>,

    /// Send this file's bytes as they are; may be repeated
    ///
    /// A file is one event: with --count N each is sent N times, once as new
    /// and the rest as duplicates.
    #[arg(long, value_name = "PATH",
        conflicts_with_all = ["duplicates", "out_of_order", "poison", "forged", "seed", "run"])]
    file: Vec<PathBuf>,

    /// The file's event id [default: from a digest of topic and bytes]
    ///
    /// With the default, the same file sent again is a duplicate. Of no
    /// effect where the body itself tells the id.
    #[arg(long, value_name = "ID", requires = "file")]
    event_id: Option<String>,

    /// How many webhooks to send; of a file, how many times
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=MOST))]
    count: u32,

    /// The most new requests in a second [default: as fast as answers come]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,

    /// The most requests under way at once
    #[arg(long, value_name = "N", default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// The share of --count that repeats an earlier event, byte for byte (0.1 or 10%)
    ///
    /// Every other one is sent right behind the first, so that both are under
    /// way at once.
    #[arg(long, value_name = "SHARE", default_value = "0")]
    duplicates: Share,

    /// The share of --count that tells an older version after the newer one
    #[arg(long, value_name = "SHARE", default_value = "0")]
    out_of_order: Share,

    /// The share of --count that is authentic and cannot be applied
    #[arg(long, value_name = "SHARE", default_value = "0")]
    poison: Share,

    /// How many webhooks with a wrong signature to send besides
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=MOST / 10))]
    forged: u32,

    /// The pause before the late ones, in seconds, for the newer versions to reach the books
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = seconds)]
    settle: Duration,

    /// Send again on 429, 503 or no answer: up to 8 times, when Retry-After says
    #[arg(long)]
    retry: bool,

    /// What customers, articles and amounts are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Names the run; the same run and seed again sends the same events again
    /// [default: from the time and chance]
    #[arg(long, value_name = "ID", value_parser = run_id)]
    run: Option<String>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Sends what the arguments ask for and prints the summary.
///
/// # Errors
/// What the arguments ask for cannot be sent.
pub(super) async fn run(args: SendArgs, config: Config) -> anyhow::Result<ExitCode> {
    let Some(adapter) = config.sources.get(&args.source) else {
        let known: Vec<_> = config.sources.keys().map(SourceName::as_str).collect();
        bail!("no source {} is configured, only {}", args.source, known.join(", "));
    };
    let base = receiver_url::base_url(args.url.as_ref(), config.receiver.listen)?;
    let url = receiver_url::append_path(&base, &["hooks", args.source.as_str()]);
    let campaign = campaign(&args, adapter).await?;
    let concurrency = usize::from(args.concurrency);
    let poster =
        Poster::new(url, concurrency, args.retry).context("the HTTP client cannot be set up")?;
    let pace = Pace { concurrency, rate: args.rate, settle: args.settle };

    let bar = progress_bar(&campaign, args.json);
    let stop = Stop::default();
    let listener = tokio::spawn(interrupt(stop.clone()));
    let sent = send(&campaign, adapter, &poster, pace, &stop, || bar.inc(1)).await;
    listener.abort();
    bar.finish_and_clear();

    let report = Report::new(&campaign, &poster, &sent, campaign.story(adapter));
    let text = if args.json { serde_json::to_string(&report)? } else { report.table() };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::from(match report.verdict() {
        Verdict::All => 0,
        Verdict::Some => 3,
        Verdict::None => 1,
    }))
}

async fn campaign(args: &SendArgs, adapter: &Source) -> anyhow::Result<Campaign> {
    let choice = Choice { topic: args.topic.clone(), tenant: args.tenant.clone() };
    let now = OffsetDateTime::now_utc();
    if args.file.is_empty() {
        let SendArgs { count, duplicates, out_of_order, poison, forged, .. } = *args;
        let counts = Counts::split(count, duplicates, out_of_order, poison, forged)?;
        let id = args.run.clone().unwrap_or_else(|| Run::new_id(now, rand::random()));
        let run = Run { id, seed: args.seed };
        return Ok(Campaign::generated(adapter, &args.source, &choice, &run, counts)?);
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
    Ok(Campaign::files(adapter, &args.source, choice, files, args.count, now)?)
}

/// The first Ctrl-C ends the sending, the second the waiting.
async fn interrupt(stop: Stop) {
    for token in [&stop.gently, &stop.now] {
        if tokio::signal::ctrl_c().await.is_err() {
            return;
        }
        token.cancel();
    }
}

fn progress_bar(campaign: &Campaign, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    // Shown on stderr, and only if that is a terminal.
    let bar = ProgressBar::new(campaign.plan.counts.deliveries().into());
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
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 64 characters of a-z, A-Z, 0-9, '-', '_' and '.'".to_owned())
    }
}
