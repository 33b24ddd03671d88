//! `--check`: what would become of each line, without sending any.

mod forecast;
mod lines;

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    ImportJob, ImportResult,
    api::{ImportTiming, ItemOutcome, OutcomeCounts},
    report::{EndReason, ImportReport, ItemProblem},
    report_file::ReportFile,
};
use crate::{
    app::Components,
    config::Config,
    domain::ImportState,
    store::{Conn, Store, inbox, invoices},
};
use forecast::Forecast;
use lines::{ParsedEvent, Read, Rehearsal};

/// Reads the file and asks the database; nothing is sent, nothing is written
/// but the report.
///
/// # Errors
/// The file cannot be opened, or the database cannot be asked.
pub(super) async fn run(
    job: &ImportJob<'_>,
    config: &Config,
    components: &Components,
    mut file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    // First: without it nothing can be said of any line.
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut connection = store.connection().await.context("the database cannot be reached")?;
    let (sender, mut batches) = mpsc::channel(2);
    let (input, limit) = (job.input.clone(), config.receiver.body_limit_bytes);
    let (sources, source) = (Arc::clone(&components.sources), job.source.clone());
    let (format, headers) = (job.format, job.credentials.clone());
    // A thread that waits for standard input must not hold the process up
    // when it is to end.
    std::thread::spawn(move || {
        if let Some(adapter) = sources.get(&source) {
            let rehearsal = Rehearsal::new(&source, adapter, format, headers);
            lines::read(&input, &rehearsal, limit, &sender);
        }
    });
    let mut report = nothing_yet(job);
    let mut forecast = Forecast::new(job.import_source.conflict_policy().invoice_conflict);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        let known =
            look_up(&mut connection, &batch).await.context("the database cannot be asked")?;
        for read in batch {
            match read {
                Read::Broken(error) => {
                    report.state = ImportState::Interrupted;
                    report.error = Some(error);
                }
                Read::Item { line, event } => {
                    let told = forecast.tell(line, event, &known);
                    count(&mut report, &told);
                    if let Some(file) = &mut file {
                        file.add_item(&told)?;
                    }
                }
            }
        }
    }
    drop(connection);
    store.close().await;
    let written = file.map(|file| file.finish(&report)).transpose();
    let is_reported = matches!(written, Ok(Some(())));
    Ok(ImportResult { report, has_report_file: is_reported, report_error: written.err() })
}

fn nothing_yet(job: &ImportJob<'_>) -> ImportReport {
    ImportReport {
        ended: EndReason::Checked,
        source: job.source.to_string(),
        name: job.input.name(),
        import_id: None,
        state: ImportState::Received,
        error: None,
        total: 0,
        waiting: 0,
        rejected: 0,
        past_retention: 0,
        counts: Some(OutcomeCounts::default()),
        timing: ImportTiming::default(),
        rejections: Vec::new(),
        dead_letters: Vec::new(),
        status_error: None,
    }
}

/// What the database knows of the events of a batch.
#[derive(Debug, Default)]
struct Books {
    settled: HashMap<Uuid, inbox::ProcessedKey>,
    invoices: HashMap<Uuid, invoices::ExistingInvoice>,
}

async fn look_up(connection: &mut Conn, batch: &[Read]) -> anyhow::Result<Books> {
    let events = || batch.iter().filter_map(Read::event);
    let sorted = |ids: &mut dyn Iterator<Item = Uuid>| {
        let mut ids: Vec<Uuid> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let keys = sorted(&mut events().map(|event| event.key));
    let ids = sorted(&mut events().filter_map(ParsedEvent::invoice_id));
    Ok(Books {
        settled: inbox::lookup(connection, &keys).await?,
        invoices: invoices::load_existing(connection, &ids).await?,
    })
}

fn count(report: &mut ImportReport, line: &ItemOutcome) {
    let tally = report.counts.get_or_insert_default();
    report.total += 1;
    match (line.outcome.as_str(), line.write_kind.as_deref()) {
        ("rejected", _) => {
            report.rejected += 1;
            keep(&mut report.rejections, line);
        }
        ("dead", _) => {
            tally.dead += 1;
            keep(&mut report.dead_letters, line);
        }
        ("applied", Some("created")) => tally.created += 1,
        ("applied", _) => tally.updated += 1,
        ("duplicate", _) => tally.duplicate += 1,
        ("stale", _) => tally.stale += 1,
        _ => tally.ignored += 1,
    }
}

fn keep(problems: &mut Vec<ItemProblem>, line: &ItemOutcome) {
    if problems.len() < super::MAX_PROBLEMS {
        problems.push(ItemProblem::from(line.clone()));
    }
}
