//! One lane: a consumer of one source's queue, batch after batch.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span, warn};
use uuid::Uuid;

use super::{
    Tools, Trouble,
    appetite::Appetite,
    apply::{self, Effect, Item},
    collect::{self, Batch},
    enrich::{self, Enriched},
    patience::patiently,
    settle::{self, Doomed, Failed},
};
use crate::{
    adapter::Adapter,
    broker::{Delivery, Link, Parcel, Subscription},
    domain::{Change, Envelope, Failure, Mapped, Outcome, Reason, SourceName},
    store::{Fault, StoreError},
};

/// While a platform is left alone, the longest pause between two batches: long
/// enough that what was put off does not run in circles, and short enough for
/// what needs nothing fetched.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A consumer of one source's queue.
pub struct Lane {
    tools: Tools,
    source: SourceName,
    subscription: Subscription,
    appetite: Appetite,
    batch_size: usize,
}

/// What a transaction made of one message, or why it takes it never.
type Verdict = Result<Effect, StoreError>;

/// A batch after its messages were opened.
#[derive(Default)]
struct Opened {
    /// Ready to be applied, each with its message as it came.
    items: Vec<Item>,
    parcels: Vec<Parcel>,
    /// Not to be understood.
    doomed: Vec<Doomed>,
}

impl Lane {
    /// Subscribes to the source's queue.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn open(tools: Tools, source: SourceName, link: &Link) -> Result<Self, Trouble> {
        let queue = tools.topology.inbound_queue(&source);
        let most = tools.enrichers.get(&source).map_or(usize::MAX, enrich::Enricher::batch_size);
        let batch_size = tools.settings.batch_size.min(most);
        let appetite = Appetite::new(batch_size);
        let subscription = Subscription::open(link, &queue, appetite.prefetch()).await?;
        Ok(Self { tools, source, subscription, appetite, batch_size })
    }

    /// Works until stopped; the batch in hand is finished first.
    ///
    /// # Errors
    /// [`Trouble`]; whatever was not acknowledged is delivered again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Trouble> {
        let result = self.work(&stop).await;
        // Hands back what is unsettled.
        self.subscription.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect() => batch?,
            };
            let span = debug_span!("batch", source = %self.source, last = batch.last);
            if let Some(denied) = self.settle(batch).instrument(span).await? {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(denied.min(LONGEST_PAUSE)) => {}
                }
            }
        }
    }

    /// One batch: collected, processed, acknowledged. For tests, which step.
    ///
    /// # Errors
    /// [`Trouble`], as [`Lane::run`].
    pub async fn step(&mut self) -> Result<usize, Trouble> {
        let batch = self.collect().await?;
        let size = batch.deliveries.len();
        self.settle(batch).await?;
        Ok(size)
    }

    async fn settle(&self, batch: Batch) -> Result<Option<Duration>, Trouble> {
        let last = batch.last;
        let denied = self.process(batch).await?;
        self.subscription.ack_through(last).await?;
        Ok(denied)
    }

    /// Waits for a batch.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn collect(&mut self) -> Result<Batch, Trouble> {
        let settings = &self.tools.settings;
        let wait = Duration::from_millis(settings.batch_wait_ms);
        let batch = collect::batch(&mut self.subscription, self.batch_size, wait).await?;
        if let Some(prefetch) = self.appetite.learn(batch.deliveries.len(), batch.bytes) {
            debug!(source = %self.source, prefetch, "asking for another number of messages");
            self.subscription.limit(prefetch).await?;
        }
        Ok(batch)
    }

    /// Settles every message of a batch: when this comes back, all of it may
    /// be acknowledged. Tells how long nothing is fetched, if messages were put
    /// off for that.
    ///
    /// # Errors
    /// [`Trouble`]: nothing may be acknowledged. What was committed already is
    /// known by its receipts when it comes again.
    pub async fn process(&self, batch: Batch) -> Result<Option<Duration>, Trouble> {
        let begun = Instant::now();
        let Opened { items, parcels, mut doomed } = self.open_batch(batch.deliveries);
        let enriched = enrich::batch(&self.tools, &self.source, items, parcels).await?;
        let Enriched { items, parcels, doomed: unmappable, mut failed, put_off, denied } = enriched;
        doomed.extend(unmappable);
        let (items, parcels, verdicts) = self.apply_in_turns(items, parcels).await?;
        let mut recorded = Vec::new();
        for ((item, parcel), verdict) in items.into_iter().zip(parcels).zip(verdicts) {
            let business_key = item.business_key().map(str::to_owned);
            match verdict {
                Ok(effect @ (Effect::Recorded(_) | Effect::Repeated | Effect::Known)) => {
                    let receipt_id = item.envelope.receipt_id;
                    debug!(%receipt_id, ?effect, "settled");
                    let received_at = item.envelope.received_at;
                    self.note_secret(&item.envelope);
                    recorded.extend(effect.outcome().map(|outcome| (outcome, received_at)));
                }
                Ok(Effect::Conflict(failure)) => {
                    doomed.push(Doomed { parcel, business_key, failure });
                }
                Err(error) => match never(&error) {
                    Some(failure) => doomed.push(Doomed { parcel, business_key, failure }),
                    None => failed.push(Failed {
                        envelope: item.envelope,
                        parcel,
                        business_key,
                        error: error.to_string(),
                    }),
                },
            }
        }
        self.measure(&recorded, begun);
        // Retries and dead letters first: acknowledging covers every tag.
        settle::retry_or_bury(&self.tools, &self.source, failed).await?;
        settle::put_off(&self.tools, &self.source, put_off).await?;
        settle::bury(&self.tools, doomed).await?;
        Ok(denied)
    }

    /// Reads envelopes and maps them.
    fn open_batch(&self, batch: Vec<Delivery>) -> Opened {
        let now = OffsetDateTime::now_utc();
        let mut opened = Opened::default();
        let mut seen: HashMap<Uuid, usize> = HashMap::with_capacity(batch.len());
        for delivery in batch {
            let parcel = delivery.parcel;
            let envelope = match parcel.envelope(&self.source, now) {
                Ok(envelope) => envelope,
                Err(failure) => {
                    opened.doomed.push(Doomed { parcel, business_key: None, failure });
                    continue;
                }
            };
            // Without an adapter there would be no lane.
            let Some(adapter) = self.tools.sources.get(&self.source) else {
                continue;
            };
            let mapped = match adapter.map(&envelope) {
                Ok(mapped) => mapped,
                Err(failure) => {
                    let business_key = adapter.number(&envelope);
                    opened.doomed.push(Doomed { parcel, business_key, failure });
                    continue;
                }
            };
            let deletion = match &mapped {
                Mapped::Change(Change::Reference(reference)) => adapter.deletion(reference),
                _ => None,
            };
            let ready = |envelope| {
                let item = Item::new(envelope, mapped);
                match deletion {
                    Some(change) => item.with(change),
                    None => item,
                }
            };
            // At-least-once dead-lettering may deliver one message twice. It
            // is one message: the first copy stands for both.
            match seen.entry(envelope.receipt_id) {
                Entry::Occupied(first)
                    if opened.items[*first.get()].envelope.key == envelope.key =>
                {
                    let first = *first.get();
                    // The copy that a replay sent resolves its letter.
                    if envelope.replay.is_some() {
                        opened.items[first] = ready(envelope);
                        opened.parcels[first] = parcel;
                    }
                }
                Entry::Occupied(_) => {
                    // Another producer used one receipt for two messages. The
                    // second gets one of its own, the same each time it comes.
                    let key = envelope.key.as_str().as_bytes();
                    let receipt_id = Uuid::new_v5(&envelope.receipt_id, key);
                    warn!(used_twice = %envelope.receipt_id, %receipt_id, "given another receipt");
                    let envelope = Envelope { receipt_id, ..envelope };
                    opened.items.push(ready(envelope));
                    opened.parcels.push(parcel);
                }
                Entry::Vacant(place) => {
                    place.insert(opened.items.len());
                    opened.items.push(ready(envelope));
                    opened.parcels.push(parcel);
                }
            }
        }
        opened
    }

    /// Applies first what no other lane has in hand, then the rest. Gives the
    /// items back in that order, each with what was made of it.
    async fn apply_in_turns(
        &self,
        items: Vec<Item>,
        parcels: Vec<Parcel>,
    ) -> Result<(Vec<Item>, Vec<Parcel>, Vec<Verdict>), Trouble> {
        let (taken, free) = self.tools.in_hand.take(&self.source, &items);
        let pairs = items.into_iter().zip(parcels).zip(free);
        let (now, later): (Vec<_>, Vec<_>) = pairs.partition(|(_, free)| *free);
        let turn = now.len();
        let (items, parcels): (Vec<Item>, Vec<Parcel>) =
            now.into_iter().chain(later).map(|(pair, _)| pair).unzip();
        let mut verdicts = self.apply(&items[..turn]).await?;
        drop(taken);
        // Whoever still has some of these in hand is waited for.
        let (_taken, _) = self.tools.in_hand.take(&self.source, &items[turn..]);
        verdicts.extend(self.apply(&items[turn..]).await?);
        Ok((items, parcels, verdicts))
    }

    /// Applies items in as few transactions as possible: all in one; where a
    /// row is refused, in halves, until the poison stands alone.
    async fn apply(&self, items: &[Item]) -> Result<Vec<Verdict>, Trouble> {
        let mut verdicts = Vec::with_capacity(items.len());
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let Some(rules) = self.tools.sources.get(&self.source).map(Adapter::rules) else {
                // Without an adapter there would be no lane.
                return Ok(verdicts);
            };
            let applied = patiently(self.hold(), || {
                let Tools { store, outbox, .. } = &self.tools;
                apply::batch(store, &self.source, rules, outbox, part)
            })
            .await?;
            match applied {
                Ok(effects) => {
                    self.tell_committed(part);
                    verdicts.extend(effects.into_iter().map(Ok));
                }
                Err(error) if part.len() == 1 => verdicts.push(Err(error)),
                Err(error) => {
                    debug!(%error, size = part.len(), "the batch is split");
                    let (first, second) = part.split_at(part.len() / 2);
                    // The first half is taken next: verdicts stay in order.
                    parts.push(second);
                    parts.push(first);
                }
            }
        }
        Ok(verdicts)
    }

    fn tell_committed(&self, items: &[Item]) {
        if let Some(committed) = &self.tools.committed {
            let receipts = items.iter().map(|item| item.envelope.receipt_id).collect();
            // Whoever wanted to know may have heard enough.
            drop(committed.send((Instant::now(), receipts)));
        }
    }

    /// Only what the configuration names: another producer may write anything
    /// into a header.
    fn note_secret(&self, envelope: &Envelope) {
        let Tools { sources, store, secret_uses, .. } = &self.tools;
        let secret = envelope.secret.as_deref().filter(|_| envelope.over_http);
        let known = |label: &&str| {
            let adapter = sources.get(&self.source);
            adapter.is_some_and(|adapter| adapter.secret_labels().any(|known| known == *label))
        };
        if let Some(secret) = secret.filter(known) {
            secret_uses.note(store, &self.source, secret, envelope.received_at);
        }
    }

    fn hold(&self) -> Duration {
        Duration::from_millis(self.tools.settings.hold_ms)
    }

    fn measure(&self, recorded: &[(Outcome, OffsetDateTime)], begun: Instant) {
        let metrics = &self.tools.metrics;
        if recorded.is_empty() {
            return;
        }
        metrics.batch_size.observe(f64::from(u32::try_from(recorded.len()).unwrap_or(u32::MAX)));
        metrics.batch_seconds.observe(begun.elapsed().as_secs_f64());
        let now = OffsetDateTime::now_utc();
        let lag = metrics.lag_seconds.with_label_values(&[self.source.as_str()]);
        for (_, received_at) in recorded {
            lag.observe((now - *received_at).as_seconds_f64().max(0.0));
        }
        metrics.count_outcomes(&self.source, recorded.iter().map(|(outcome, _)| *outcome));
    }
}

/// Whether the database will never take the row, and why.
fn never(error: &StoreError) -> Option<Failure> {
    if error.fault() != Fault::Data {
        return None;
    }
    let integrity = error.sqlstate().is_some_and(|code| code.starts_with("23"));
    let reason = if integrity { Reason::ConstraintViolation } else { Reason::InvalidValue };
    Some(Failure {
        reason,
        field: error.constraint().unwrap_or_default().to_owned(),
        detail: error.to_string(),
    })
}
