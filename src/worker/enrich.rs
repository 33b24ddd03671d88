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
    Tools, Trouble,
    apply::Item,
    patience::patiently,
    settle::{Doomed, Failed},
};
use crate::{
    adapter::Adapter,
    broker::Parcel,
    config::Enrichment,
    domain::{Change, Envelope, Failure, Reference, SourceName},
    metrics::Metrics,
    store::{StoreError, inbox, references},
};

pub use enricher::Enricher;
use enricher::{Got, Resource};

/// What came of fetching what an event names, as the metric tells it.
const RESULTS: [&str; 6] =
    ["fetched", "mapped_nothing", "unmappable", "refused", "failed", "put_off"];

/// What came of a batch's thin events.
#[derive(Default)]
pub(super) struct Enriched {
    /// Ready to be applied, each with its message as it came.
    pub(super) items: Vec<Item>,
    pub(super) parcels: Vec<Parcel>,
    /// What was fetched cannot be applied.
    pub(super) doomed: Vec<Doomed>,
    /// Could not be fetched this time.
    pub(super) failed: Vec<Failed>,
    /// Were not asked for.
    pub(super) put_off: Vec<Failed>,
    /// How long nothing is asked for.
    pub(super) denied: Option<Duration>,
}

/// The enrichers of every source that has one.
///
/// # Errors
/// What the HTTP client says.
pub fn enrichers(
    settings: &BTreeMap<SourceName, Enrichment>,
    metrics: &Metrics,
) -> anyhow::Result<BTreeMap<SourceName, Enricher>> {
    let make = |(source, settings): (&SourceName, &Enrichment)| {
        Ok((source.clone(), Enricher::new(source, settings, metrics)?))
    };
    settings.iter().map(make).collect()
}

/// Fetches what the events of a batch name, where their source asks for it.
///
/// # Errors
/// [`Trouble::Database`]: it could not be told which events are new.
pub(super) async fn batch(
    tools: &Tools,
    source: &SourceName,
    items: Vec<Item>,
    parcels: Vec<Parcel>,
) -> Result<Enriched, Trouble> {
    let untouched = |items, parcels| Ok(Enriched { items, parcels, ..Enriched::default() });
    let (Some(enricher), Some(adapter)) = (tools.enrichers.get(source), tools.sources.get(source))
    else {
        return untouched(items, parcels);
    };
    let wanted = |item: &Item| reference(item).is_some_and(|named| enricher.wants(named));
    let thin: Vec<&Item> = items.iter().filter(|item| wanted(item)).collect();
    if thin.is_empty() {
        return untouched(items, parcels);
    }
    let vain = vain(tools, source, &thin).await?;
    let gone = gone(&items);
    let wishes: Vec<Option<Resource>> = items
        .iter()
        .map(|item| {
            let asked = wanted(item) && !vain.contains(&item.envelope.receipt_id);
            let (resource, named) = (resource(item)?, reference(item)?);
            let alive = gone.get(&resource).is_none_or(|at| *at < named.changed_at);
            (asked && alive).then_some(resource)
        })
        .collect();
    let resources: HashSet<&Resource> = wishes.iter().flatten().collect();
    let fetched: HashMap<&Resource, Got> = join_all(
        resources.into_iter().map(async |resource| (resource, enricher.get(resource).await)),
    )
    .await
    .into_iter()
    .collect();

    let mut sorted = Enriched::default();
    for ((item, parcel), wish) in items.into_iter().zip(parcels).zip(&wishes) {
        let got = wish.as_ref().and_then(|resource| fetched.get(resource));
        let result = sorted.take(adapter, item, parcel, got);
        if let Some(result) = result {
            tools.metrics.enrichments.with_label_values(&[source.as_str(), result]).inc();
        }
    }
    Ok(sorted)
}

impl Enriched {
    /// Puts a message where it belongs; the result, for the metric, if it was
    /// to be enriched.
    fn take(
        &mut self,
        adapter: &Adapter,
        item: Item,
        parcel: Parcel,
        got: Option<&Got>,
    ) -> Option<&'static str> {
        let Some(got) = got else {
            self.keep(item, parcel);
            return None;
        };
        Some(match got {
            Got::Whole(body) => match full_record(adapter, &item, body) {
                Ok(Some(change)) => {
                    self.keep(item.with(change), parcel);
                    "fetched"
                }
                Ok(None) => {
                    self.keep(item, parcel);
                    "mapped_nothing"
                }
                Err(failure) => {
                    self.doom(&item, parcel, failure);
                    "unmappable"
                }
            },
            Got::Never(failure) => {
                self.doom(&item, parcel, failure.clone());
                "refused"
            }
            Got::Refused(error) => {
                self.failed.push(failed(item, parcel, error.clone()));
                "refused"
            }
            Got::Failed(error) => {
                self.failed.push(failed(item, parcel, error.clone()));
                "failed"
            }
            Got::Denied(wait) => {
                self.denied = Some(self.denied.map_or(*wait, |longest| longest.max(*wait)));
                let error = "not fetched: the platform did not answer others, and is left alone";
                self.put_off.push(failed(item, parcel, error.to_owned()));
                "put_off"
            }
        })
    }

    fn keep(&mut self, item: Item, parcel: Parcel) {
        self.items.push(item);
        self.parcels.push(parcel);
    }

    fn doom(&mut self, item: &Item, parcel: Parcel, failure: Failure) {
        let business_key = item.business_key().map(str::to_owned);
        self.doomed.push(Doomed { parcel, business_key, failure });
    }
}

fn failed(item: Item, parcel: Parcel, error: String) -> Failed {
    let business_key = item.business_key().map(str::to_owned);
    Failed { envelope: item.envelope, parcel, business_key, error }
}

fn full_record(adapter: &Adapter, item: &Item, body: &[u8]) -> Result<Option<Change>, Failure> {
    match reference(item) {
        Some(named) => adapter.map_resource(named, &item.envelope, body),
        None => Ok(None),
    }
}

/// What a thin event names.
fn reference(item: &Item) -> Option<&Reference> {
    item.changes.iter().find_map(|change| match change {
        Change::Reference(reference) => Some(reference.as_ref()),
        _ => None,
    })
}

fn resource(item: &Item) -> Option<Resource> {
    let Reference { kind, id, .. } = reference(item)?;
    let tenant = item.envelope.tenant.clone();
    Some(Resource { tenant, kind: kind.clone(), id: id.clone() })
}

/// What the batch itself tells to be gone, and since when.
fn gone(items: &[Item]) -> HashMap<Resource, OffsetDateTime> {
    let mut gone = HashMap::new();
    for item in items {
        let named = reference(item).filter(|named| named.is_gone());
        if let Some((named, resource)) = named.zip(resource(item)) {
            let since = gone.entry(resource).or_insert(named.changed_at);
            *since = named.changed_at.max(*since);
        }
    }
    gone
}

/// The messages for which nothing need be fetched: a duplicate changes
/// nothing, whatever it names, and what is older than a reference on record
/// is stale; it may name what is gone by now.
async fn vain(
    tools: &Tools,
    source: &SourceName,
    thin: &[&Item],
) -> Result<HashSet<Uuid>, Trouble> {
    let hold = Duration::from_millis(tools.settings.hold_ms);
    let vain = patiently(hold, || look_up(tools, source, thin)).await?;
    Ok(vain.unwrap_or_else(|error| {
        // What is known is fetched in vain; the claim decides.
        warn!(%error, "it cannot be told which events are new");
        HashSet::new()
    }))
}

async fn look_up(
    tools: &Tools,
    source: &SourceName,
    thin: &[&Item],
) -> Result<HashSet<Uuid>, StoreError> {
    let keys: Vec<Uuid> = thin.iter().map(|item| item.envelope.key.inbox_id()).collect();
    let rows: Vec<references::Row<'_>> = thin
        .iter()
        .filter_map(|item| {
            let Envelope { receipt_id, tenant, .. } = &item.envelope;
            let reference = reference(item)?;
            Some(references::Row { receipt_id: *receipt_id, tenant, reference })
        })
        .collect();
    tools
        .store
        .in_time(async {
            let mut connection = tools.store.connection().await?;
            let mut vain = references::outdated(&mut connection, source, &rows).await?;
            let settled = inbox::settled(&mut connection, &keys).await?;
            let settled = thin.iter().zip(&keys).filter(|(_, key)| settled.contains_key(key));
            vain.extend(settled.map(|(item, _)| item.envelope.receipt_id));
            Ok(vain)
        })
        .await
}
