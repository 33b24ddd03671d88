//! `tallyhook import`: sends a file of invoices, and waits for what becomes
//! of each line.

mod answer;
mod check;
mod client;
mod file;
mod report;
mod table;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{CommandFactory as _, ValueEnum, error::ErrorKind};
use http::HeaderMap;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Url;
use uuid::Uuid;

use super::{Arguments, DONE, PARTLY, USAGE, receiver};
use crate::{
    adapter::Adapter,
    config::Config,
    domain::{ImportFormat, SourceName},
};
use answer::{Accepted, Item};
use client::{Input, Receiver, Upload};
use file::{File, Form};
use report::{End, Problem, Report};
use watch::Seen;

/// How many lines at fault a report holds of each kind.
const PROBLEMS: usize = 1000;

/// Sends a file of invoices and waits for what becomes of each line.
#[derive(clap::Args, Clone, Debug)]
#[command(after_long_help = "\
Each line becomes a message of its own: what is wrong with one holds up no other. Lines that are
known already are duplicates and change nothing, so a file may be sent again, whole, at any time.

Exit codes: 0 every line was applied or known, 3 some failed or still wait, 1 none came through or
nothing was sent, 2 usage. Ctrl-C ends the waiting only; what was sent goes its way.")]
pub(super) struct ImportArgs {
    /// CSV, NDJSON or a JSON array of invoices; - for standard input
    #[arg(required_unless_present = "status")]
    file: Option<PathBuf>,

    /// The configured source it is for [default: the only one that takes imports]
    #[arg(long, value_name = "NAME")]
    source: Option<SourceName>,

    /// The company, where a header tells it [default: the source's only tenant]
    #[arg(long)]
    tenant: Option<String>,

    /// The receiver's base address [default: receiver.listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<Url>,

    /// How the file is written [default: as its name ends]
    #[arg(long, value_enum)]
    format: Option<Written>,

    /// Send nothing: read the file, ask the database, say what would become of each line
    ///
    /// The database is the configuration's; no receiver is asked, whatever --url names.
    #[arg(long, conflicts_with_all = ["no_wait", "timeout"])]
    check: bool,

    /// Write what became of every line to this file, .csv or .json
    #[arg(long, value_name = "PATH", conflicts_with = "no_wait")]
    report: Option<PathBuf>,

    /// Do not wait for the lines to be applied
    #[arg(long, conflicts_with = "timeout")]
    no_wait: bool,

    /// How long to wait for the lines to be applied
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(0..=86_400))]
    timeout: u32,

    /// Send nothing: say what became of an earlier import
    #[arg(long, value_name = "ID",
        conflicts_with_all = ["file", "source", "format", "check", "no_wait", "timeout"])]
    status: Option<Uuid>,

    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// How a file is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Written {
    /// Comma-separated values, the first line names the columns
    Csv,
    /// A JSON object a line
    Ndjson,
    /// A JSON array of objects
    Json,
}

impl From<Written> for ImportFormat {
    fn from(written: Written) -> Self {
        match written {
            Written::Csv => Self::Csv,
            Written::Ndjson => Self::NdJson,
            Written::Json => Self::Json,
        }
    }
}

/// A file, and whose it is.
struct Job<'a> {
    input: Input,
    source: &'a SourceName,
    adapter: &'a Adapter,
    format: ImportFormat,
    /// What proves that it is ours to send.
    credentials: HeaderMap,
}

/// Imports what the arguments tell, and says what came of it.
///
/// # Errors
/// Nothing was sent, or nobody knows.
pub(super) async fn run(arguments: ImportArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let form = match arguments.report.as_deref().map(|path| Form::of(path).ok_or(path)) {
        Some(Err(path)) => {
            let path = path.display();
            return usage(&format!("--report {path}: the name must end in .csv or .json"));
        }
        Some(Ok(form)) => Some(form),
        None => None,
    };
    if let Some((path, file)) = arguments.report.as_deref().zip(arguments.file.as_deref())
        && is_same(path, file)
    {
        let path = path.display();
        return usage(&format!("--report {path}: it would stand where the invoices do"));
    }
    let job = match arguments.file.clone().map(|path| job(&arguments, path, config)).transpose() {
        Ok(job) => job,
        Err(message) => return usage(&message),
    };
    let file = arguments.report.as_deref().zip(form);
    let file = file.map(|(path, form)| File::begin(path, form)).transpose()?;
    let end = match (job, arguments.status) {
        (Some(job), _) if arguments.check => unless_stopped(check::run(&job, config, file)).await?,
        (Some(job), _) => import(&arguments, &job, config, file).await?,
        (None, Some(import_id)) => status(&arguments, import_id, config, file).await?,
        (None, None) => return usage("a file or --status is needed"),
    };
    let Told { report, is_reported, unreported } = end;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        say!("{}", table::render(&report, is_reported));
    }
    let mut code = report.code();
    if let Some(error) = unreported {
        eprintln!("error: the report was not written: {error:#}");
        // All may be well with the import, and not all was done.
        code = if code == DONE { PARTLY } else { code };
    }
    Ok(ExitCode::from(code))
}

/// Whether two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// What there is to say at the end.
struct Told {
    report: Report,
    /// Whether a file holds every line.
    is_reported: bool,
    /// Why none does that should.
    unreported: Option<anyhow::Error>,
}

/// Says what is wrong with the arguments, as clap does.
fn usage(message: &str) -> anyhow::Result<ExitCode> {
    let mut command = Arguments::command();
    command.build();
    if let Some(import) = command.find_subcommand_mut("import") {
        import.error(ErrorKind::ValueValidation, message).print()?;
    }
    Ok(ExitCode::from(USAGE))
}

/// The file that is told, for which source, and how it is written.
fn job<'a>(arguments: &ImportArgs, path: PathBuf, config: &'a Config) -> Result<Job<'a>, String> {
    let (source, adapter) = taker(arguments.source.as_ref(), config)?;
    let input = Input::new(path);
    let format = match arguments.format {
        Some(written) => ImportFormat::from(written),
        None => {
            input.name().as_deref().and_then(ImportFormat::from_file_name).ok_or_else(|| {
                format!("the name of {input} does not tell how it is written: say it with --format")
            })?
        }
    };
    let credentials = client::credentials(adapter, arguments.tenant.as_deref());
    Ok(Job { input, source, adapter, format, credentials })
}

/// The source that takes the import: the one told, else the only one.
fn taker<'a>(
    told: Option<&SourceName>,
    config: &'a Config,
) -> Result<(&'a SourceName, &'a Adapter), String> {
    let takers = || config.sources.iter().filter(|(_, adapter)| adapter.takes_imports());
    let names = || takers().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match (told, takers().count()) {
        (_, 0) => {
            Err("no source of the configuration takes imports: add one of kind import".to_owned())
        }
        (Some(told), _) => takers()
            .find(|(name, _)| *name == told)
            .ok_or_else(|| format!("no source {told} takes imports, only {}", names())),
        (None, 1) => takers().next().ok_or_else(names),
        (None, _) => Err(format!("--source is needed: imports are taken by {}", names())),
    }
}

async fn import(
    arguments: &ImportArgs,
    job: &Job<'_>,
    config: &Config,
    file: Option<File>,
) -> anyhow::Result<Told> {
    let receiver = Receiver::new(receiver::base(arguments.url.as_ref(), config.receiver.listen)?)?;
    let upload = Upload {
        input: &job.input,
        source: job.source.as_str(),
        media_type: job.format.media_type(),
        credentials: &job.credentials,
    };
    let bar = bar(arguments, "sending {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}");
    let sent = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped; {}", client::MAYBE)),
        sent = receiver.send(&upload, &bar) => sent,
    };
    bar.finish_and_clear();
    let accepted = sent?;
    let seen = wait(arguments, &receiver, &accepted).await;
    let mut report = Report::new(
        job.source.to_string(),
        job.input.name(),
        &accepted,
        seen.known,
        seen.ended,
        seen.trouble,
    );
    if report.dead() > 0 {
        let asked = faulty(&receiver, accepted.import_id, &job.credentials, "dead").await;
        keep(asked, &mut report.dead_letters, &mut report.trouble);
    }
    // Whoever pressed Ctrl-C does not wait for a report either.
    let file = file.filter(|_| report.ended != End::Interrupted);
    Ok(finish(&receiver, report, &job.credentials, file).await)
}

/// Waits for the items, if that is wanted and there are any.
async fn wait(arguments: &ImportArgs, receiver: &Receiver, accepted: &Accepted) -> Seen {
    let at_once = |ended| Seen { ended, known: None, trouble: None };
    if accepted.items == 0 {
        return at_once(End::Settled);
    }
    if arguments.no_wait {
        return at_once(End::NotWaited);
    }
    let bar = bar(arguments, "settled {pos}/{len} {wide_bar} {per_sec}");
    bar.set_length(accepted.items);
    let patience = Duration::from_secs(arguments.timeout.into());
    let seen =
        watch::until_settled(receiver, accepted.import_id, accepted.items, patience, &bar).await;
    bar.finish_and_clear();
    seen
}

async fn status(
    arguments: &ImportArgs,
    import_id: Uuid,
    config: &Config,
    file: Option<File>,
) -> anyhow::Result<Told> {
    let receiver = Receiver::new(receiver::base(arguments.url.as_ref(), config.receiver.listen)?)?;
    let known = receiver.progress(import_id).await?.with_context(|| {
        format!("nothing is known of an import {import_id}, or no worker has heard of it yet")
    })?;
    let mut report = Report::later(known);
    let source = report.source.parse::<SourceName>().ok();
    let Some(adapter) = source.and_then(|source| config.sources.get(&source)) else {
        let why = format!("the source {} is not configured here", report.source);
        let unreported = file.map(|_| anyhow::anyhow!("{why}"));
        report.trouble = Some(why);
        return Ok(Told { report, is_reported: false, unreported });
    };
    let credentials = client::credentials(adapter, arguments.tenant.as_deref());
    if report.rejected > 0 {
        let asked = faulty(&receiver, import_id, &credentials, "rejected").await;
        keep(asked, &mut report.rejections, &mut report.trouble);
    }
    if report.dead() > 0 {
        let asked = faulty(&receiver, import_id, &credentials, "dead").await;
        keep(asked, &mut report.dead_letters, &mut report.trouble);
    }
    Ok(finish(&receiver, report, &credentials, file).await)
}

/// The first lines with this outcome, which is none to be glad of.
async fn faulty(
    receiver: &Receiver,
    import_id: Uuid,
    credentials: &HeaderMap,
    outcome: &str,
) -> anyhow::Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let take = |line| {
        problems.push(Problem::from(line));
        Ok(())
    };
    unless_stopped(receiver.lines(import_id, credentials, Some(outcome), PROBLEMS, take)).await?;
    Ok(problems)
}

fn keep(
    asked: anyhow::Result<Vec<Problem>>,
    problems: &mut Vec<Problem>,
    trouble: &mut Option<String>,
) {
    match asked {
        Ok(found) => *problems = found,
        Err(error) => *trouble = Some(format!("{error:#}")),
    }
}

/// Writes the file with every line, if one is wanted.
async fn finish(
    receiver: &Receiver,
    report: Report,
    credentials: &HeaderMap,
    file: Option<File>,
) -> Told {
    let (Some(mut file), Some(import_id)) = (file, report.import_id) else {
        return Told { report, is_reported: false, unreported: None };
    };
    let written = async {
        if report.total > 0 {
            let take = |line: Item| file.add(&line);
            receiver.lines(import_id, credentials, None, usize::MAX, take).await?;
        }
        file.finish(&report)
    };
    let unreported = unless_stopped(written).await.err();
    Told { report, is_reported: unreported.is_none(), unreported }
}

/// Goes on until it is done, or until Ctrl-C is pressed: who waited once would
/// otherwise never be heard again.
async fn unless_stopped<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        // Listened for before the work begins: what came earlier is not heard.
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
        done = work => done,
    }
}

/// A progress bar on stderr, if that is a terminal.
fn bar(arguments: &ImportArgs, style: &str) -> ProgressBar {
    if arguments.json {
        return ProgressBar::hidden();
    }
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
