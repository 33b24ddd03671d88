//! Enrichment: what a thin event only names is fetched, before the batch's
//! transaction begins, and applied as a full record besides the reference.
//!
//! A fetch that fails is an attempt of each message that asked for it, and
//! walks the retry tiers. While the breaker is open nothing is fetched and no
//! attempt is counted: such messages are put off, which means that they go
//! round by the longest retry queue, and the rest of their batch is settled
//! without them. Handed back to their own queue instead, they would bring
//! each time the whole batch with them, and after so many deliveries the
//! broker would bury it.

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
    apply::Message,
    retry_or_dead_letter::{FailedAttempt, Unprocessable},
};
use crate::{
    broker::IncomingMessage,
    config::EnrichmentSettings,
    domain::{Change, Envelope, PermanentFailure, ResourceChange, SourceName},
    observability::metrics::Metrics,
    sources::Source,
    store::{StoreError, inbox, resource_changes, retry::retry_while_unavailable},
};

pub use enricher::Enricher;
use enricher::{FetchOutcome, Resource};

/// What came of fetching what an event names, as the metric tells it.
const ENRICHMENT_RESULTS: [&str; 6] =
    ["fetched", "mapped_nothing", "unmappable", "refused", "failed", "put_off"];

/// What came of a batch's thin events.
#[derive(Default)]
pub(super) struct EnrichedBatch {
    /// Ready to be applied, each with its message as it came.
    pub(super) items: Vec<Message>,
    pub(super) parcels: Vec<IncomingMessage>,
    /// What was fetched cannot be applied.
    pub(super) doomed: Vec<Unprocessable>,
    /// Could not be fetched this time.
    pub(super) failed: Vec<FailedAttempt>,
    /// Were not asked for.
    pub(super) deferred: Vec<FailedAttempt>,
    /// How long nothing is asked for.
    pub(super) retry_after: Option<Duration>,
}

/// The enrichers of every source that has one.
///
/// # Errors
/// What the HTTP client says.
pub fn enrichers(
    settings: &BTreeMap<SourceName, EnrichmentSettings>,
    metrics: &Metrics,
) -> anyhow::Result<BTreeMap<SourceName, Enricher>> {
    let make = |(source, settings): (&SourceName, &EnrichmentSettings)| {
        Ok((source.clone(), Enricher::new(source, settings, metrics)?))
    };
    settings.iter().map(make).collect()
}

/// Fetches what the events of a batch name, where their source asks for it.
///
/// # Errors
/// [`Trouble::DatabaseConfig`]: it could not be told which events are new.
pub(super) async fn enrich_batch(
    tools: &WorkerContext,
    source: &SourceName,
    items: Vec<Message>,
    parcels: Vec<IncomingMessage>,
) -> Result<EnrichedBatch, ConsumerError> {
    let untouched =
        |items, parcels| Ok(EnrichedBatch { items, parcels, ..EnrichedBatch::default() });
    let (Some(enricher), Some(adapter)) = (tools.enrichers.get(source), tools.sources.get(source))
    else {
        return untouched(items, parcels);
    };
    let wanted = |item: &Message| reference(item).is_some_and(|named| enricher.handles(named));
    let thin: Vec<&Message> = items.iter().filter(|item| wanted(item)).collect();
    if thin.is_empty() {
        return untouched(items, parcels);
    }
    let vain = skippable(tools, source, &thin).await?;
    let gone = deleted_in_batch(&items);
    let wishes: Vec<Option<Resource>> = items
        .iter()
        .map(|item| {
            let asked = wanted(item) && !vain.contains(&item.envelope.receipt_id);
            let (resource, named) = (resource_of(item)?, reference(item)?);
            let alive = gone.get(&resource).is_none_or(|at| *at < named.changed_at);
            (asked && alive).then_some(resource)
        })
        .collect();
    let resources: HashSet<&Resource> = wishes.iter().flatten().collect();
    let fetched: HashMap<&Resource, FetchOutcome> = join_all(
        resources.into_iter().map(async |resource| (resource, enricher.fetch(resource).await)),
    )
    .await
    .into_iter()
    .collect();

    let mut sorted = EnrichedBatch::default();
    for ((item, parcel), wish) in items.into_iter().zip(parcels).zip(&wishes) {
        let got = wish.as_ref().and_then(|resource| fetched.get(resource));
        let result = sorted.classify(adapter, item, parcel, got);
        if let Some(result) = result {
            tools.metrics.enrichments.with_label_values(&[source.as_str(), result]).inc();
        }
    }
    Ok(sorted)
}

impl EnrichedBatch {
    /// Puts a message where it belongs; the result, for the metric, if it was
    /// to be enriched.
    fn classify(
        &mut self,
        adapter: &Source,
        item: Message,
        parcel: IncomingMessage,
        got: Option<&FetchOutcome>,
    ) -> Option<&'static str> {
        let Some(got) = got else {
            self.pass_through(item, parcel);
            return None;
        };
        Some(match got {
            FetchOutcome::Fetched(body) => match full_record(adapter, &item, body) {
                Ok(Some(change)) => {
                    self.pass_through(item.with_change(change), parcel);
                    "fetched"
                }
                Ok(None) => {
                    self.pass_through(item, parcel);
                    "mapped_nothing"
                }
                Err(failure) => {
                    self.reject(&item, parcel, failure);
                    "unmappable"
                }
            },
            FetchOutcome::Permanent(failure) => {
                self.reject(&item, parcel, failure.clone());
                "refused"
            }
            FetchOutcome::Blocked(error) => {
                self.failed.push(failed_attempt(item, parcel, error.clone()));
                "refused"
            }
            FetchOutcome::Failed(error) => {
                self.failed.push(failed_attempt(item, parcel, error.clone()));
                "failed"
            }
            FetchOutcome::CircuitOpen(wait) => {
                self.retry_after =
                    Some(self.retry_after.map_or(*wait, |longest| longest.max(*wait)));
                let error = "not fetched: the platform did not answer others, and is left alone";
                self.deferred.push(failed_attempt(item, parcel, error.to_owned()));
                "put_off"
            }
        })
    }

    fn pass_through(&mut self, item: Message, parcel: IncomingMessage) {
        self.items.push(item);
        self.parcels.push(parcel);
    }

    fn reject(&mut self, item: &Message, parcel: IncomingMessage, failure: PermanentFailure) {
        let business_key = item.business_key().map(str::to_owned);
        self.doomed.push(Unprocessable { incoming: parcel, business_key, failure });
    }
}

fn failed_attempt(item: Message, parcel: IncomingMessage, error: String) -> FailedAttempt {
    let business_key = item.business_key().map(str::to_owned);
    FailedAttempt { envelope: item.envelope, incoming: parcel, business_key, error }
}

fn full_record(
    adapter: &Source,
    item: &Message,
    body: &[u8],
) -> Result<Option<Change>, PermanentFailure> {
    match reference(item) {
        Some(named) => adapter.map_resource(named, &item.envelope, body),
        None => Ok(None),
    }
}

/// What a thin event names.
fn reference(item: &Message) -> Option<&ResourceChange> {
    item.changes.iter().find_map(|change| match change {
        Change::ResourceChanged(reference) => Some(reference.as_ref()),
        _ => None,
    })
}

fn resource_of(item: &Message) -> Option<Resource> {
    let ResourceChange { kind, id, .. } = reference(item)?;
    let tenant = item.envelope.tenant.clone();
    Some(Resource { tenant, kind: kind.clone(), id: id.clone() })
}

/// What the batch itself tells to be gone, and since when.
fn deleted_in_batch(items: &[Message]) -> HashMap<Resource, OffsetDateTime> {
    let mut gone = HashMap::new();
    for item in items {
        let named = reference(item).filter(|named| named.is_deletion());
        if let Some((named, resource)) = named.zip(resource_of(item)) {
            let since = gone.entry(resource).or_insert(named.changed_at);
            *since = named.changed_at.max(*since);
        }
    }
    gone
}

/// The messages for which nothing need be fetched: a duplicate changes
/// nothing, whatever it names, and what is older than a reference on record
/// is stale; it may name what is gone by now.
async fn skippable(
    tools: &WorkerContext,
    source: &SourceName,
    thin: &[&Message],
) -> Result<HashSet<Uuid>, ConsumerError> {
    let hold = Duration::from_millis(tools.settings.database_retry_timeout_ms);
    let vain = retry_while_unavailable(hold, || find_skippable(tools, source, thin)).await?;
    Ok(vain.unwrap_or_else(|error| {
        // What is known is fetched in vain; the claim decides.
        warn!(%error, "it cannot be told which events are new");
        HashSet::new()
    }))
}

async fn find_skippable(
    tools: &WorkerContext,
    source: &SourceName,
    thin: &[&Message],
) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<Uuid> = thin.iter().map(|item| item.envelope.key.inbox_id()).collect();
    let rows: Vec<resource_changes::ResourceChangeRow<'_>> = thin
        .iter()
        .filter_map(|item| {
            let Envelope { receipt_id, tenant, .. } = &item.envelope;
            let reference = reference(item)?;
            Some(resource_changes::ResourceChangeRow { receipt_id: *receipt_id, tenant, reference })
        })
        .collect();
    tools
        .store
        .with_timeout(async {
            let mut connection = tools.store.connection().await?;
            let mut vain = resource_changes::superseded(&mut connection, source, &rows).await?;
            let settled = inbox::lookup(&mut connection, &keys).await?;
            let settled = thin.iter().zip(&keys).filter(|(_, key)| settled.contains_key(key));
            vain.extend(settled.map(|(item, _)| item.envelope.receipt_id));
            Ok(vain)
        })
        .await
}
