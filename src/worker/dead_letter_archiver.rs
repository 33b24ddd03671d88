//! Moves dead letters from their queue into `dead_letters`. The only consumer
//! of that queue.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    ConsumerError, WorkerContext,
    batch::BatchLimits,
    bisect::bisect,
    consume::{BatchConsumer, BatchHandler},
};
use crate::{
    broker::{BrokerConnection, Delivery, IncomingMessage},
    domain::{Envelope, Outcome, SourceName},
    store::{
        Conn, Store, StoreError,
        dead_letters::{self, NewDeadLetter},
        receipts,
        retry::retry_while_unavailable,
    },
};

/// Latency is not critical here.
pub(super) const LIMITS: BatchLimits =
    BatchLimits { max_messages: 100, max_wait: Duration::from_millis(20) };

/// Archives the batches of the dead-letter queue.
pub(super) struct DeadLetterArchiver {
    pub(super) context: WorkerContext,
}

impl BatchHandler for DeadLetterArchiver {
    async fn handle(
        &self,
        deliveries: Vec<Delivery>,
        now: OffsetDateTime,
    ) -> Result<Duration, ConsumerError> {
        let WorkerContext { store, sources, metrics, .. } = &self.context;
        let letters = decode_batch(deliveries, now);
        archive(store, self.context.database_retry_timeout(), &letters).await?;
        for DeadLetter { envelope, row } in &letters {
            let reason = row.reason.as_str();
            debug!(receipt_id = %envelope.receipt_id, reason, "the dead letter is archived");
            // Only configured sources become labels: a producer may use any
            // routing key.
            let is_known = sources.contains_key(&envelope.source);
            let source = if is_known { envelope.source.clone() } else { SourceName::unknown() };
            metrics.record_outcomes(&source, std::iter::once(Outcome::Dead));
        }
        Ok(Duration::ZERO)
    }
}

/// Archives the dead-letter queue until no message has come for `idle_timeout`.
/// Returns the number of dead letters. For operators whose workers are down.
///
/// # Errors
/// [`ConsumerError`]. Letters that were not archived stay in the queue.
pub async fn drain(
    queue: &str,
    connection: &BrokerConnection,
    store: &Store,
    idle_timeout: Duration,
) -> Result<usize, ConsumerError> {
    let mut consumer = BatchConsumer::open(connection, queue, LIMITS).await?;
    let mut archived = 0;
    while let Ok(batch) = tokio::time::timeout(idle_timeout, consumer.collect()).await {
        let batch = batch?;
        let letters = decode_batch(batch.deliveries, OffsetDateTime::now_utc());
        archive(store, Duration::ZERO, &letters).await?;
        archived += letters.len();
        consumer.ack(batch.last_tag).await?;
    }
    consumer.close().await;
    Ok(archived)
}

/// Stores dead letters. One that PostgreSQL refuses is stored without the text
/// that its producer wrote: an operator must see every dead letter.
async fn archive(
    store: &Store,
    timeout: Duration,
    letters: &[DeadLetter],
) -> Result<(), ConsumerError> {
    let parts =
        bisect(letters, |part| retry_while_unavailable(timeout, move || store_batch(store, part)))
            .await?;
    for (part, result) in parts {
        if let ([letter], Err(error)) = (part, result) {
            let receipt_id = letter.row.receipt_id;
            warn!(%receipt_id, %error, "the dead letter is archived without its headers");
            let plain = [letter.without_foreign_text(&error)];
            retry_while_unavailable(timeout, || store_batch(store, &plain)).await??;
        }
    }
    Ok(())
}

/// A row of `dead_letters` and the envelope for its receipt.
#[derive(Clone)]
struct DeadLetter {
    row: NewDeadLetter,
    envelope: Envelope,
}

impl DeadLetter {
    fn decode(mut message: IncomingMessage, now: OffsetDateTime) -> Self {
        let death = message.death_info(now);
        let identity = message.lenient_identity(now);
        let envelope = message.lenient_envelope(identity);
        let row = NewDeadLetter {
            receipt_id: envelope.receipt_id,
            event_key: envelope.key.to_string(),
            source: envelope.source.to_string(),
            tenant: envelope.tenant.clone(),
            topic: envelope.topic.clone(),
            business_key: death.business_key,
            reason: death.reason,
            error: death.error,
            attempts: death.attempts,
            received_at: envelope.received_at,
            first_failed_at: death.first_failed_at,
            last_failed_at: death.last_failed_at,
            replay_id: envelope.replay_id,
            headers: message.to_json(),
            payload: message.body.to_vec(),
        };
        Self { row, envelope }
    }

    /// The same under a receipt id derived from its event key. Another producer
    /// used one receipt id for two messages; both must be archived.
    fn with_derived_receipt_id(&self) -> Self {
        let mut letter = self.clone();
        let key = letter.row.event_key.as_bytes();
        letter.row.receipt_id = Uuid::new_v5(&letter.row.receipt_id, key);
        letter.envelope.receipt_id = letter.row.receipt_id;
        letter
    }

    /// The same without any text that PostgreSQL may have refused.
    fn without_foreign_text(&self, refused: &StoreError) -> Self {
        let mut letter = self.clone();
        letter.row.headers = json!({"refused": refused.to_string()});
        letter.row.business_key = None;
        letter.row.error = format!("{} ({refused})", letter.row.reason);
        letter.row.topic.clear();
        letter.envelope.topic.clear();
        letter
    }
}

/// Decodes a batch. Of several copies of one message the newest is archived,
/// but the copy of a replay before any other.
fn decode_batch(deliveries: Vec<Delivery>, now: OffsetDateTime) -> Vec<DeadLetter> {
    let mut letters: HashMap<Uuid, DeadLetter> = HashMap::with_capacity(deliveries.len());
    for delivery in deliveries {
        let mut letter = DeadLetter::decode(delivery.message, now);
        let mut copy = letters.get(&letter.row.receipt_id);
        if copy.is_some_and(|copy| copy.row.event_key != letter.row.event_key) {
            letter = letter.with_derived_receipt_id();
            copy = letters.get(&letter.row.receipt_id);
        }
        let is_copy_replayed = copy.is_some_and(|copy| copy.row.replay_id.is_some());
        if !is_copy_replayed || letter.row.replay_id.is_some() {
            letters.insert(letter.row.receipt_id, letter);
        }
    }
    letters.into_values().collect()
}

/// Stores dead letters and the outcome of their receipts in one transaction: a
/// receipt says `dead` exactly when there is a dead letter.
async fn store_batch(store: &Store, letters: &[DeadLetter]) -> Result<(), StoreError> {
    store
        .with_timeout(async {
            let mut tx = store.begin().await?;
            let messages: Vec<(Uuid, &str)> = letters
                .iter()
                .map(|letter| (letter.row.receipt_id, letter.row.event_key.as_str()))
                .collect();
            let in_use = receipts::ids_in_use(&mut tx, &messages).await?;
            let letters: Vec<DeadLetter> = letters
                .iter()
                .map(|letter| {
                    let is_used_twice = in_use.contains(&letter.row.receipt_id);
                    if is_used_twice { letter.with_derived_receipt_id() } else { letter.clone() }
                })
                .collect();
            write(&mut tx, &letters).await?;
            tx.commit().await
        })
        .await
}

async fn write(conn: &mut Conn, letters: &[DeadLetter]) -> Result<(), StoreError> {
    let receipts: Vec<receipts::ReceiptRow<'_>> = letters
        .iter()
        .map(|letter| receipts::ReceiptRow {
            envelope: &letter.envelope,
            business_key: letter.row.business_key.as_deref(),
            outcome: Outcome::Dead,
            write_kind: None,
            attempts: letter.row.attempts,
            error: Some(&letter.row.error),
            keep_payload: true,
        })
        .collect();
    receipts::record(conn, &receipts).await?;
    let rows: Vec<NewDeadLetter> = letters.iter().map(|letter| letter.row.clone()).collect();
    dead_letters::insert(conn, &rows).await
}
