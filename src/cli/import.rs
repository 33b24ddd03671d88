//! `tallyhook import`: sends a file of invoices, and waits for what becomes
//! of each line.

mod api;
mod client;
mod dry_run;
mod report;
mod report_file;
mod summary;
mod wait;

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

use super::{Arguments, EXIT_DONE, EXIT_PARTLY, EXIT_USAGE, receiver_url};
use crate::{
    app::Components,
    config::Config,
    domain::{ImportFormat, SourceName},
    sources::Source,
};
use api::{AcceptedImport, ItemOutcome};
use client::{FileUpload, Input, ReceiverClient};
use report::{EndReason, ImportReport, ItemProblem};
use report_file::{ReportFile, ReportFormat};
use wait::WaitResult;

/// How many lines at fault a report holds of each kind.
const MAX_PROBLEMS: usize = 1000;

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
    format: Option<FileFormat>,

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
enum FileFormat {
    /// Comma-separated values, the first line names the columns
    Csv,
    /// A JSON object a line
    Ndjson,
    /// A JSON array of objects
    Json,
}

impl From<FileFormat> for ImportFormat {
    fn from(written: FileFormat) -> Self {
        match written {
            FileFormat::Csv => Self::Csv,
            FileFormat::Ndjson => Self::NdJson,
            FileFormat::Json => Self::Json,
        }
    }
}

/// A file, and whose it is.
struct ImportJob<'a> {
    input: Input,
    source: &'a SourceName,
    import_source: &'a Source,
    format: ImportFormat,
    /// What proves that it is ours to send.
    credentials: HeaderMap,
}

/// Imports what the arguments tell, and says what came of it.
///
/// # Errors
/// Nothing was sent, or nobody knows.
pub(super) async fn run(
    arguments: ImportArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let form =
        match arguments.report.as_deref().map(|path| ReportFormat::from_path(path).ok_or(path)) {
            Some(Err(path)) => {
                let path = path.display();
                return usage_error(&format!(
                    "--report {path}: the name must end in .csv or .json"
                ));
            }
            Some(Ok(form)) => Some(form),
            None => None,
        };
    if let Some((path, file)) = arguments.report.as_deref().zip(arguments.file.as_deref())
        && is_same_file(path, file)
    {
        let path = path.display();
        return usage_error(&format!("--report {path}: it would stand where the invoices do"));
    }
    let job = match arguments
        .file
        .clone()
        .map(|path| prepare_job(&arguments, path, components))
        .transpose()
    {
        Ok(job) => job,
        Err(message) => return usage_error(&message),
    };
    let file = arguments.report.as_deref().zip(form);
    let file = file.map(|(path, form)| ReportFile::create(path, form)).transpose()?;
    let end = match (job, arguments.status) {
        (Some(job), _) if arguments.check => {
            until_ctrl_c(dry_run::run(&job, config, components, file)).await?
        }
        (Some(job), _) => upload_and_wait(&arguments, &job, config, file).await?,
        (None, Some(import_id)) => {
            look_up_status(&arguments, import_id, config, components, file).await?
        }
        (None, None) => return usage_error("a file or --status is needed"),
    };
    let ImportResult { report, has_report_file: is_reported, report_error: unreported } = end;
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        outln!("{}", summary::render(&report, is_reported));
    }
    let mut code = report.exit_code();
    if let Some(error) = unreported {
        eprintln!("error: the report was not written: {error:#}");
        // All may be well with the import, and not all was done.
        code = if code == EXIT_DONE { EXIT_PARTLY } else { code };
    }
    Ok(ExitCode::from(code))
}

/// Whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::canonicalize(path).ok();
    place(one).is_some_and(|one| place(other) == Some(one))
}

/// What there is to say at the end.
struct ImportResult {
    report: ImportReport,
    /// Whether a file holds every line.
    has_report_file: bool,
    /// Why none does that should.
    report_error: Option<anyhow::Error>,
}

/// Says what is wrong with the arguments, as clap does.
fn usage_error(message: &str) -> anyhow::Result<ExitCode> {
    let mut command = Arguments::command();
    command.build();
    if let Some(import) = command.find_subcommand_mut("import") {
        import.error(ErrorKind::ValueValidation, message).print()?;
    }
    Ok(ExitCode::from(EXIT_USAGE))
}

/// The file that is told, for which source, and how it is written.
fn prepare_job<'a>(
    arguments: &ImportArgs,
    path: PathBuf,
    components: &'a Components,
) -> Result<ImportJob<'a>, String> {
    let (source, adapter) = choose_source(arguments.source.as_ref(), components)?;
    let input = Input::new(path);
    let format = match arguments.format {
        Some(written) => ImportFormat::from(written),
        None => {
            input.name().as_deref().and_then(ImportFormat::from_file_name).ok_or_else(|| {
                format!("the name of {input} does not tell how it is written: say it with --format")
            })?
        }
    };
    let credentials = client::credential_headers(adapter, arguments.tenant.as_deref());
    Ok(ImportJob { input, source, import_source: adapter, format, credentials })
}

/// The source that takes the import: the one told, else the only one.
fn choose_source<'a>(
    told: Option<&SourceName>,
    components: &'a Components,
) -> Result<(&'a SourceName, &'a Source), String> {
    let takers = || components.sources.iter().filter(|(_, adapter)| adapter.accepts_imports());
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

async fn upload_and_wait(
    arguments: &ImportArgs,
    job: &ImportJob<'_>,
    config: &Config,
    file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    let receiver = ReceiverClient::new(receiver_url::base_url(
        arguments.url.as_ref(),
        config.receiver.listen,
    )?)?;
    let upload = FileUpload {
        input: &job.input,
        source: job.source.as_str(),
        media_type: job.format.media_type(),
        credentials: &job.credentials,
    };
    let bar =
        progress_bar(arguments, "sending {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}");
    let sent = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped; {}", client::MAYBE_TAKEN)),
        sent = receiver.upload(&upload, &bar) => sent,
    };
    bar.finish_and_clear();
    let accepted = sent?;
    let seen = wait_for_outcomes(arguments, &receiver, &accepted).await;
    let mut report = ImportReport::from_accepted(
        job.source.to_string(),
        job.input.name(),
        &accepted,
        seen.status,
        seen.ended,
        seen.error,
    );
    if report.dead() > 0 {
        let asked = fetch_problems(&receiver, accepted.import_id, &job.credentials, "dead").await;
        record_problems(asked, &mut report.dead_letters, &mut report.status_error);
    }
    // Whoever pressed Ctrl-C does not wait for a report either.
    let file = file.filter(|_| report.ended != EndReason::Interrupted);
    Ok(write_report_file(&receiver, report, &job.credentials, file).await)
}

/// Waits for the items, if that is wanted and there are any.
async fn wait_for_outcomes(
    arguments: &ImportArgs,
    receiver: &ReceiverClient,
    accepted: &AcceptedImport,
) -> WaitResult {
    let at_once = |ended| WaitResult { ended, status: None, error: None };
    if accepted.items == 0 {
        return at_once(EndReason::Completed);
    }
    if arguments.no_wait {
        return at_once(EndReason::NotWaited);
    }
    let bar = progress_bar(arguments, "settled {pos}/{len} {wide_bar} {per_sec}");
    bar.set_length(accepted.items);
    let patience = Duration::from_secs(arguments.timeout.into());
    let seen =
        wait::wait_until_complete(receiver, accepted.import_id, accepted.items, patience, &bar)
            .await;
    bar.finish_and_clear();
    seen
}

async fn look_up_status(
    arguments: &ImportArgs,
    import_id: Uuid,
    config: &Config,
    components: &Components,
    file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    let receiver = ReceiverClient::new(receiver_url::base_url(
        arguments.url.as_ref(),
        config.receiver.listen,
    )?)?;
    let known = receiver.status(import_id).await?.with_context(|| {
        format!("nothing is known of an import {import_id}, or no worker has heard of it yet")
    })?;
    let mut report = ImportReport::from_status(known);
    let source = report.source.parse::<SourceName>().ok();
    let Some(adapter) = source.and_then(|source| components.sources.get(&source)) else {
        let why = format!("the source {} is not configured here", report.source);
        let unreported = file.map(|_| anyhow::anyhow!("{why}"));
        report.status_error = Some(why);
        return Ok(ImportResult { report, has_report_file: false, report_error: unreported });
    };
    let credentials = client::credential_headers(adapter, arguments.tenant.as_deref());
    if report.rejected > 0 {
        let asked = fetch_problems(&receiver, import_id, &credentials, "rejected").await;
        record_problems(asked, &mut report.rejections, &mut report.status_error);
    }
    if report.dead() > 0 {
        let asked = fetch_problems(&receiver, import_id, &credentials, "dead").await;
        record_problems(asked, &mut report.dead_letters, &mut report.status_error);
    }
    Ok(write_report_file(&receiver, report, &credentials, file).await)
}

/// The first lines with this outcome, which is none to be glad of.
async fn fetch_problems(
    receiver: &ReceiverClient,
    import_id: Uuid,
    credentials: &HeaderMap,
    outcome: &str,
) -> anyhow::Result<Vec<ItemProblem>> {
    let mut problems = Vec::new();
    let take = |line| {
        problems.push(ItemProblem::from(line));
        Ok(())
    };
    until_ctrl_c(receiver.for_each_item(import_id, credentials, Some(outcome), MAX_PROBLEMS, take))
        .await?;
    Ok(problems)
}

fn record_problems(
    asked: anyhow::Result<Vec<ItemProblem>>,
    problems: &mut Vec<ItemProblem>,
    trouble: &mut Option<String>,
) {
    match asked {
        Ok(found) => *problems = found,
        Err(error) => *trouble = Some(format!("{error:#}")),
    }
}

/// Writes the file with every line, if one is wanted.
async fn write_report_file(
    receiver: &ReceiverClient,
    report: ImportReport,
    credentials: &HeaderMap,
    file: Option<ReportFile>,
) -> ImportResult {
    let (Some(mut file), Some(import_id)) = (file, report.import_id) else {
        return ImportResult { report, has_report_file: false, report_error: None };
    };
    let written = async {
        if report.total > 0 {
            let take = |line: ItemOutcome| file.add_item(&line);
            receiver.for_each_item(import_id, credentials, None, usize::MAX, take).await?;
        }
        file.finish(&report)
    };
    let unreported = until_ctrl_c(written).await.err();
    ImportResult { report, has_report_file: unreported.is_none(), report_error: unreported }
}

/// Goes on until it is done, or until Ctrl-C is pressed: who waited once would
/// otherwise never be heard again.
async fn until_ctrl_c<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        // Listened for before the work begins: what came earlier is not heard.
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
        done = work => done,
    }
}

/// A progress bar on stderr, if that is a terminal.
fn progress_bar(arguments: &ImportArgs, style: &str) -> ProgressBar {
    if arguments.json {
        return ProgressBar::hidden();
    }
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
