//! `--check`: applies the file in one transaction that is rolled back.
//!
//! The worker's own `apply` writes the lines, and the report is read from the
//! tables inside the transaction, with the queries that report a real import.
//! So the check reports what the import would report.
//!
//! Until it ends, the transaction locks the event keys and the invoices of the
//! file. A worker that needs one of them waits, for at most [`TIME_LIMIT`]. If a
//! worker holds one of them for longer than [`LOCK_TIMEOUT`], the check fails.

mod failed_line;
mod lines;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use time::OffsetDateTime;
use tokio::sync::{Mutex, mpsc};
use uuid::Uuid;

use super::{
    ImportJob, ImportResult, MAX_PROBLEMS,
    api::{ImportTiming, ItemOutcome, OutcomeCounts},
    report::{EndReason, ImportReport, ItemProblem},
    report_file::ReportFile,
};
use crate::{
    app::Components,
    config::Config,
    domain::{ImportProgress, ImportState, Outcome},
    store::{
        Conn, ErrorClass, Store, StoreError, Tx,
        bisect::bisect,
        imports::{self, Import, ImportItemRow, ItemPage},
        receipts,
    },
    worker::{
        apply::{self, ApplyResult, Outbox},
        message::Message,
        source_consumer::permanent_failure,
    },
};
use failed_line::FailedLine;
use lines::{LineParser, ParsedLine};

/// How long a statement waits for a row that a worker holds. Shorter than
/// PostgreSQL's `deadlock_timeout`, so that a deadlock ends the check and not
/// the worker's transaction.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// How long the transaction of a check may stay open: workers wait for its
/// locks, and PostgreSQL cannot vacuum what it may still read.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Items per query while the report is read.
const PAGE_SIZE: i64 = 1000;

const REFUSED: &str = "the database refused the check";

/// # Errors
/// The file cannot be opened, the database refuses the transaction, or the
/// transaction takes longer than [`TIME_LIMIT`].
pub(super) async fn run(
    job: &ImportJob<'_>,
    config: &Config,
    components: &Components,
    file: Option<ReportFile>,
) -> anyhow::Result<ImportResult> {
    let progress = ImportProgress {
        import_id: Uuid::now_v7(),
        source: job.source.clone(),
        name: job.input.name(),
        state: ImportState::Received,
        items: 0,
        error: None,
        started_at: OffsetDateTime::now_utc(),
        received_at: None,
    };
    let mut batches = parse_in_background(job, config, components, &progress);
    // Standard input may take long. Nothing is locked before it has ended.
    let batch = batches.recv().await.transpose()?;

    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut tx = store.begin().await.context("the database cannot be reached")?;
    let outbox = components.outbox();
    let mut dry_run = DryRun { job, outbox, progress };
    let check = dry_run.check(&mut tx, batch, batches, file);
    let Some(result) = within(TIME_LIMIT, check).await else {
        // Dropping the transaction closes its connection, which rolls back.
        bail!(time_limit_error(TIME_LIMIT, dry_run.progress.items));
    };
    let result = result?;
    tx.rollback().await.context(REFUSED)?;
    store.close().await;
    Ok(result)
}

/// The result of `work`, or none if it takes longer than `limit`.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

fn time_limit_error(limit: Duration, checked: u64) -> String {
    format!(
        "the check was stopped after {} seconds, with {checked} lines checked: its locks must not \
         stop the workers for longer. Nothing was changed. Check a smaller file",
        limit.as_secs()
    )
}

/// Says what an error of the database means for the check.
fn explain(error: StoreError) -> anyhow::Error {
    let is_contention = error.class() == ErrorClass::Contention;
    anyhow::Error::new(error).context(if is_contention {
        "a worker holds an event key or an invoice of the file, or the database is busy; nothing \
         was changed. Try again later"
    } else {
        REFUSED
    })
}

/// Parses the file on a thread of its own: one that waits for standard input
/// must not keep the process from ending.
fn parse_in_background(
    job: &ImportJob<'_>,
    config: &Config,
    components: &Components,
    progress: &ImportProgress,
) -> mpsc::Receiver<anyhow::Result<Vec<ParsedLine>>> {
    let (sender, batches) = mpsc::channel(2);
    let (input, limit) = (job.input.clone(), config.receiver.body_limit_bytes);
    let sources = Arc::clone(&components.sources);
    let (source_name, format, headers) = (job.source.clone(), job.format, job.credentials.clone());
    let (import_id, started_at) = (progress.import_id, progress.started_at);
    std::thread::spawn(move || {
        if let Some(source) = sources.get(&source_name) {
            let parser = LineParser { source_name, source, format, headers, import_id, started_at };
            parser.parse(&input, limit, &sender);
        }
    });
    batches
}

/// An import inside a transaction that will be rolled back.
struct DryRun<'a> {
    job: &'a ImportJob<'a>,
    outbox: Outbox,
    progress: ImportProgress,
}

impl DryRun<'_> {
    /// Applies the whole file and reads the report.
    async fn check(
        &mut self,
        tx: &mut Tx,
        mut batch: Option<Vec<ParsedLine>>,
        mut batches: mpsc::Receiver<anyhow::Result<Vec<ParsedLine>>>,
        file: Option<ReportFile>,
    ) -> anyhow::Result<ImportResult> {
        tx.set_lock_timeout(LOCK_TIMEOUT).await.map_err(explain)?;
        // If the process dies, PostgreSQL still ends a statement that runs.
        tx.set_statement_timeout(TIME_LIMIT).await.map_err(explain)?;
        while let Some(lines) = batch {
            self.apply(tx, lines).await.map_err(explain)?;
            batch = batches.recv().await.transpose()?;
        }
        let import = self.finish(tx).await?;
        let import_id = import.import_id;
        let report = ImportReport {
            rejections: problems(tx, import_id, Outcome::Rejected).await.map_err(explain)?,
            dead_letters: problems(tx, import_id, Outcome::Dead).await.map_err(explain)?,
            retries: problems(tx, import_id, Outcome::Retried).await.map_err(explain)?,
            ..report(&import, self.progress.clone())
        };
        let written = match file {
            None => Ok(false),
            Some(file) => write_file(tx, import_id, &report, file).await.map(|()| true),
        };
        Ok(ImportResult {
            report,
            has_report_file: matches!(written, Ok(true)),
            report_error: written.err(),
        })
    }

    /// Applies some lines and records their outcomes.
    async fn apply(&mut self, tx: &mut Tx, lines: Vec<ParsedLine>) -> Result<(), StoreError> {
        let source = self.job.import_source;
        let (mut messages, mut rejected, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            match line {
                ParsedLine::Event(envelope) => match source.map(&envelope) {
                    Ok(mapped) => messages.push(Message::from_envelope(*envelope, mapped)),
                    Err(failure) => {
                        let business_key = source.business_key(&envelope);
                        let error = failure.to_string();
                        let outcome = Outcome::Dead;
                        failed.push(FailedLine {
                            envelope: *envelope,
                            business_key,
                            outcome,
                            error,
                        });
                    }
                },
                ParsedLine::Rejected(request) => rejected.push(request),
                ParsedLine::Unreadable(error) => {
                    self.progress.state = ImportState::Interrupted;
                    self.progress.error = Some(error);
                }
            }
        }
        let items = (messages.len() + rejected.len() + failed.len()) as u64;
        failed.extend(self.apply_messages(tx, &messages).await?);
        let rows: Vec<_> = failed.iter().map(FailedLine::receipt).collect();
        if !rows.is_empty() {
            receipts::record(tx, &rows).await?;
        }
        if !rejected.is_empty() {
            receipts::record_rejected(tx, &rejected.iter().collect::<Vec<_>>()).await?;
        }
        self.progress.items += items;
        Ok(())
    }

    /// Applies messages as the worker does: all together, or in halves where
    /// the database refuses a row. Returns those that would fail.
    async fn apply_messages(
        &self,
        tx: &mut Tx,
        messages: &[Message],
    ) -> Result<Vec<FailedLine>, StoreError> {
        let Self { job, outbox, .. } = self;
        let policy = job.import_source.conflict_policy();
        // `bisect` runs one part after another, so this lock never waits. With an `AsyncFnMut`,
        // which could borrow the transaction, the compiler no longer sees that the futures of
        // the workers are `Send`.
        let tx = Mutex::new(tx);
        let parts = bisect(messages, |part| {
            let tx = &tx;
            async move {
                let apply = async |conn: &mut Conn| {
                    apply::apply_in_transaction(conn, job.source, policy, outbox, part).await
                };
                match tx.lock().await.savepoint(apply).await {
                    // The classes that the worker counts against a single message.
                    Err(error)
                        if matches!(
                            error.class(),
                            ErrorClass::InvalidData | ErrorClass::Unknown
                        ) =>
                    {
                        Ok(Err(error))
                    }
                    result => result.map(Ok),
                }
            }
        })
        .await?;
        let mut failed = Vec::new();
        for (part, applied) in parts {
            match applied {
                Ok(results) => {
                    for (message, result) in part.iter().zip(results) {
                        if let ApplyResult::Conflict(failure) = result {
                            failed.push(FailedLine::dead(message, &failure));
                        }
                    }
                }
                // Only a single message fails.
                Err(error) => failed.extend(part.iter().map(|message| {
                    permanent_failure(&error).map_or_else(
                        || FailedLine::retried(message, &error),
                        |failure| FailedLine::dead(message, &failure),
                    )
                })),
            }
        }
        Ok(failed)
    }

    /// Records the end of the file, and returns the import as it stands.
    async fn finish(&mut self, conn: &mut Conn) -> anyhow::Result<Import> {
        self.progress.received_at = Some(OffsetDateTime::now_utc());
        imports::upsert_progress(conn, &[&self.progress]).await.map_err(explain)?;
        let import = imports::find(conn, self.progress.import_id).await.map_err(explain)?;
        import.context("the import is not on record")
    }
}

fn report(import: &Import, progress: ImportProgress) -> ImportReport {
    let count = |count: i64| u64::try_from(count).unwrap_or_default();
    ImportReport {
        ended: EndReason::Checked,
        source: import.source.clone(),
        name: import.name.clone(),
        import_id: None,
        state: progress.state,
        error: progress.error,
        total: count(import.total),
        waiting: count(import.waiting()),
        rejected: count(import.rejected),
        past_retention: 0,
        counts: Some(OutcomeCounts {
            created: count(import.created),
            updated: count(import.updated),
            duplicate: count(import.duplicate),
            stale: count(import.stale),
            ignored: count(import.ignored),
            dead: count(import.dead),
        }),
        // One transaction for the whole file says nothing about an import.
        timing: ImportTiming::default(),
        rejections: Vec::new(),
        dead_letters: Vec::new(),
        retries: Vec::new(),
        status_error: None,
    }
}

/// The first items with an outcome.
async fn problems(
    conn: &mut Conn,
    import_id: Uuid,
    outcome: Outcome,
) -> Result<Vec<ItemProblem>, StoreError> {
    let page = ItemPage {
        outcome: Some(outcome.as_str().to_owned()),
        after: (-1, Uuid::nil()),
        limit: i64::try_from(MAX_PROBLEMS).unwrap_or(i64::MAX),
    };
    let rows = imports::list_items(conn, import_id, &page).await?;
    Ok(rows.into_iter().map(|row| ItemProblem::from(item_outcome(row))).collect())
}

async fn write_file(
    conn: &mut Conn,
    import_id: Uuid,
    report: &ImportReport,
    mut file: ReportFile,
) -> anyhow::Result<()> {
    let mut page = ItemPage { outcome: None, after: (-1, Uuid::nil()), limit: PAGE_SIZE };
    loop {
        let rows = imports::list_items(conn, import_id, &page).await?;
        let Some(last) = rows.last() else { break };
        page.after = (last.line, last.receipt_id);
        for row in rows {
            file.add_item(&item_outcome(row))?;
        }
    }
    file.finish(report)
}

/// A row as the receiver's API would report it. Its receipt does not outlive
/// the transaction and is left out.
fn item_outcome(row: ImportItemRow) -> ItemOutcome {
    ItemOutcome {
        line: u32::try_from(row.line).unwrap_or(u32::MAX),
        outcome: row.outcome,
        write_kind: row.write_kind,
        business_key: row.business_key,
        error: row.error,
        receipt_id: None,
        attempts: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn check_over_time_limit_names_checked_lines() {
        assert_eq!(within(TIME_LIMIT, async { 7 }).await, Some(7));
        assert_eq!(within(Duration::ZERO, std::future::pending::<()>()).await, None);
        let error = time_limit_error(TIME_LIMIT, 3000);
        assert!(error.contains("after 60 seconds, with 3000 lines checked"), "{error}");
        assert!(error.contains("Check a smaller file"), "{error}");
    }
}
