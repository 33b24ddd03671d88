//! Fetches the documents that thin events refer to, before the transaction of
//! their batch begins.
//!
//! A failed fetch is a failed attempt of each message that needs it. While the
//! circuit breaker is open nothing is fetched and no attempt is counted: such
//! messages are deferred to the longest retry queue, and the rest of the batch
//! is processed. Requeued instead, they would bring back the whole batch each
//! time, and RabbitMQ would dead-letter it at the delivery limit.

mod enricher;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{
    ConsumerError, WorkerContext,
    message::{Disposition, Message},
};
use crate::{
    domain::{Change, Envelope, PermanentFailure, ResourceChange, SourceName},
    observability::metrics::Metrics,
    sources::Source,
    store::{StoreError, inbox, resource_changes, retry::retry_while_unavailable},
};

pub use enricher::{Enricher, EnricherSettings};
use enricher::{FetchOutcome, Resource};

/// The values of the label `result` of `tallyhook_enrichments_total`.
const ENRICHMENT_RESULTS: [&str; 6] =
    ["fetched", "mapped_nothing", "unmappable", "blocked", "failed", "deferred"];

/// A batch after its documents were fetched.
#[derive(Debug, Default)]
pub(super) struct EnrichedBatch {
    /// Ready to be applied.
    pub(super) messages: Vec<Message>,
    /// Their document could not be fetched or mapped.
    pub(super) not_enriched: Vec<(Message, Disposition)>,
}

/// The enrichers of every source that has one.
///
/// # Errors
/// The HTTP client cannot be built.
pub fn enrichers(
    settings: &BTreeMap<SourceName, EnricherSettings>,
    metrics: &Metrics,
) -> anyhow::Result<BTreeMap<SourceName, Enricher>> {
    let mut enrichers = BTreeMap::new();
    for (source, settings) in settings {
        enrichers.insert(source.clone(), Enricher::new(source, settings, metrics)?);
    }
    Ok(enrichers)
}

/// Fetches the documents that the events of a batch refer to, if their source
/// has an enricher.
///
/// # Errors
/// [`ConsumerError::Database`]: unknown which events are new.
pub(super) async fn enrich_batch(
    context: &WorkerContext,
    name: &SourceName,
    messages: Vec<Message>,
) -> Result<EnrichedBatch, ConsumerError> {
    let mut batch = EnrichedBatch::default();
    let (Some(enricher), Some(source)) = (context.enrichers.get(name), context.sources.get(name))
    else {
        batch.messages = messages;
        return Ok(batch);
    };
    let is_thin =
        |message: &Message| resource_change(message).is_some_and(|change| enricher.handles(change));
    let thin: Vec<&Message> = messages.iter().filter(|message| is_thin(message)).collect();
    if thin.is_empty() {
        batch.messages = messages;
        return Ok(batch);
    }
    let skippable = skippable(context, name, &thin).await?;
    let deleted = deleted_in_batch(&messages);
    let needed: Vec<Option<Resource>> = messages
        .iter()
        .map(|message| {
            let is_needed = is_thin(message) && !skippable.contains(&message.envelope.receipt_id);
            let (resource, change) = (resource_of(message)?, resource_change(message)?);
            let exists = deleted.get(&resource).is_none_or(|at| *at < change.changed_at);
            (is_needed && exists).then_some(resource)
        })
        .collect();
    let resources: HashSet<&Resource> = needed.iter().flatten().collect();
    let fetched: HashMap<&Resource, FetchOutcome> = join_all(
        resources.into_iter().map(async |resource| (resource, enricher.fetch(resource).await)),
    )
    .await
    .into_iter()
    .collect();

    for (message, resource) in messages.into_iter().zip(&needed) {
        let Some(outcome) = resource.as_ref().and_then(|resource| fetched.get(resource)) else {
            batch.messages.push(message);
            continue;
        };
        let result = batch.classify(source, message, outcome);
        context.metrics.enrichments.with_label_values(&[name.as_str(), result]).inc();
    }
    Ok(batch)
}

impl EnrichedBatch {
    /// Adds a message by the outcome of its fetch. Returns the metric's label.
    fn classify(
        &mut self,
        source: &Source,
        message: Message,
        outcome: &FetchOutcome,
    ) -> &'static str {
        let (disposition, result) = match outcome {
            FetchOutcome::Fetched(body) => match fetched_change(source, &message, body) {
                Ok(Some(change)) => {
                    self.messages.push(message.with_change(change));
                    return "fetched";
                }
                Ok(None) => {
                    self.messages.push(message);
                    return "mapped_nothing";
                }
                Err(failure) => (Disposition::DeadLetter(failure), "unmappable"),
            },
            FetchOutcome::Permanent(failure) => {
                (Disposition::DeadLetter(failure.clone()), "blocked")
            }
            FetchOutcome::Blocked(error) => {
                (Disposition::Retry { error: error.clone() }, "blocked")
            }
            FetchOutcome::Failed(error) => (Disposition::Retry { error: error.clone() }, "failed"),
            FetchOutcome::CircuitOpen(retry_after) => {
                let error = "not fetched: the circuit breaker of the platform is open".to_owned();
                (Disposition::Defer { error, retry_after: *retry_after }, "deferred")
            }
        };
        self.not_enriched.push((message, disposition));
        result
    }
}

fn fetched_change(
    source: &Source,
    message: &Message,
    body: &[u8],
) -> Result<Option<Change>, PermanentFailure> {
    match resource_change(message) {
        Some(change) => source.map_resource(change, &message.envelope, body),
        None => Ok(None),
    }
}

/// What a thin event refers to.
fn resource_change(message: &Message) -> Option<&ResourceChange> {
    message.changes.iter().find_map(|change| match change {
        Change::ResourceChanged(change) => Some(change.as_ref()),
        _ => None,
    })
}

fn resource_of(message: &Message) -> Option<Resource> {
    let ResourceChange { kind, id, .. } = resource_change(message)?;
    let tenant = message.envelope.tenant.clone();
    Some(Resource { tenant, kind: kind.clone(), id: id.clone() })
}

/// The resources that events of this batch delete, with the latest time.
fn deleted_in_batch(messages: &[Message]) -> HashMap<Resource, OffsetDateTime> {
    let mut deleted = HashMap::new();
    for message in messages {
        let change = resource_change(message).filter(|change| change.is_deletion());
        if let Some((change, resource)) = change.zip(resource_of(message)) {
            let deleted_at = deleted.entry(resource).or_insert(change.changed_at);
            *deleted_at = change.changed_at.max(*deleted_at);
        }
    }
    deleted
}

/// The receipts of messages that need no fetch: a duplicate changes nothing,
/// and an event older than the last recorded one is stale. Its resource may
/// not exist any more.
async fn skippable(
    context: &WorkerContext,
    source: &SourceName,
    thin: &[&Message],
) -> Result<HashSet<Uuid>, ConsumerError> {
    let timeout: Duration = context.database_retry_timeout();
    let found = retry_while_unavailable(timeout, || find_skippable(context, source, thin)).await?;
    Ok(found.unwrap_or_else(|error| {
        // Some documents are fetched without need; the inbox decides.
        warn!(%error, "duplicate and stale events could not be looked up");
        HashSet::new()
    }))
}

async fn find_skippable(
    context: &WorkerContext,
    source: &SourceName,
    thin: &[&Message],
) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<Uuid> = thin.iter().map(|message| message.envelope.key.inbox_id()).collect();
    let rows: Vec<resource_changes::ResourceChangeRow<'_>> = thin
        .iter()
        .filter_map(|message| {
            let Envelope { receipt_id, tenant, .. } = &message.envelope;
            let change = resource_change(message)?;
            let receipt_id = *receipt_id;
            Some(resource_changes::ResourceChangeRow { receipt_id, tenant, change })
        })
        .collect();
    context
        .store
        .with_connection(async |conn| {
            let mut skippable = resource_changes::superseded(conn, source, &rows).await?;
            let processed = inbox::lookup(conn, &keys).await?;
            for (message, key) in thin.iter().zip(&keys) {
                if processed.contains_key(key) {
                    skippable.insert(message.envelope.receipt_id);
                }
            }
            Ok(skippable)
        })
        .await
}
