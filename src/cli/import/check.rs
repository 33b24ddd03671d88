//! `--check`: what would become of each line, without sending any.

mod forecast;
mod lines;

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    Job, Told,
    answer::{Item, Tally, Times},
    file::File,
    report::{End, Problem, Report},
};
use crate::{
    config::Config,
    domain::ImportState,
    store::{Conn, Store, inbox, invoices},
};
use forecast::Forecast;
use lines::{Known, Read, Rehearsal};

/// Reads the file and asks the database; nothing is sent, nothing is written
/// but the report.
///
/// # Errors
/// The file cannot be opened, or the database cannot be asked.
pub(super) async fn run(
    job: &Job<'_>,
    config: &Config,
    mut file: Option<File>,
) -> anyhow::Result<Told> {
    // First: without it nothing can be said of any line.
    let store = Store::unhurried(&config.database).context("database.url")?;
    let mut connection = store.connection().await.context("the database cannot be reached")?;
    let (sender, mut batches) = mpsc::channel(2);
    let (input, limit) = (job.input.clone(), config.receiver.body_limit_bytes);
    let (sources, source) = (Arc::clone(&config.sources), job.source.clone());
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
    let mut forecast = Forecast::new(job.adapter.rules().invoice_conflict);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        let known =
            look_up(&mut connection, &batch).await.context("the database cannot be asked")?;
        for read in batch {
            match read {
                Read::Broken(error) => {
                    report.state = ImportState::BrokenOff;
                    report.error = Some(error);
                }
                Read::Item { line, event } => {
                    let told = forecast.tell(line, event, &known);
                    count(&mut report, &told);
                    if let Some(file) = &mut file {
                        file.add(&told)?;
                    }
                }
            }
        }
    }
    drop(connection);
    store.close().await;
    let written = file.map(|file| file.finish(&report)).transpose();
    let is_reported = matches!(written, Ok(Some(())));
    Ok(Told { report, is_reported, unreported: written.err() })
}

fn nothing_yet(job: &Job<'_>) -> Report {
    Report {
        ended: End::Checked,
        source: job.source.to_string(),
        name: job.input.name(),
        import_id: None,
        state: ImportState::Received,
        error: None,
        total: 0,
        waiting: 0,
        rejected: 0,
        past_retention: 0,
        tally: Some(Tally::default()),
        times: Times::default(),
        rejections: Vec::new(),
        dead_letters: Vec::new(),
        trouble: None,
    }
}

/// What the database knows of the events of a batch.
#[derive(Debug, Default)]
struct Books {
    settled: HashMap<Uuid, inbox::Settled>,
    invoices: HashMap<Uuid, invoices::Standing>,
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
    let ids = sorted(&mut events().filter_map(Known::invoice_id));
    Ok(Books {
        settled: inbox::settled(connection, &keys).await?,
        invoices: invoices::standing(connection, &ids).await?,
    })
}

fn count(report: &mut Report, line: &Item) {
    let tally = report.tally.get_or_insert_default();
    report.total += 1;
    match (line.outcome.as_str(), line.effect.as_deref()) {
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

fn keep(problems: &mut Vec<Problem>, line: &Item) {
    if problems.len() < super::PROBLEMS {
        problems.push(Problem::from(line.clone()));
    }
}
