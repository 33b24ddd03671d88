//! Dead letters: list, show, export, replay, discard.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Actor, OperatorBroker, Selected, Selection, text_or_base64};
use crate::{
    broker::{Confirmed, IncomingMessage, OutgoingMessage, PublishError, StoredIdentity},
    domain::{Envelope, EventKey, SourceName},
    store::{
        Store, StoreError,
        audit_log::{self, AuditEntry},
        dead_letters::{self, DeadLetterContents, DeadLetterFilter, DeadLetterSummary},
        deliveries, replays,
    },
};

/// Dead letters that are read at once while a selection is made.
const PAGE_SIZE: u32 = 500;

/// The dead letters that an action is applied to.
pub type SelectedDeadLetters = Selected<DeadLetterFilter, DeadLetterSummary>;

/// Why an action on dead letters failed.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// A database error.
    #[error("the dead letters cannot be read or written")]
    Store(#[from] StoreError),
    /// No dead letter has this id.
    #[error("there is no dead letter {0}")]
    NotFound(Uuid),
    /// The operator named it, and the selection did not find it.
    #[error(
        "dead letter {0} does not exist or does not meet the conditions (--state is open by default)"
    )]
    NotSelected(Uuid),
    /// It was closed after it was selected.
    #[error("dead letter {0} is {1} by now")]
    AlreadyClosed(Uuid, String),
    /// No source can have this name, so it has no queue.
    #[error("dead letter {0} came in under a name that no source can have; discard it instead")]
    NoSourceQueue(Uuid),
    /// The broker did not confirm it. The dead letter has not changed.
    #[error("dead letter {id} was not published")]
    PublishFailed {
        /// The dead letter.
        id: Uuid,
        /// The cause.
        #[source]
        source: PublishError,
    },
    /// The export cannot be written.
    #[error("the export cannot be written")]
    Export(#[from] std::io::Error),
}

/// A dead letter with everything on record about it.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterDetail {
    /// The columns of the list.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// When the message was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// The AMQP properties and headers.
    pub headers: Value,
    /// The payload as text, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// What operators did to it, oldest first.
    pub history: Vec<AuditEntry>,
}

/// Lists at most `limit` dead letters, the one that failed first at the top.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn list(
    store: &Store,
    filter: &DeadLetterFilter,
    limit: u32,
) -> Result<Vec<DeadLetterSummary>, ReviewError> {
    let mut connection = store.connection().await?;
    Ok(dead_letters::list(&mut connection, filter, None, limit).await?)
}

/// Reads the dead letters of a selection. What arrives later is not part of them.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn select(
    store: &Store,
    selection: Selection<DeadLetterFilter>,
) -> Result<SelectedDeadLetters, ReviewError> {
    let rows = select_all(store, selection.filter()).await?;
    Ok(Selected::new(selection, rows))
}

async fn select_all(
    store: &Store,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetterSummary>, ReviewError> {
    let mut connection = store.connection().await?;
    let mut rows: Vec<DeadLetterSummary> = Vec::new();
    loop {
        let after = rows.last().map(|row| row.dead_letter_id);
        let page = dead_letters::list(&mut connection, filter, after, PAGE_SIZE).await?;
        let is_last = page.len() < PAGE_SIZE as usize;
        rows.extend(page);
        if is_last {
            return Ok(rows);
        }
    }
}

/// Reads a dead letter with everything on record about it.
///
/// # Errors
/// [`ReviewError::NotFound`], [`ReviewError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<DeadLetterDetail, ReviewError> {
    let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
    let mut connection = store.connection().await?;
    let summary = dead_letters::list(&mut connection, &filter, None, 1)
        .await?
        .pop()
        .ok_or(ReviewError::NotFound(id))?;
    let contents =
        dead_letters::contents(&mut connection, id).await?.ok_or(ReviewError::NotFound(id))?;
    let history = audit_log::list_for_dead_letter(&mut connection, id).await?;
    let (payload, payload_base64) = text_or_base64(contents.payload);
    Ok(DeadLetterDetail {
        summary,
        received_at: contents.received_at,
        headers: contents.headers,
        payload,
        payload_base64,
        history,
    })
}

/// Writes dead letters as JSON lines, with payload and history, and returns how many.
///
/// # Errors
/// [`ReviewError::Export`], [`ReviewError::Store`].
pub async fn export(
    store: &Store,
    filter: &DeadLetterFilter,
    mut out: impl Write,
) -> Result<usize, ReviewError> {
    let rows = select_all(store, filter).await?;
    for row in &rows {
        let detail = show(store, row.dead_letter_id).await?;
        serde_json::to_writer(&mut out, &detail).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(rows.len())
}

/// Discards those of the selected dead letters that are still open, and returns how many were. The
/// delivery of a discarded dead letter is voided.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn discard(
    store: &Store,
    selected: &SelectedDeadLetters,
    actor: Actor<'_>,
) -> Result<u64, ReviewError> {
    let ids: Vec<Uuid> = selected.rows().iter().map(|row| row.dead_letter_id).collect();
    Ok(store.transaction(async |tx| dead_letters::discard(tx, &ids, actor).await).await?)
}

/// The result of a replay run.
#[derive(Debug)]
pub struct ReplayReport {
    /// The id of the run. Every message that it published carries it.
    pub replay_id: Uuid,
    /// How many dead letters were sent again.
    pub sent: usize,
    /// Why others were not; those have not changed.
    pub failures: Vec<ReviewError>,
}

/// Sends the selected dead letters again, in a replay run of their own. Ids that the operator named
/// and that were not selected are failures.
///
/// A message is published with its event key; if the event was processed meanwhile, the replay has
/// no effect. It is marked as replayed after the broker's confirm, and resolved by the worker that
/// processes it. A failed delivery is retried with its idempotency key, and its dead letter is
/// resolved when the destination has it.
///
/// # Errors
/// [`ReviewError::Store`] if the run cannot be recorded. Then nothing was sent.
pub async fn replay(
    store: &Store,
    broker: &OperatorBroker,
    selected: &SelectedDeadLetters,
    actor: Actor<'_>,
) -> Result<ReplayReport, ReviewError> {
    let run = Replay::begin(store, broker, actor, selected.filter(), selected.len()).await?;
    let missing = selected.missing_ids().into_iter().map(ReviewError::NotSelected);
    let mut report = ReplayReport { replay_id: run.id, sent: 0, failures: missing.collect() };
    for row in selected.rows() {
        match run.send(row).await {
            Ok(()) => report.sent += 1,
            Err(error) => report.failures.push(error),
        }
    }
    Ok(report)
}

/// A replay run.
struct Replay<'a> {
    id: Uuid,
    store: &'a Store,
    broker: &'a OperatorBroker,
    actor: Actor<'a>,
}

impl<'a> Replay<'a> {
    async fn begin(
        store: &'a Store,
        broker: &'a OperatorBroker,
        actor: Actor<'a>,
        filter: &DeadLetterFilter,
        letter_count: usize,
    ) -> Result<Self, ReviewError> {
        let replay_id = Uuid::now_v7();
        let mut connection = store.connection().await?;
        // A filter consists of strings: serializing it cannot fail.
        let filter = serde_json::to_value(filter).unwrap_or_else(|_| json!({}));
        replays::insert(&mut connection, replay_id, actor, &filter, letter_count).await?;
        Ok(Self { id: replay_id, store, broker, actor })
    }

    async fn send(&self, row: &DeadLetterSummary) -> Result<(), ReviewError> {
        let id = row.dead_letter_id;
        let contents = self.contents(id).await?;
        // It may have been closed since it was selected.
        if !matches!(contents.state.as_str(), "open" | "replayed") {
            return Err(ReviewError::AlreadyClosed(id, contents.state));
        }
        if let Some(delivery_id) = row.delivery_id {
            return self.retry_delivery(id, delivery_id).await;
        }
        self.publish(row, contents).await?;
        self.store
            .transaction(async |tx| dead_letters::mark_replayed(tx, id, self.id, self.actor).await)
            .await?;
        Ok(())
    }

    async fn contents(&self, id: Uuid) -> Result<DeadLetterContents, ReviewError> {
        let mut connection = self.store.connection().await?;
        dead_letters::contents(&mut connection, id).await?.ok_or(ReviewError::NotFound(id))
    }

    async fn retry_delivery(&self, id: Uuid, delivery_id: Uuid) -> Result<(), ReviewError> {
        let retry = self.store.transaction(async |tx| {
            deliveries::retry(tx, &[delivery_id], self.id, self.actor).await
        });
        if retry.await?.is_empty() {
            // The delivery is not failed any more: another operator retried or voided it.
            return Err(ReviewError::AlreadyClosed(id, self.contents(id).await?.state));
        }
        Ok(())
    }

    async fn publish(
        &self,
        row: &DeadLetterSummary,
        contents: DeadLetterContents,
    ) -> Result<(), ReviewError> {
        let id = row.dead_letter_id;
        let source: SourceName = row
            .source
            .parse()
            .ok()
            .filter(|source| *source != SourceName::unknown())
            .ok_or(ReviewError::NoSourceQueue(id))?;
        let identity = StoredIdentity {
            receipt_id: row.receipt_id,
            key: EventKey::from_message_id(&source, &row.tenant, &row.event_key),
            source,
            tenant: row.tenant.clone(),
            topic: row.topic.clone(),
            received_at: contents.received_at,
        };
        let stored = IncomingMessage::from_json(&contents.headers, contents.payload);
        let envelope = Envelope {
            // An operator's replay has all attempts again.
            failed_attempts: 0,
            replay_id: Some(self.id),
            // The secret was used when the message was received.
            secret_label: None,
            ..stored.lenient_envelope(identity)
        };
        let message = OutgoingMessage::inbound(&self.broker.topology, &envelope);
        let _durable: Confirmed = self
            .broker
            .publisher
            .publish(message)
            .await
            .map_err(|source| ReviewError::PublishFailed { id, source })?;
        Ok(())
    }
}
