//! Consumes the queue of one source.
//!
//! A batch is decoded, mapped, enriched, applied in one transaction where that
//! succeeds, and its failures are published to a retry queue or the
//! dead-letter queue. Then it is acknowledged.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, debug_span};

use super::{
    ConsumerError, WorkerContext,
    apply::{self, ApplyResult},
    consume::{BatchConsumer, BatchHandler},
    enrich::{self, EnrichedBatch},
    message::{self, DecodedBatch, Disposition, Message},
    retry_or_dead_letter,
};
use crate::{
    broker::{Batch, BatchLimits, BrokerConnection, Delivery},
    domain::{Envelope, Outcome, PermanentFailure, ReasonCode, SourceName},
    sources::Source,
    store::{ErrorClass, StoreError, bisect::bisect, retry::retry_while_unavailable},
};

/// The longest pause between two batches while the circuit of a platform is
/// open: deferred messages must not circulate without a pause, and messages
/// that need no fetch must not wait for long.
const MAX_CIRCUIT_OPEN_PAUSE: Duration = Duration::from_secs(10);

/// What a transaction did with one message, or why it can never succeed.
type ApplyOutcome = Result<ApplyResult, StoreError>;

/// A consumer of one source's queue.
pub struct SourceConsumer {
    consumer: BatchConsumer,
    handler: SourceHandler,
}

impl SourceConsumer {
    /// Starts consuming the source's queue.
    ///
    /// # Errors
    /// [`ConsumerError::Broker`].
    pub async fn open(
        context: WorkerContext,
        source: SourceName,
        connection: &BrokerConnection,
    ) -> Result<Self, ConsumerError> {
        let handler = SourceHandler { context, source };
        let limits = handler.limits();
        let consumer = BatchConsumer::open(connection, &handler.queue(), limits).await?;
        Ok(Self { consumer, handler })
    }

    /// Consumes until `stop` is cancelled; the current batch is finished first.
    ///
    /// # Errors
    /// [`ConsumerError`]. Unacknowledged messages are delivered again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ConsumerError> {
        self.consumer.run(&self.handler, &stop).await
    }

    /// Consumes one batch and returns its size. For tests, which step.
    ///
    /// # Errors
    /// [`ConsumerError`], as [`SourceConsumer::run`].
    pub async fn step(&mut self) -> Result<usize, ConsumerError> {
        let batch = self.collect_batch().await?;
        let (size, last_tag) = (batch.deliveries.len(), batch.last_tag);
        self.handle_batch(batch).await?;
        self.consumer.ack(last_tag).await?;
        Ok(size)
    }

    /// Waits for a batch.
    ///
    /// # Errors
    /// [`ConsumerError::Broker`].
    pub async fn collect_batch(&mut self) -> Result<Batch, ConsumerError> {
        self.consumer.collect().await
    }

    /// Handles a batch without acknowledging it.
    ///
    /// # Errors
    /// [`ConsumerError`]: the batch must not be acknowledged. What is
    /// committed is recognized by its receipts when it is delivered again.
    pub async fn handle_batch(&self, batch: Batch) -> Result<Duration, ConsumerError> {
        self.handler.handle(batch.deliveries, OffsetDateTime::now_utc()).await
    }
}

/// What is done with the batches of one source.
pub(super) struct SourceHandler {
    pub(super) context: WorkerContext,
    pub(super) source: SourceName,
}

impl BatchHandler for SourceHandler {
    async fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Duration, ConsumerError> {
        let span = debug_span!("batch", source = %self.source, messages = deliveries.len());
        async {
            let messages = self.process(deliveries, now).await?;
            // Before the acknowledgement, which covers every tag.
            let pause =
                retry_or_dead_letter::route(&self.context, &self.source, messages, now).await?;
            Ok(pause.min(MAX_CIRCUIT_OPEN_PAUSE))
        }
        .instrument(span)
        .await
    }
}

impl SourceHandler {
    pub(super) fn queue(&self) -> String {
        self.context.topology.inbound_queue(&self.source)
    }

    pub(super) fn limits(&self) -> BatchLimits {
        let WorkerContext { settings, enrichers, .. } = &self.context;
        let max_enriched = enrichers.get(&self.source).map(enrich::Enricher::batch_size);
        BatchLimits {
            max_messages: settings.batch_size.min(max_enriched.unwrap_or(usize::MAX)),
            max_wait: Duration::from_millis(settings.batch_wait_ms),
        }
    }

    fn source(&self) -> Result<&Source, ConsumerError> {
        let source = self.context.sources.get(&self.source);
        source.ok_or_else(|| ConsumerError::UnknownSource(self.source.clone()))
    }

    /// Applies what can be applied, and decides what follows for each message.
    async fn process(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Vec<(Message, Disposition)>, ConsumerError> {
        let begun = Instant::now();
        let DecodedBatch { messages, rejected } =
            message::decode_and_map(&self.source, self.source()?, deliveries, now);
        let EnrichedBatch { messages, not_enriched } =
            enrich::enrich_batch(&self.context, &self.source, messages).await?;
        let applied = self.apply_conflict_free_first(messages).await?;
        let mut recorded = Vec::with_capacity(applied.len());
        let mut disposed = rejected;
        disposed.extend(not_enriched);
        disposed.reserve(applied.len());
        for (message, outcome) in applied {
            let disposition = match outcome {
                Ok(ApplyResult::Conflict(failure)) => Disposition::DeadLetter(failure),
                Ok(result) => {
                    let Envelope { receipt_id, received_at, .. } = &message.envelope;
                    debug!(%receipt_id, ?result, "the message is processed");
                    self.record_secret_usage(&message.envelope);
                    recorded.extend(result.outcome().map(|outcome| (outcome, *received_at)));
                    Disposition::Processed
                }
                Err(error) => match permanent_failure(&error) {
                    Some(failure) => Disposition::DeadLetter(failure),
                    None => Disposition::Retry { error: error.to_string() },
                },
            };
            disposed.push((message, disposition));
        }
        self.observe_batch(&recorded, begun, now);
        Ok(disposed)
    }

    /// Applies first the messages whose keys and documents no other
    /// transaction of this process has in flight, then the rest.
    async fn apply_conflict_free_first(
        &self,
        messages: Vec<Message>,
    ) -> Result<Vec<(Message, ApplyOutcome)>, ConsumerError> {
        let in_flight = &self.context.in_flight;
        let (guard, are_free) = in_flight.acquire(&self.source, &messages);
        let mut conflict_free = Vec::with_capacity(messages.len());
        let mut conflicting = Vec::new();
        for (message, is_free) in messages.into_iter().zip(are_free) {
            if is_free { conflict_free.push(message) } else { conflicting.push(message) }
        }
        let mut applied = self.apply(conflict_free).await?;
        drop(guard);
        // The locks in PostgreSQL wait for a transaction that is still open.
        let (_guard, _) = in_flight.acquire(&self.source, &conflicting);
        applied.extend(self.apply(conflicting).await?);
        Ok(applied)
    }

    /// Applies messages in as few transactions as possible: one, or halves of
    /// it where PostgreSQL refuses a row, until that message is on its own.
    async fn apply(
        &self,
        messages: Vec<Message>,
    ) -> Result<Vec<(Message, ApplyOutcome)>, ConsumerError> {
        let WorkerContext { store, outbox, .. } = &self.context;
        let policy = self.source()?.conflict_policy();
        let timeout = self.context.database_retry_timeout();
        let parts = bisect(&messages, |part| {
            retry_while_unavailable(timeout, move || {
                apply::apply_batch(store, &self.source, policy, outbox, part)
            })
        })
        .await?;
        let mut outcomes: Vec<ApplyOutcome> = Vec::with_capacity(messages.len());
        for (_, result) in parts {
            match result {
                Ok(results) => outcomes.extend(results.into_iter().map(Ok)),
                Err(error) => outcomes.push(Err(error)),
            }
        }
        Ok(messages.into_iter().zip(outcomes).collect())
    }

    /// Records only the labels that the configuration names: another producer
    /// may write anything into the header.
    fn record_secret_usage(&self, envelope: &Envelope) {
        let WorkerContext { sources, store, secret_usage, .. } = &self.context;
        let label = envelope.secret_label.as_deref().filter(|_| envelope.received_over_http);
        let is_configured = |label: &&str| {
            let source = sources.get(&self.source);
            source.is_some_and(|source| source.secret_labels().any(|known| known == *label))
        };
        if let Some(label) = label.filter(is_configured) {
            secret_usage.record(store, &self.source, label, envelope.received_at);
        }
    }

    fn observe_batch(
        &self,
        recorded: &[(Outcome, OffsetDateTime)],
        begun: Instant,
        started_at: OffsetDateTime,
    ) {
        let metrics = &self.context.metrics;
        if recorded.is_empty() {
            return;
        }
        let messages = u32::try_from(recorded.len()).unwrap_or(u32::MAX);
        metrics.batch_messages.observe(f64::from(messages));
        let duration = begun.elapsed();
        metrics.batch_duration.observe(duration.as_secs_f64());
        let committed_at = started_at + duration;
        let lag = metrics.end_to_end_lag.with_label_values(&[self.source.as_str()]);
        for (_, received_at) in recorded {
            lag.observe((committed_at - *received_at).as_seconds_f64().max(0.0));
        }
        metrics.record_outcomes(&self.source, recorded.iter().map(|(outcome, _)| *outcome));
    }
}

/// The failure of a message whose row PostgreSQL will never accept.
pub(crate) fn permanent_failure(error: &StoreError) -> Option<PermanentFailure> {
    if error.class() != ErrorClass::InvalidData {
        return None;
    }
    let is_integrity = error.sqlstate().is_some_and(|code| code.starts_with("23"));
    let reason =
        if is_integrity { ReasonCode::ConstraintViolation } else { ReasonCode::InvalidValue };
    Some(PermanentFailure {
        reason,
        field: error.constraint().unwrap_or_default().to_owned(),
        detail: error.to_string(),
    })
}
