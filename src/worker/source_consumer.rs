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
    ConsumerError, WorkerContext, apply,
    apply::{ApplyResult, Message},
    batch,
    batch::Batch,
    enrich,
    enrich::EnrichedBatch,
    prefetch::AdaptivePrefetch,
    retry_or_dead_letter,
    retry_or_dead_letter::{FailedAttempt, Unprocessable},
};
use crate::{
    broker::{BrokerConnection, Consumer, Delivery, IncomingMessage},
    domain::{Change, Envelope, MappedEvent, Outcome, PermanentFailure, ReasonCode, SourceName},
    sources::Source,
    store::{ErrorClass, StoreError, retry::retry_while_unavailable},
};

/// While a platform is left alone, the longest pause between two batches: long
/// enough that what was put off does not run in circles, and short enough for
/// what needs nothing fetched.
const MAX_CIRCUIT_OPEN_PAUSE: Duration = Duration::from_secs(10);

/// A consumer of one source's queue.
pub struct SourceConsumer {
    context: WorkerContext,
    source: SourceName,
    consumer: Consumer,
    prefetch: AdaptivePrefetch,
    batch_size: usize,
}

/// What a transaction made of one message, or why it takes it never.
type ApplyOutcome = Result<ApplyResult, StoreError>;

/// A batch after its messages were opened.
#[derive(Default)]
struct DecodedBatch {
    /// Ready to be applied, each with its message as it came.
    items: Vec<Message>,
    parcels: Vec<IncomingMessage>,
    /// Not to be understood.
    unprocessable: Vec<Unprocessable>,
}

impl SourceConsumer {
    /// Subscribes to the source's queue.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn open(
        tools: WorkerContext,
        source: SourceName,
        link: &BrokerConnection,
    ) -> Result<Self, ConsumerError> {
        let queue = tools.topology.inbound_queue(&source);
        let most = tools.enrichers.get(&source).map_or(usize::MAX, enrich::Enricher::batch_size);
        let batch_size = tools.settings.batch_size.min(most);
        let appetite = AdaptivePrefetch::new(batch_size);
        let subscription = Consumer::open(link, &queue, appetite.prefetch()).await?;
        Ok(Self { context: tools, source, consumer: subscription, prefetch: appetite, batch_size })
    }

    /// Works until stopped; the batch in hand is finished first.
    ///
    /// # Errors
    /// [`Trouble`]; whatever was not acknowledged is delivered again.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ConsumerError> {
        let result = self.work(&stop).await;
        // Hands back what is unsettled.
        self.consumer.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), ConsumerError> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = self.collect_batch() => batch?,
            };
            let span = debug_span!("batch", source = %self.source, last = batch.last_tag);
            if let Some(denied) = self.process_and_ack(batch).instrument(span).await? {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(denied.min(MAX_CIRCUIT_OPEN_PAUSE)) => {}
                }
            }
        }
    }

    /// One batch: collected, processed, acknowledged. For tests, which step.
    ///
    /// # Errors
    /// [`Trouble`], as [`Lane::run`].
    pub async fn step(&mut self) -> Result<usize, ConsumerError> {
        let batch = self.collect_batch().await?;
        let size = batch.deliveries.len();
        self.process_and_ack(batch).await?;
        Ok(size)
    }

    async fn process_and_ack(&self, batch: Batch) -> Result<Option<Duration>, ConsumerError> {
        let last = batch.last_tag;
        let denied = self.process(batch).await?;
        self.consumer.ack_up_to(last).await?;
        Ok(denied)
    }

    /// Waits for a batch.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn collect_batch(&mut self) -> Result<Batch, ConsumerError> {
        let settings = &self.context.settings;
        let wait = Duration::from_millis(settings.batch_wait_ms);
        let batch = batch::collect(&mut self.consumer, self.batch_size, wait).await?;
        if let Some(prefetch) = self.prefetch.observe(batch.deliveries.len(), batch.bytes) {
            debug!(source = %self.source, prefetch, "asking for another number of messages");
            self.consumer.set_prefetch(prefetch).await?;
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
    pub async fn process(&self, batch: Batch) -> Result<Option<Duration>, ConsumerError> {
        let begun = Instant::now();
        let DecodedBatch { items, parcels, unprocessable: mut doomed } =
            self.decode_and_map(batch.deliveries);
        let enriched = enrich::enrich_batch(&self.context, &self.source, items, parcels).await?;
        let EnrichedBatch {
            items,
            parcels,
            doomed: unmappable,
            mut failed,
            deferred: put_off,
            retry_after: denied,
        } = enriched;
        doomed.extend(unmappable);
        let (items, parcels, verdicts) = self.apply_conflict_free_first(items, parcels).await?;
        let mut recorded = Vec::new();
        for ((item, parcel), verdict) in items.into_iter().zip(parcels).zip(verdicts) {
            let business_key = item.business_key().map(str::to_owned);
            match verdict {
                Ok(
                    effect @ (ApplyResult::Recorded(_)
                    | ApplyResult::IdenticalDuplicate
                    | ApplyResult::Redelivered),
                ) => {
                    let receipt_id = item.envelope.receipt_id;
                    debug!(%receipt_id, ?effect, "settled");
                    let received_at = item.envelope.received_at;
                    self.record_secret_usage(&item.envelope);
                    recorded.extend(effect.outcome().map(|outcome| (outcome, received_at)));
                }
                Ok(ApplyResult::Conflict(failure)) => {
                    doomed.push(Unprocessable { incoming: parcel, business_key, failure });
                }
                Err(error) => match permanent_failure(&error) {
                    Some(failure) => {
                        doomed.push(Unprocessable { incoming: parcel, business_key, failure })
                    }
                    None => failed.push(FailedAttempt {
                        envelope: item.envelope,
                        incoming: parcel,
                        business_key,
                        error: error.to_string(),
                    }),
                },
            }
        }
        self.observe_batch(&recorded, begun);
        // Retries and dead letters first: acknowledging covers every tag.
        retry_or_dead_letter::retry_or_dead_letter(&self.context, &self.source, failed).await?;
        retry_or_dead_letter::defer(&self.context, &self.source, put_off).await?;
        retry_or_dead_letter::dead_letter(&self.context, doomed).await?;
        Ok(denied)
    }

    /// Reads envelopes and maps them.
    fn decode_and_map(&self, batch: Vec<Delivery>) -> DecodedBatch {
        let now = OffsetDateTime::now_utc();
        let mut opened = DecodedBatch::default();
        let mut seen: HashMap<Uuid, usize> = HashMap::with_capacity(batch.len());
        for delivery in batch {
            let parcel = delivery.message;
            let envelope = match parcel.envelope(&self.source, now) {
                Ok(envelope) => envelope,
                Err(failure) => {
                    opened.unprocessable.push(Unprocessable {
                        incoming: parcel,
                        business_key: None,
                        failure,
                    });
                    continue;
                }
            };
            // Without an adapter there would be no lane.
            let Some(adapter) = self.context.sources.get(&self.source) else {
                continue;
            };
            let mapped = match adapter.map(&envelope) {
                Ok(mapped) => mapped,
                Err(failure) => {
                    let business_key = adapter.business_key(&envelope);
                    opened.unprocessable.push(Unprocessable {
                        incoming: parcel,
                        business_key,
                        failure,
                    });
                    continue;
                }
            };
            let deletion = match &mapped {
                MappedEvent::Change(Change::ResourceChanged(reference)) => {
                    adapter.deletion_change(reference)
                }
                _ => None,
            };
            let ready = |envelope| {
                let item = Message::new(envelope, mapped);
                match deletion {
                    Some(change) => item.with_change(change),
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
                    if envelope.replay_id.is_some() {
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
    async fn apply_conflict_free_first(
        &self,
        items: Vec<Message>,
        parcels: Vec<IncomingMessage>,
    ) -> Result<(Vec<Message>, Vec<IncomingMessage>, Vec<ApplyOutcome>), ConsumerError> {
        let (taken, free) = self.context.in_flight.acquire(&self.source, &items);
        let pairs = items.into_iter().zip(parcels).zip(free);
        let (now, later): (Vec<_>, Vec<_>) = pairs.partition(|(_, free)| *free);
        let turn = now.len();
        let (items, parcels): (Vec<Message>, Vec<IncomingMessage>) =
            now.into_iter().chain(later).map(|(pair, _)| pair).unzip();
        let mut verdicts = self.apply_with_bisection(&items[..turn]).await?;
        drop(taken);
        // Whoever still has some of these in hand is waited for.
        let (_taken, _) = self.context.in_flight.acquire(&self.source, &items[turn..]);
        verdicts.extend(self.apply_with_bisection(&items[turn..]).await?);
        Ok((items, parcels, verdicts))
    }

    /// Applies items in as few transactions as possible: all in one; where a
    /// row is refused, in halves, until the poison stands alone.
    async fn apply_with_bisection(
        &self,
        items: &[Message],
    ) -> Result<Vec<ApplyOutcome>, ConsumerError> {
        let mut verdicts = Vec::with_capacity(items.len());
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let Some(rules) = self.context.sources.get(&self.source).map(Source::conflict_policy)
            else {
                // Without an adapter there would be no lane.
                return Ok(verdicts);
            };
            let applied = retry_while_unavailable(self.database_retry_timeout(), || {
                let WorkerContext { store, outbox, .. } = &self.context;
                apply::apply_batch(store, &self.source, rules, outbox, part)
            })
            .await?;
            match applied {
                Ok(effects) => {
                    self.notify_committed(part);
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

    fn notify_committed(&self, items: &[Message]) {
        if let Some(committed) = &self.context.commit_listener {
            let receipts = items.iter().map(|item| item.envelope.receipt_id).collect();
            // Whoever wanted to know may have heard enough.
            drop(committed.send((Instant::now(), receipts)));
        }
    }

    /// Only what the configuration names: another producer may write anything
    /// into a header.
    fn record_secret_usage(&self, envelope: &Envelope) {
        let WorkerContext { sources, store, secret_usage: secret_uses, .. } = &self.context;
        let secret = envelope.secret_label.as_deref().filter(|_| envelope.received_over_http);
        let known = |label: &&str| {
            let adapter = sources.get(&self.source);
            adapter.is_some_and(|adapter| adapter.secret_labels().any(|known| known == *label))
        };
        if let Some(secret) = secret.filter(known) {
            secret_uses.record(store, &self.source, secret, envelope.received_at);
        }
    }

    fn database_retry_timeout(&self) -> Duration {
        Duration::from_millis(self.context.settings.database_retry_timeout_ms)
    }

    fn observe_batch(&self, recorded: &[(Outcome, OffsetDateTime)], begun: Instant) {
        let metrics = &self.context.metrics;
        if recorded.is_empty() {
            return;
        }
        metrics
            .batch_messages
            .observe(f64::from(u32::try_from(recorded.len()).unwrap_or(u32::MAX)));
        metrics.batch_duration.observe(begun.elapsed().as_secs_f64());
        let now = OffsetDateTime::now_utc();
        let lag = metrics.end_to_end_lag.with_label_values(&[self.source.as_str()]);
        for (_, received_at) in recorded {
            lag.observe((now - *received_at).as_seconds_f64().max(0.0));
        }
        metrics.record_outcomes(&self.source, recorded.iter().map(|(outcome, _)| *outcome));
    }
}

/// Whether the database will never take the row, and why.
fn permanent_failure(error: &StoreError) -> Option<PermanentFailure> {
    if error.class() != ErrorClass::InvalidData {
        return None;
    }
    let integrity = error.sqlstate().is_some_and(|code| code.starts_with("23"));
    let reason = if integrity { ReasonCode::ConstraintViolation } else { ReasonCode::InvalidValue };
    Some(PermanentFailure {
        reason,
        field: error.constraint().unwrap_or_default().to_owned(),
        detail: error.to_string(),
    })
}
