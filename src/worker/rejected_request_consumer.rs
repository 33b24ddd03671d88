//! Records rejected requests and the progress of imports.
//!
//! Requests that may be authentic under a corrected secret go to `quarantine`,
//! other rejected requests and lines to `receipts`, progress to `imports`.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::{ConsumerError, WorkerContext, consume::BatchHandler};
use crate::{
    broker::{BatchLimits, Delivery, IncomingMessage},
    domain::{ImportProgress, ImportState, Outcome, RejectedRequest, SourceName},
    sources::Source,
    store::{
        Conn, StoreError, bisect::bisect, imports, quarantine, receipts,
        retry::retry_while_unavailable,
    },
};

pub(super) const LIMITS: BatchLimits =
    BatchLimits { max_messages: 100, max_wait: Duration::from_millis(20) };

/// A message of the queue.
#[derive(Clone, Debug)]
enum LogEntry {
    /// A rejected request, or a rejected line of an import.
    RejectedRequest(RejectedRequest),
    /// The progress of an import.
    ImportProgress(ImportProgress),
}

impl LogEntry {
    /// Decodes any message: one that is not import progress is recorded as a
    /// request with its bytes.
    fn decode(message: &IncomingMessage, now: OffsetDateTime) -> Self {
        match message.import_progress() {
            Some(progress) => Self::ImportProgress(progress),
            None => Self::RejectedRequest(message.rejected_request(now)),
        }
    }

    /// The receipt id or the import id.
    fn id(&self) -> Uuid {
        match self {
            Self::RejectedRequest(request) => request.receipt_id,
            Self::ImportProgress(progress) => progress.import_id,
        }
    }

    fn rejected_request(&self) -> Option<&RejectedRequest> {
        match self {
            Self::RejectedRequest(request) => Some(request),
            Self::ImportProgress(_) => None,
        }
    }

    fn import_progress(&self) -> Option<&ImportProgress> {
        match self {
            Self::ImportProgress(progress) => Some(progress),
            Self::RejectedRequest(_) => None,
        }
    }

    /// The same without any text that PostgreSQL may have refused.
    fn without_foreign_text(&self, refused: &StoreError) -> Self {
        match self {
            Self::RejectedRequest(request) => {
                Self::RejectedRequest(redacted_request(request, refused))
            }
            Self::ImportProgress(progress) => {
                Self::ImportProgress(redacted_progress(progress, refused))
            }
        }
    }
}

/// Records the batches of the queue of rejected requests.
pub(super) struct RejectedRequestConsumer {
    pub(super) context: WorkerContext,
}

impl BatchHandler for RejectedRequestConsumer {
    async fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Duration, ConsumerError> {
        let entries: Vec<LogEntry> =
            deliveries.iter().map(|delivery| LogEntry::decode(&delivery.message, now)).collect();
        self.record(&entries).await?;
        Ok(Duration::ZERO)
    }
}

impl RejectedRequestConsumer {
    /// Stores entries. One that PostgreSQL refuses is stored without the text
    /// that its sender wrote.
    async fn record(&self, entries: &[LogEntry]) -> Result<(), ConsumerError> {
        let timeout = self.context.database_retry_timeout();
        let parts =
            bisect(entries, |part| retry_while_unavailable(timeout, move || self.store(part)))
                .await?;
        for (part, result) in parts {
            match (part, result) {
                (part, Ok(())) => self.count(part),
                ([entry], Err(error)) => {
                    warn!(id = %entry.id(), %error, "a rejected request is recorded in part");
                    let plain = [entry.without_foreign_text(&error)];
                    let stored = retry_while_unavailable(timeout, || self.store(&plain)).await?;
                    match (stored, entry) {
                        (Ok(()), _) => self.count(&plain),
                        (Err(error), LogEntry::RejectedRequest(_)) => return Err(error.into()),
                        // The items of the import have receipts of their own.
                        (Err(error), LogEntry::ImportProgress(progress)) => {
                            let import_id = progress.import_id;
                            error!(%import_id, %error, "the progress of an import is dropped");
                        }
                    }
                }
                // Only a single entry fails.
                (_, Err(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn store(&self, entries: &[LogEntry]) -> Result<(), StoreError> {
        let sources = &self.context.sources;
        self.context.store.transaction(async |tx| write(tx, sources, entries).await).await
    }

    fn count(&self, entries: &[LogEntry]) {
        let requests = entries.iter().filter_map(LogEntry::rejected_request);
        for request in requests.filter(|request| request.request_head.is_none()) {
            let RejectedRequest { receipt_id, source, .. } = request;
            debug!(%receipt_id, %source, "the rejected request is recorded");
            // Only configured sources become labels: a producer may use any
            // routing key.
            let is_known = self.context.sources.contains_key(source);
            let source = if is_known { source.clone() } else { SourceName::unknown() };
            self.context.metrics.record_outcomes(&source, std::iter::once(Outcome::Rejected));
        }
    }
}

async fn write(
    conn: &mut Conn,
    sources: &BTreeMap<SourceName, Source>,
    entries: &[LogEntry],
) -> Result<(), StoreError> {
    let requests = || entries.iter().filter_map(LogEntry::rejected_request);
    let for_receipts: Vec<&RejectedRequest> =
        requests().filter(|request| request.request_head.is_none()).collect();
    if !for_receipts.is_empty() {
        receipts::record_rejected(conn, &for_receipts).await?;
    }
    // The limit may have been set to 0 after the receiver published these.
    let limit = |source: &SourceName| sources.get(source).map_or(0, Source::quarantine_limit);
    let for_quarantine: Vec<_> = requests()
        .filter_map(|request| Some((request, request.request_head.as_ref()?)))
        .filter(|(request, _)| limit(&request.source) > 0)
        .collect();
    if !for_quarantine.is_empty() {
        let limits: BTreeMap<&SourceName, u32> = for_quarantine
            .iter()
            .map(|(request, _)| (&request.source, limit(&request.source)))
            .collect();
        let limits: Vec<_> =
            limits.into_iter().map(|(source, limit)| (source.clone(), limit)).collect();
        quarantine::insert(conn, &for_quarantine, &limits).await?;
    }
    let progress: Vec<&ImportProgress> =
        entries.iter().filter_map(LogEntry::import_progress).collect();
    if !progress.is_empty() {
        imports::upsert_progress(conn, &progress).await?;
    }
    Ok(())
}

fn redacted_request(request: &RejectedRequest, refused: &StoreError) -> RejectedRequest {
    let mut request = request.clone();
    request.tenant.clear();
    request.error = format!("not all of the request could be stored ({refused})");
    if let Some(head) = &mut request.request_head {
        head.headers = json!([]);
        head.query.clear();
    }
    request
}

fn redacted_progress(progress: &ImportProgress, refused: &StoreError) -> ImportProgress {
    let is_interrupted = progress.state == ImportState::Interrupted;
    ImportProgress {
        name: None,
        error: is_interrupted
            .then(|| format!("the cause of the interruption could not be stored ({refused})")),
        ..progress.clone()
    }
}
