//! `--check`: applies the file in one transaction that is rolled back.
//!
//! The worker's own `apply` writes the lines, and the report is read from the
//! tables inside the transaction, with the queries that report a real import.
//! So the check reports what the import would report.
//!
//! Until it ends, the transaction locks the event keys and the invoices of the
//! file. A worker that needs one of them waits. If a worker holds one of them
//! for longer than [`LOCK_TIMEOUT`], the check fails.

mod lines;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use time::OffsetDateTime;
use tokio::sync::mpsc;
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
    domain::{Envelope, ImportProgress, ImportState, Outcome, PermanentFailure},
    store::{
        Conn, Store, StoreError, Tx,
        imports::{self, Import, ImportItemRow, ItemPage},
        receipts::{self, ReceiptRow},
    },
    worker::{
        apply::{self, ApplyResult, Outbox},
        message::Message,
        source_consumer::permanent_failure,
    },
};
use lines::{LineParser, ParsedLine};

/// How long a statement waits for a row that a worker holds. Shorter than
/// PostgreSQL's `deadlock_timeout`, so that a deadlock ends the check and not
/// the worker's transaction.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);

/// Items per query while the report is read.
const PAGE_SIZE: i64 = 1000;

/// # Errors
/// The file cannot be opened, or the database refuses the transaction.
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
    let mut batch = batches.recv().await.transpose()?;

    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut tx = store.begin().await.context("the database cannot be reached")?;
    let refused = "the database refused the check";
    tx.set_lock_timeout(LOCK_TIMEOUT).await.context(refused)?;
    let outbox = components.outbox();
    let mut dry_run = DryRun { job, outbox, progress };
    while let Some(lines) = batch {
        dry_run.apply(&mut tx, lines).await.context(refused)?;
        batch = batches.recv().await.transpose()?;
    }
    let import = dry_run.finish(&mut tx).await.context(refused)?;
    let import_id = import.import_id;
    let report = ImportReport {
        rejections: problems(&mut tx, import_id, Outcome::Rejected).await.context(refused)?,
        dead_letters: problems(&mut tx, import_id, Outcome::Dead).await.context(refused)?,
        ..report(&import, dry_run.progress)
    };
    let written = match file {
        None => Ok(false),
        Some(file) => write_file(&mut tx, import_id, &report, file).await.map(|()| true),
    };
    tx.rollback().await.context(refused)?;
    store.close().await;
    Ok(ImportResult {
        report,
        has_report_file: matches!(written, Ok(true)),
        report_error: written.err(),
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
    /// Applies some lines and records their outcomes.
    async fn apply(&mut self, tx: &mut Tx, lines: Vec<ParsedLine>) -> Result<(), StoreError> {
        let source = self.job.import_source;
        let (mut messages, mut rejected, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            match line {
                ParsedLine::Event(envelope) => match source.map(&envelope) {
                    Ok(mapped) => messages.push(Message::from_envelope(*envelope, mapped)),
                    Err(failure) => {
                        let business_key = source.business_key(&envelope);
                        let error = failure.to_string();
                        dead.push(DeadLine { envelope: *envelope, business_key, error });
                    }
                },
                ParsedLine::Rejected(request) => rejected.push(request),
                ParsedLine::Unreadable(error) => {
                    self.progress.state = ImportState::Interrupted;
                    self.progress.error = Some(error);
                }
            }
        }
        self.progress.items += (messages.len() + rejected.len() + dead.len()) as u64;
        dead.extend(self.apply_with_bisection(tx, &messages).await?);
        let rows: Vec<ReceiptRow<'_>> = dead.iter().map(DeadLine::receipt).collect();
        if !rows.is_empty() {
            receipts::record(tx, &rows).await?;
        }
        if !rejected.is_empty() {
            receipts::record_rejected(tx, &rejected.iter().collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Applies messages as the worker does: all together, or in halves where
    /// the database refuses a row. Returns those that would be dead letters.
    async fn apply_with_bisection(
        &self,
        tx: &mut Tx,
        messages: &[Message],
    ) -> Result<Vec<DeadLine>, StoreError> {
        let policy = self.job.import_source.conflict_policy();
        let mut dead = Vec::new();
        let mut parts = vec![messages];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let applied = tx
                .savepoint(async |conn: &mut Conn| {
                    apply::apply_in_transaction(conn, self.job.source, policy, &self.outbox, part)
                        .await
                })
                .await;
            match applied {
                Ok(results) => {
                    for (message, result) in part.iter().zip(results) {
                        if let ApplyResult::Conflict(failure) = result {
                            dead.push(DeadLine::new(message, &failure));
                        }
                    }
                }
                Err(error) => match permanent_failure(&error) {
                    Some(failure) if part.len() == 1 => {
                        dead.push(DeadLine::new(&part[0], &failure));
                    }
                    Some(_) => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                    None => return Err(error),
                },
            }
        }
        Ok(dead)
    }

    /// Records the end of the file, and returns the import as it stands.
    async fn finish(&mut self, conn: &mut Conn) -> anyhow::Result<Import> {
        self.progress.received_at = Some(OffsetDateTime::now_utc());
        imports::upsert_progress(conn, &[&self.progress]).await?;
        let import = imports::find(conn, self.progress.import_id).await?;
        import.context("the import is not on record")
    }
}

/// A line that would become a dead letter.
struct DeadLine {
    envelope: Envelope,
    business_key: Option<String>,
    error: String,
}

impl DeadLine {
    fn new(message: &Message, failure: &PermanentFailure) -> Self {
        let business_key = message.business_key().map(str::to_owned);
        Self { envelope: message.envelope.clone(), business_key, error: failure.to_string() }
    }

    fn receipt(&self) -> ReceiptRow<'_> {
        ReceiptRow {
            envelope: &self.envelope,
            business_key: self.business_key.as_deref(),
            outcome: Outcome::Dead,
            write_kind: None,
            attempts: self.envelope.failed_attempts,
            error: Some(&self.error),
            keep_payload: false,
        }
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
