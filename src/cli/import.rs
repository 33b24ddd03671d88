//! `tallyhook import`: sends a file of invoices and reports the outcome of each
//! line.

mod api;
mod args;
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
use clap::{CommandFactory as _, error::ErrorKind};
use http::HeaderMap;
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use super::{Arguments, EXIT_DONE, EXIT_PARTLY, EXIT_USAGE, receiver_url};
use crate::{
    app::Components,
    config::Config,
    domain::{ImportFormat, SourceName},
    sources::Source,
};
use api::{AcceptedImport, ItemOutcome};
pub(super) use args::ImportArgs;
use client::{FileUpload, Input, ReceiverClient};
use report::{EndReason, ImportReport, ItemProblem};
use report_file::{ReportFile, ReportFormat};
use wait::WaitResult;

/// How many items a report lists per kind of problem.
const MAX_PROBLEMS: usize = 1000;

/// A file and the source it is for.
struct ImportJob<'a> {
    input: Input,
    source: &'a SourceName,
    import_source: &'a Source,
    format: ImportFormat,
    /// The headers that authenticate the upload.
    credentials: HeaderMap,
}

/// What the command reports at the end.
struct ImportResult {
    report: ImportReport,
    /// Whether the report file was written.
    has_report_file: bool,
    /// Why the report file was not written.
    report_error: Option<anyhow::Error>,
}

/// # Errors
/// Nothing was sent, or the result is unknown.
pub(super) async fn run(
    arguments: ImportArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let report_path = arguments.report.as_deref();
    let report_format = match report_path.map(|path| ReportFormat::from_path(path).ok_or(path)) {
        Some(Err(path)) => {
            let path = path.display();
            return usage_error(&format!("--report {path}: the name must end in .csv or .json"));
        }
        Some(Ok(format)) => Some(format),
        None => None,
    };
    if let Some((path, file)) = report_path.zip(arguments.file.as_deref())
        && is_same_file(path, file)
    {
        let path = path.display();
        return usage_error(&format!("--report {path}: it would overwrite the invoices"));
    }
    let job = arguments.file.clone().map(|path| prepare_job(&arguments, path, components));
    let job = match job.transpose() {
        Ok(job) => job,
        Err(message) => return usage_error(&message),
    };
    let file = report_path.zip(report_format);
    let file = file.map(|(path, format)| ReportFile::create(path, format)).transpose()?;
    let result = match (job, arguments.status) {
        (Some(job), _) if arguments.check => {
            until_ctrl_c(dry_run::run(&job, config, components, file)).await?
        }
        (Some(job), _) => upload_and_wait(&arguments, &job, config, file).await?,
        (None, Some(import_id)) => {
            look_up_status(&arguments, import_id, config, components, file).await?
        }
        (None, None) => return usage_error("a file or --status is needed"),
    };
    let ImportResult { report, has_report_file, report_error } = result;
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        outln!("{}", summary::render(&report, has_report_file));
    }
    let mut code = report.exit_code();
    if let Some(error) = report_error {
        eprintln!("error: the report was not written: {error:#}");
        code = if code == EXIT_DONE { EXIT_PARTLY } else { code };
    }
    Ok(ExitCode::from(code))
}

fn is_same_file(first: &Path, second: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    canonical(first).is_some_and(|first| canonical(second) == Some(first))
}

/// Prints an error about the arguments, as clap does.
fn usage_error(message: &str) -> anyhow::Result<ExitCode> {
    let mut command = Arguments::command();
    command.build();
    if let Some(import) = command.find_subcommand_mut("import") {
        import.error(ErrorKind::ValueValidation, message).print()?;
    }
    Ok(ExitCode::from(EXIT_USAGE))
}

fn prepare_job<'a>(
    arguments: &ImportArgs,
    path: PathBuf,
    components: &'a Components,
) -> Result<ImportJob<'a>, String> {
    let (source, import_source) = choose_source(arguments.source.as_ref(), components)?;
    let input = Input::new(path);
    let format = match arguments.format {
        Some(format) => ImportFormat::from(format),
        None => {
            input.name().as_deref().and_then(ImportFormat::from_file_name).ok_or_else(|| {
                format!("the format of {input} does not follow from its name: use --format")
            })?
        }
    };
    let credentials = client::credential_headers(import_source, arguments.tenant.as_deref());
    Ok(ImportJob { input, source, import_source, format, credentials })
}

/// The source with this name, or the only one that accepts imports.
fn choose_source<'a>(
    name: Option<&SourceName>,
    components: &'a Components,
) -> Result<(&'a SourceName, &'a Source), String> {
    let sources = || components.sources.iter().filter(|(_, source)| source.accepts_imports());
    let names = || sources().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    match (name, sources().count()) {
        (_, 0) => {
            Err("no source of the configuration takes imports: add one of kind import".to_owned())
        }
        (Some(wanted), _) => sources()
            .find(|(name, _)| *name == wanted)
            .ok_or_else(|| format!("no source {wanted} takes imports, only {}", names())),
        (None, 1) => sources().next().ok_or_else(names),
        (None, _) => Err(format!("--source is needed: imports are taken by {}", names())),
    }
}

fn receiver_client(arguments: &ImportArgs, config: &Config) -> anyhow::Result<ReceiverClient> {
    ReceiverClient::new(receiver_url::base_url(arguments.url.as_ref(), config.receiver.listen)?)
}

async fn upload_and_wait(
    arguments: &ImportArgs,
    job: &ImportJob<'_>,
    config: &Config,
    file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    let receiver = receiver_client(arguments, config)?;
    let upload = FileUpload {
        input: &job.input,
        source: job.source.as_str(),
        media_type: job.format.media_type(),
        credentials: &job.credentials,
    };
    let bar =
        progress_bar(arguments, "sending {bytes}/{total_bytes} {wide_bar} {binary_bytes_per_sec}");
    let uploaded = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped; {}", client::MAYBE_TAKEN)),
        uploaded = receiver.upload(&upload, &bar) => uploaded,
    };
    bar.finish_and_clear();
    let accepted = uploaded?;
    let WaitResult { ended, status, error } =
        wait_for_outcomes(arguments, &receiver, &accepted).await;
    let (source, name) = (job.source.to_string(), job.input.name());
    let mut report = ImportReport::from_accepted(source, name, &accepted, status, ended, error);
    fetch_dead_letters(&receiver, &mut report, &job.credentials).await;
    // After Ctrl-C the command does not wait for the report file either.
    let file = file.filter(|_| report.ended != EndReason::Interrupted);
    Ok(write_report_file(&receiver, report, &job.credentials, file).await)
}

/// Waits for the outcomes, unless there are no items or `--no-wait` is given.
async fn wait_for_outcomes(
    arguments: &ImportArgs,
    receiver: &ReceiverClient,
    accepted: &AcceptedImport,
) -> WaitResult {
    let without_waiting = |ended| WaitResult { ended, status: None, error: None };
    if accepted.items == 0 {
        return without_waiting(EndReason::Completed);
    }
    if arguments.no_wait {
        return without_waiting(EndReason::NotWaited);
    }
    let bar = progress_bar(arguments, "processed {pos}/{len} {wide_bar} {per_sec}");
    bar.set_length(accepted.items);
    let timeout = Duration::from_secs(arguments.timeout.into());
    let (import_id, items) = (accepted.import_id, accepted.items);
    let result = wait::wait_until_complete(receiver, import_id, items, timeout, &bar).await;
    bar.finish_and_clear();
    result
}

async fn look_up_status(
    arguments: &ImportArgs,
    import_id: Uuid,
    config: &Config,
    components: &Components,
    file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    let receiver = receiver_client(arguments, config)?;
    let status = receiver.status(import_id).await?.with_context(|| {
        format!("no import {import_id} is on record, or no worker has recorded it yet")
    })?;
    let mut report = ImportReport::from_status(status);
    let name = report.source.parse::<SourceName>().ok();
    let Some(source) = name.and_then(|name| components.sources.get(&name)) else {
        let error = format!("the source {} is not configured here", report.source);
        let report_error = file.map(|_| anyhow::anyhow!("{error}"));
        report.status_error = Some(error);
        return Ok(ImportResult { report, has_report_file: false, report_error });
    };
    let credentials = client::credential_headers(source, arguments.tenant.as_deref());
    if report.rejected > 0 {
        let fetched = fetch_problems(&receiver, import_id, &credentials, "rejected").await;
        record_problems(fetched, &mut report.rejections, &mut report.status_error);
    }
    fetch_dead_letters(&receiver, &mut report, &credentials).await;
    Ok(write_report_file(&receiver, report, &credentials, file).await)
}

async fn fetch_dead_letters(
    receiver: &ReceiverClient,
    report: &mut ImportReport,
    credentials: &HeaderMap,
) {
    if let (Some(import_id), 1..) = (report.import_id, report.dead()) {
        let fetched = fetch_problems(receiver, import_id, credentials, "dead").await;
        record_problems(fetched, &mut report.dead_letters, &mut report.status_error);
    }
}

/// The first items with this outcome.
async fn fetch_problems(
    receiver: &ReceiverClient,
    import_id: Uuid,
    credentials: &HeaderMap,
    outcome: &str,
) -> anyhow::Result<Vec<ItemProblem>> {
    let mut problems = Vec::new();
    let add = |item| {
        problems.push(ItemProblem::from(item));
        Ok(())
    };
    until_ctrl_c(receiver.for_each_item(import_id, credentials, Some(outcome), MAX_PROBLEMS, add))
        .await?;
    Ok(problems)
}

fn record_problems(
    fetched: anyhow::Result<Vec<ItemProblem>>,
    problems: &mut Vec<ItemProblem>,
    status_error: &mut Option<String>,
) {
    match fetched {
        Ok(fetched) => *problems = fetched,
        Err(error) => *status_error = Some(format!("{error:#}")),
    }
}

/// Writes every item to the report file, if there is one.
async fn write_report_file(
    receiver: &ReceiverClient,
    report: ImportReport,
    credentials: &HeaderMap,
    file: Option<ReportFile>,
) -> ImportResult {
    let (Some(mut file), Some(import_id)) = (file, report.import_id) else {
        return ImportResult { report, has_report_file: false, report_error: None };
    };
    let write = async {
        if report.total > 0 {
            let add = |item: ItemOutcome| file.add_item(&item);
            receiver.for_each_item(import_id, credentials, None, usize::MAX, add).await?;
        }
        file.finish(&report)
    };
    let report_error = until_ctrl_c(write).await.err();
    ImportResult { report, has_report_file: report_error.is_none(), report_error }
}

/// Runs `work` until Ctrl-C is pressed. Once tokio listens for the signal, it
/// no longer ends the process by itself.
async fn until_ctrl_c<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        // Listen before the work begins: an earlier signal would be lost.
        biased;
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
        done = work => done,
    }
}

/// A progress bar on standard error, if that is a terminal.
fn progress_bar(arguments: &ImportArgs, style: &str) -> ProgressBar {
    if arguments.json {
        return ProgressBar::hidden();
    }
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    )
}
