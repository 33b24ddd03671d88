//! `tallyhook dead`: what waits for a person.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{DONE, FAILED, PARTLY, show};
use crate::{
    adapter::fields::parse_moment,
    broker::{Link, Publisher, Topology},
    config::Config,
    domain::Reason,
    metrics::Metrics,
    review::{self, Replay},
    service,
    store::{
        Store,
        dead_letters::{Actor, Filter, Summary},
    },
    worker::archive,
};

/// How long a connection to the broker may take to come.
const CONNECT: Duration = Duration::from_secs(15);
/// A dead-letter queue that gives nothing for this long is empty.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    act: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, the longest waiting first.
    List {
        #[command(flatten)]
        which: Which,
        /// Dead for this reason.
        #[arg(long, value_name = "CODE", value_parser = reason)]
        reason: Option<String>,
        /// Show at most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter with its payload and history.
    Show {
        /// Its id.
        id: Uuid,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters in again, with the keys they had.
    Replay {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        act: Act,
    },
    /// Close dead letters for good. They stay on record.
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        act: Act,
    },
    /// Write dead letters with their payloads as JSON lines.
    Export {
        #[command(flatten)]
        which: Which,
        /// Dead for this reason.
        #[arg(long, value_name = "CODE", value_parser = reason)]
        reason: Option<String>,
        /// The file; default standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Bring what waits in the broker's dead-letter queue into the table, as
    /// the worker does all the time: for when no worker runs.
    Drain {
        /// Only count what waits.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which dead letters: every condition must hold.
#[derive(Debug, Args)]
struct Which {
    /// These letters only.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Came in at this source.
    #[arg(long)]
    source: Option<String>,
    /// About this topic.
    #[arg(long)]
    topic: Option<String>,
    /// First failed at this time or later (RFC 3339), or so long ago (90s, 15m, 6h, 3d).
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// First failed before this time; as --since.
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// This order's or invoice's number, or this event key.
    #[arg(long)]
    number: Option<String>,
    /// In this state: open (default), replayed, resolved, discarded or all.
    #[arg(long, default_value = "open", value_parser = ["open", "replayed", "resolved", "discarded", "all"])]
    state: String,
}

/// How an act of a person is carried out.
#[derive(Debug, Args)]
struct Act {
    /// Dead for this reason.
    #[arg(long, value_name = "CODE", value_parser = reason)]
    reason_code: Option<String>,
    /// Why; goes on record. Needed for discarding, and for replaying more
    /// than one.
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Only show which letters would be meant.
    #[arg(long)]
    dry_run: bool,
    /// Take every open letter, when no condition is given.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<String, String> {
    if Reason::from_code(text).is_some() {
        return Ok(text.to_owned());
    }
    let codes = Reason::ALL.map(Reason::code).join(", ");
    Err(format!("no such reason; one of {codes}"))
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let ago = || {
        let unit = text.chars().last()?;
        let number: u32 = text.get(..text.len() - unit.len_utf8())?.parse().ok()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        OffsetDateTime::now_utc()
            .checked_sub(Duration::from_secs(seconds).checked_mul(number)?.try_into().ok()?)
    };
    ago()
        .or_else(|| parse_moment(text))
        .ok_or_else(|| "neither a time (2026-01-31T12:00:00Z) nor a span (15m, 6h, 3d)".to_owned())
}

impl Which {
    fn filter(&self, reason: Option<&String>) -> Filter {
        Filter {
            ids: self.ids.clone(),
            state: (self.state != "all").then(|| self.state.clone()),
            source: self.source.clone(),
            reason: reason.cloned(),
            topic: self.topic.clone(),
            since: self.since,
            until: self.until,
            number: self.number.clone(),
        }
    }

    fn is_everything(&self) -> bool {
        let Self { ids, source, topic, since, until, number, state: _ } = self;
        ids.is_empty()
            && source.is_none()
            && topic.is_none()
            && since.is_none()
            && until.is_none()
            && number.is_none()
    }
}

pub(super) async fn run(arguments: DeadArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::new(&config.database).context("database.url")?;
    let code = match arguments.act {
        DeadCommand::List { which, reason, limit, json } => {
            list(&store, &which.filter(reason.as_ref()), limit, json).await?
        }
        DeadCommand::Show { id, json } => show_one(&store, id, json).await?,
        DeadCommand::Replay { which, act } => replay(&store, config, &which, &act).await?,
        DeadCommand::Discard { which, act } => discard(&store, &which, &act).await?,
        DeadCommand::Export { which, reason, output } => {
            export(&store, &which.filter(reason.as_ref()), output).await?
        }
        DeadCommand::Drain { dry_run, json } => drain(&store, config, dry_run, json).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}

async fn list(store: &Store, filter: &Filter, limit: u32, json: bool) -> anyhow::Result<u8> {
    let letters = review::list(store, filter, limit).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&letters)?);
        return Ok(DONE);
    }
    if letters.is_empty() {
        println!("No dead letters{}.", filter.state.as_ref().map_or("", |_| " in this state"));
        return Ok(DONE);
    }
    print_letters(&letters);
    if letters.len() == limit as usize {
        println!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(DONE)
}

fn print_letters(letters: &[Summary]) {
    let mut table = show::table(&[
        "ID",
        "FIRST FAILED",
        "SOURCE",
        "TOPIC",
        "NUMBER",
        "REASON",
        "STATE",
        "ERROR",
    ]);
    for letter in letters {
        table.add_row([
            letter.dead_letter_id.to_string(),
            show::moment(letter.first_failed_at),
            letter.source.clone(),
            letter.topic.clone(),
            letter.business_key.clone().unwrap_or_default(),
            letter.reason.clone(),
            letter.outcome.as_ref().map_or_else(
                || letter.state.clone(),
                |outcome| format!("{}: {outcome}", letter.state),
            ),
            show::brief(&letter.error, 60),
        ]);
    }
    println!("{table}");
}

async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let letter = review::show(store, id).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&letter)?);
        return Ok(DONE);
    }
    let summary = &letter.summary;
    let mut table = show::table(&["", ""]);
    let outcome = summary.outcome.clone().unwrap_or_default();
    for (name, value) in [
        ("dead letter", summary.dead_letter_id.to_string()),
        ("receipt", summary.receipt_id.to_string()),
        ("event key", summary.event_key.clone()),
        ("source", summary.source.clone()),
        ("tenant", summary.tenant.clone()),
        ("topic", summary.topic.clone()),
        ("number", summary.business_key.clone().unwrap_or_default()),
        ("reason", summary.reason.clone()),
        ("error", summary.error.clone()),
        ("attempts", summary.attempts.to_string()),
        ("state", format!("{} {outcome}", summary.state)),
        ("received", show::moment(letter.received_at)),
        ("first failed", show::moment(summary.first_failed_at)),
        ("last failed", show::moment(summary.last_failed_at)),
    ] {
        table.add_row([name, value.trim_end()]);
    }
    println!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for act in &letter.acts {
        println!("\n{} {} by {}: {}", show::moment(act.at), act.act, act.actor, act.reason);
    }
    println!("\nheaders {}", serde_json::to_string_pretty(&letter.headers)?);
    let payload = letter.payload.or(letter.payload_base64).unwrap_or_default();
    println!("\npayload ({} bytes)\n{payload}", summary.payload_bytes);
    Ok(DONE)
}

/// The letters that an act means, frozen, and the reason given for it.
async fn selection(
    store: &Store,
    which: &Which,
    act: &Act,
    reason_always: bool,
) -> anyhow::Result<Vec<Summary>> {
    ensure!(
        !which.is_everything() || act.reason_code.is_some() || act.all,
        "this would mean every letter; name some, give a condition, or say --all"
    );
    let letters = review::select(store, &which.filter(act.reason_code.as_ref())).await?;
    let named = act.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    let needs_reason = reason_always || letters.len() > 1;
    ensure!(
        act.dry_run || !needs_reason || named,
        "{} letters are meant; say why with --reason",
        letters.len()
    );
    Ok(letters)
}

/// Shows what an act would mean, counted by reason.
fn preview(verb: &str, letters: &[Summary], json: bool) -> anyhow::Result<u8> {
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for letter in letters {
        *by_reason.entry(&letter.reason).or_default() += 1;
    }
    if json {
        let preview = json!({"dry_run": true, "letters": letters.len(), "by_reason": by_reason});
        println!("{}", serde_json::to_string_pretty(&preview)?);
        return Ok(DONE);
    }
    println!("{} letters would be {verb}:", letters.len());
    for (reason, count) in by_reason {
        println!("{count:>8}  {reason}");
    }
    Ok(DONE)
}

async fn replay(store: &Store, config: &Config, which: &Which, act: &Act) -> anyhow::Result<u8> {
    let letters = selection(store, which, act, false).await?;
    if act.dry_run {
        return preview("replayed", &letters, act.json);
    }
    let topology = Arc::new(Topology::bare(&config.broker.prefix));
    let stop = CancellationToken::new();
    let publisher =
        Publisher::start(&config.broker, Arc::clone(&topology), Metrics::new()?, stop.clone());
    if tokio::time::timeout(CONNECT, publisher.ready()).await.is_err() {
        bail!("nothing was replayed: {}", publisher.trouble().unwrap_or_default());
    }
    let name = actor(act);
    let reason = act.reason.as_deref().unwrap_or("");
    let actor = Actor { name: &name, reason };
    let filter = which.filter(act.reason_code.as_ref());
    let run = Replay::open(store, &publisher, topology, actor, &filter, letters.len()).await?;
    let mut sent = 0;
    let mut failures = Vec::new();
    for letter in &letters {
        match run.send(letter).await {
            Ok(()) => sent += 1,
            Err(error) => failures.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    stop.cancel();
    if act.json {
        let result = json!({"replay_id": run.replay_id, "sent": sent, "failed": failures});
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        println!("{sent} of {} letters were sent in again (run {}).", letters.len(), run.replay_id);
        println!(
            "They are resolved once a worker has applied them: tallyhook dead list --state all"
        );
        for failure in &failures {
            eprintln!("failed: {failure}");
        }
    }
    Ok(match (sent, failures.len()) {
        (_, 0) => DONE,
        (0, _) => FAILED,
        _ => PARTLY,
    })
}

async fn discard(store: &Store, which: &Which, act: &Act) -> anyhow::Result<u8> {
    let letters = selection(store, which, act, true).await?;
    if act.dry_run {
        return preview("discarded", &letters, act.json);
    }
    let ids: Vec<Uuid> = letters.iter().map(|letter| letter.dead_letter_id).collect();
    let name = actor(act);
    let actor = Actor { name: &name, reason: act.reason.as_deref().unwrap_or("") };
    let discarded = review::discard(store, &ids, actor).await?;
    if act.json {
        println!("{}", json!({"selected": ids.len(), "discarded": discarded}));
    } else {
        println!("{discarded} of {} letters were discarded; they stay on record.", ids.len());
    }
    Ok(match (discarded, ids.len() as u64) {
        (done, all) if done == all => DONE,
        (0, _) => FAILED,
        _ => PARTLY,
    })
}

async fn export(store: &Store, filter: &Filter, output: Option<PathBuf>) -> anyhow::Result<u8> {
    let letters = review::select(store, filter).await?;
    let mut out: Box<dyn std::io::Write> = match &output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    for letter in &letters {
        let letter = review::show(store, letter.dead_letter_id).await?;
        serde_json::to_writer(&mut out, &letter)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    if std::io::stderr().is_terminal() {
        eprintln!("{} letters", letters.len());
    }
    Ok(DONE)
}

async fn drain(store: &Store, config: &Config, dry_run: bool, json: bool) -> anyhow::Result<u8> {
    let topology = service::topology(config);
    let link = Link::open(&config.broker.url, "tallyhook dead drain").await?;
    let dead = topology.dead();
    let (waiting, drained) = if dry_run {
        let depths = topology.depths(&link).await?;
        let depth = depths.into_iter().find(|depth| depth.queue == dead);
        (depth.and_then(|depth| depth.ready).unwrap_or_default(), 0)
    } else {
        (0, archive::drain(&dead, &link, store, QUIET).await.context("draining stopped")?)
    };
    link.close().await;
    match (json, dry_run) {
        (true, true) => println!("{}", json!({"waiting": waiting})),
        (true, false) => println!("{}", json!({"drained": drained})),
        (false, true) => println!("{waiting} messages wait in {dead}."),
        (false, false) => println!("{drained} messages were brought from {dead} into the table."),
    }
    Ok(DONE)
}

/// Who acts: as told, else the user of this session.
fn actor(act: &Act) -> String {
    let user = || ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    act.actor
        .clone()
        .or_else(user)
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
