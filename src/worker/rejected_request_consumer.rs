//! The call log: reads refused calls, rejected lines and notes about imports,
//! and writes them down: calls to be kept for a mended secret into
//! `quarantine`, all others into `receipts`, notes into `imports`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{ConsumerError, WorkerContext, batch};
use crate::{
    broker::{BrokerConnection, Consumer, IncomingMessage},
    domain::{ImportProgress, ImportState, Outcome, RejectedRequest, SourceName},
    sources::Source,
    store::{Conn, StoreError, imports, quarantine, receipts, retry::retry_while_unavailable},
};

/// Entries in one transaction.
const BATCH_SIZE: usize = 100;
/// How long a batch may wait to fill.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// What a message of the queue says.
#[derive(Clone, Debug)]
enum LogEntry {
    /// A call, or a line of an import, was refused.
    RejectedRequest(RejectedRequest),
    /// How far an import has come.
    ImportProgress(ImportProgress),
}

impl LogEntry {
    /// Whatever a message says: one that cannot be read as a note is on
    /// record as a call, with its bytes.
    fn decode(parcel: &IncomingMessage, now: OffsetDateTime) -> Self {
        parcel.import_progress().map_or_else(
            || Self::RejectedRequest(parcel.rejected_request(now)),
            Self::ImportProgress,
        )
    }

    /// What it is about, for the log.
    fn id(&self) -> Uuid {
        match self {
            Self::RejectedRequest(call) => call.receipt_id,
            Self::ImportProgress(note) => note.import_id,
        }
    }

    /// The same with nothing but what we wrote ourselves.
    fn without_foreign_text(&self, refused: &StoreError) -> Self {
        match self {
            Self::RejectedRequest(call) => Self::RejectedRequest(redacted_request(call, refused)),
            Self::ImportProgress(note) => Self::ImportProgress(redacted_progress(note, refused)),
        }
    }
}

/// Reads the queue of refused calls.
pub(super) struct RejectedRequestConsumer {
    context: WorkerContext,
    consumer: Consumer,
}

impl RejectedRequestConsumer {
    pub(super) async fn open(
        tools: WorkerContext,
        link: &BrokerConnection,
    ) -> Result<Self, ConsumerError> {
        let prefetch = u16::try_from(2 * BATCH_SIZE).unwrap_or(u16::MAX);
        let subscription =
            Consumer::open(link, &tools.topology.rejected_request_queue(), prefetch).await?;
        Ok(Self { context: tools, consumer: subscription })
    }

    /// Works until stopped; the batch in hand is finished first.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), ConsumerError> {
        let result = self.work(&stop).await;
        self.consumer.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), ConsumerError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = batch::collect(&mut self.consumer, BATCH_SIZE, BATCH_WAIT) => batch?,
            };
            let now = OffsetDateTime::now_utc();
            let entries: Vec<LogEntry> = batch
                .deliveries
                .iter()
                .map(|delivery| LogEntry::decode(&delivery.message, now))
                .collect();
            self.record(&entries).await?;
            self.consumer.ack_up_to(batch.last_tag).await?;
        }
    }

    /// Writes entries down, in halves where one is refused. One that is
    /// refused alone is written without what strangers wrote into it: nothing
    /// may keep the others from being recorded.
    async fn record(&self, entries: &[LogEntry]) -> Result<(), ConsumerError> {
        let hold = Duration::from_millis(self.context.settings.database_retry_timeout_ms);
        let mut parts = vec![entries];
        while let Some(part) = parts.pop() {
            match (retry_while_unavailable(hold, || self.write(part)).await?, part) {
                (Ok(()), _) => self.count(part),
                (Err(error), [entry]) => {
                    warn!(receipt_id = %entry.id(), %error, "a call is logged in part");
                    let plain = [entry.without_foreign_text(&error)];
                    match (retry_while_unavailable(hold, || self.write(&plain)).await?, entry) {
                        (Ok(()), _) => self.count(&plain),
                        (Err(error), LogEntry::RejectedRequest(_)) => {
                            return Err(ConsumerError::Database(error));
                        }
                        // Its import shows less than it could, and every item
                        // has its own receipt all the same.
                        (Err(error), LogEntry::ImportProgress(note)) => {
                            error!(import_id = %note.import_id, %error, "a note is dropped");
                        }
                    }
                }
                (Err(_), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    async fn write(&self, entries: &[LogEntry]) -> Result<(), StoreError> {
        let store = &self.context.store;
        let written = store.with_timeout(async {
            let mut tx = store.begin().await?;
            write(&mut tx, &self.context.sources, entries).await?;
            tx.commit().await
        });
        written.await
    }

    fn count(&self, entries: &[LogEntry]) {
        for call in
            entries.iter().filter_map(rejected_request).filter(|call| call.request_head.is_none())
        {
            debug!(receipt_id = %call.receipt_id, source = %call.source, "refused; on record");
            // A stranger's routing key must not become a label.
            let known = self.context.sources.contains_key(&call.source);
            let source = if known { call.source.clone() } else { SourceName::unknown() };
            self.context.metrics.record_outcomes(&source, std::iter::once(Outcome::Rejected));
        }
    }
}

/// The refused call, if the entry is one.
fn rejected_request(entry: &LogEntry) -> Option<&RejectedRequest> {
    match entry {
        LogEntry::RejectedRequest(call) => Some(call),
        LogEntry::ImportProgress(_) => None,
    }
}

async fn write(
    conn: &mut Conn,
    sources: &BTreeMap<SourceName, Source>,
    entries: &[LogEntry],
) -> Result<(), StoreError> {
    let calls = || entries.iter().filter_map(rejected_request);
    let rejected: Vec<&RejectedRequest> =
        calls().filter(|call| call.request_head.is_none()).collect();
    if !rejected.is_empty() {
        receipts::record_rejected(conn, &rejected).await?;
    }
    // A source that was told to keep none since then keeps none of these; what
    // it kept before is for a person to release or to discard.
    let limit = |source: &SourceName| sources.get(source).map_or(0, Source::quarantine_limit);
    let forged: Vec<_> = calls()
        .filter_map(|call| Some((call, call.request_head.as_ref()?)))
        .filter(|(call, _)| limit(&call.source) > 0)
        .collect();
    if !forged.is_empty() {
        let limits: BTreeMap<&SourceName, u32> =
            forged.iter().map(|(call, _)| (&call.source, limit(&call.source))).collect();
        let limits: Vec<_> =
            limits.into_iter().map(|(source, most)| (source.clone(), most)).collect();
        quarantine::insert(conn, &forged, &limits).await?;
    }
    let notes: Vec<&ImportProgress> = entries
        .iter()
        .filter_map(|entry| match entry {
            LogEntry::ImportProgress(note) => Some(note),
            LogEntry::RejectedRequest(_) => None,
        })
        .collect();
    if !notes.is_empty() {
        imports::upsert_progress(conn, &notes).await?;
    }
    Ok(())
}

fn redacted_request(call: &RejectedRequest, refused: &StoreError) -> RejectedRequest {
    let mut call = call.clone();
    call.tenant.clear();
    call.error = format!("not all of the call could be stored ({refused})");
    if let Some(head) = &mut call.request_head {
        head.headers = json!([]);
        head.query.clear();
    }
    call
}

fn redacted_progress(note: &ImportProgress, refused: &StoreError) -> ImportProgress {
    let broke_off = note.state == ImportState::Interrupted;
    ImportProgress {
        name: None,
        error: broke_off.then(|| format!("why it broke off could not be stored ({refused})")),
        ..note.clone()
    }
}
