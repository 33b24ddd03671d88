//! The archiver: the only reader of the dead-letter queue. It brings the dead
//! before a person: into `dead_letters`, and then acknowledges.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{ConsumerError, WorkerContext, batch, batch::Batch};
use crate::{
    broker::{BrokerConnection, Consumer, Delivery, IncomingMessage},
    domain::{Envelope, EventKey, Outcome, SourceName},
    store::{
        Conn, Store, StoreError,
        dead_letters::{self, NewDeadLetter},
        receipts,
        retry::retry_while_unavailable,
    },
};

/// Letters in one transaction.
const BATCH_SIZE: usize = 100;
/// How long a batch may wait to fill: nobody is in a hurry to see the dead.
const BATCH_WAIT: Duration = Duration::from_millis(20);

/// Reads the dead-letter queue.
pub struct DeadLetterArchiver {
    context: WorkerContext,
    consumer: Consumer,
}

impl DeadLetterArchiver {
    /// Subscribes to the dead-letter queue.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn open(
        tools: WorkerContext,
        link: &BrokerConnection,
    ) -> Result<Self, ConsumerError> {
        let subscription = subscribe(&tools.topology.dead_letter_queue(), link).await?;
        Ok(Self { context: tools, consumer: subscription })
    }

    /// Works until stopped; the batch in hand is finished first.
    ///
    /// # Errors
    /// [`Trouble`]; letters that were not archived wait in the queue, safe.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), ConsumerError> {
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
            let hold = Duration::from_millis(self.context.settings.database_retry_timeout_ms);
            let letters = decode_batch(batch.deliveries);
            archive(&self.context.store, hold, &letters).await?;
            self.count_dead(&letters);
            self.consumer.ack_up_to(batch.last_tag).await?;
        }
    }

    fn count_dead(&self, letters: &[DeadLetter]) {
        for DeadLetter { envelope, row: burial } in letters {
            debug!(receipt_id = %envelope.receipt_id, reason = burial.reason.as_str(), "archived");
            // A stranger's routing key must not become a label.
            let known = self.context.sources.contains_key(&envelope.source);
            let source = if known { envelope.source.clone() } else { SourceName::unknown() };
            self.context.metrics.record_outcomes(&source, std::iter::once(Outcome::Dead));
        }
    }
}

/// Subscribes to the dead-letter queue.
async fn subscribe(queue: &str, link: &BrokerConnection) -> Result<Consumer, ConsumerError> {
    let prefetch = u16::try_from(2 * BATCH_SIZE).unwrap_or(u16::MAX);
    Ok(Consumer::open(link, queue, prefetch).await?)
}

/// Archives what is in the dead-letter queue until nothing has come for
/// `quiet`; gives back how many letters there were. For operators whose
/// workers do not run.
///
/// # Errors
/// [`Trouble`]; letters that were not archived wait in the queue, safe.
pub async fn drain(
    queue: &str,
    link: &BrokerConnection,
    database: &Store,
    quiet: Duration,
) -> Result<usize, ConsumerError> {
    let mut subscription = subscribe(queue, link).await?;
    let mut drained = 0;
    loop {
        let next = batch::collect(&mut subscription, BATCH_SIZE, BATCH_WAIT);
        let Ok(batch) = tokio::time::timeout(quiet, next).await else { break };
        let Batch { deliveries, last_tag: last, .. } = batch?;
        let letters = decode_batch(deliveries);
        archive(database, Duration::ZERO, &letters).await?;
        drained += letters.len();
        subscription.ack_up_to(last).await?;
    }
    subscription.close().await;
    Ok(drained)
}

/// Archives letters, in halves where one is refused. One that is refused
/// alone is archived without what strangers wrote into its headers: nothing
/// may keep the dead from being seen.
async fn archive(
    database: &Store,
    hold: Duration,
    letters: &[DeadLetter],
) -> Result<(), ConsumerError> {
    let mut parts = vec![letters];
    while let Some(part) = parts.pop() {
        let Err(error) = retry_while_unavailable(hold, || store_batch(database, part)).await?
        else {
            continue;
        };
        match part {
            [] => {}
            [letter] => {
                let receipt_id = letter.row.receipt_id;
                warn!(%receipt_id, %error, "the letter is archived without its headers");
                let plain = [letter.without_foreign_text(&error)];
                retry_while_unavailable(hold, || store_batch(database, &plain))
                    .await?
                    .map_err(ConsumerError::Database)?;
            }
            part => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
            }
        }
    }
    Ok(())
}

/// What a batch says, each message once: the newest copy of it, and rather
/// one that a replay sent than one that none did.
fn decode_batch(batch: Vec<Delivery>) -> Vec<DeadLetter> {
    let now = OffsetDateTime::now_utc();
    let mut newest: HashMap<Uuid, DeadLetter> = HashMap::with_capacity(batch.len());
    for delivery in batch {
        let mut letter = decode(delivery.message, now);
        let mut known = newest.get(&letter.row.receipt_id);
        if known.is_some_and(|known| known.row.event_key != letter.row.event_key) {
            letter = letter.with_derived_receipt_id();
            known = newest.get(&letter.row.receipt_id);
        }
        let replayed = known.is_some_and(|known| known.row.replay_id.is_some());
        if !replayed || letter.row.replay_id.is_some() {
            newest.insert(letter.row.receipt_id, letter);
        }
    }
    newest.into_values().collect()
}

/// A letter and the envelope for its receipt.
#[derive(Clone)]
struct DeadLetter {
    row: NewDeadLetter,
    envelope: Envelope,
}

impl DeadLetter {
    /// The same under a receipt of its own, the same each time: another
    /// producer gave two messages one receipt, and neither may hide the other.
    fn with_derived_receipt_id(&self) -> Self {
        let mut letter = self.clone();
        let key = letter.row.event_key.as_bytes();
        letter.row.receipt_id = Uuid::new_v5(&letter.row.receipt_id, key);
        letter.envelope.receipt_id = letter.row.receipt_id;
        letter
    }

    /// The same with nothing but what we wrote ourselves.
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

fn decode(mut parcel: IncomingMessage, now: OffsetDateTime) -> DeadLetter {
    parcel.ensure_receipt_id();
    let receipt_id = parcel.receipt_id().ok().flatten().unwrap_or_else(Uuid::now_v7);
    let mark = parcel.death_info(now);
    let [message_id, topic, tenant] = parcel.identity_texts();
    let source = parcel.routing_key.parse().unwrap_or_else(|_| SourceName::unknown());
    // Letters without an id must not share a key: the inbox would take one
    // for the other.
    let message_id =
        if message_id.is_empty() { format!("receipt:{receipt_id}") } else { message_id };
    let key = EventKey::from_message_id(&source, &tenant, &message_id);
    let mut headers = parcel.to_json();
    headers["routing_key"] = parcel.routing_key.replace('\0', "\u{fffd}").into();
    let burial = NewDeadLetter {
        receipt_id,
        event_key: key.to_string(),
        source: source.to_string(),
        tenant: tenant.clone(),
        topic: topic.clone(),
        business_key: mark.business_key,
        reason: mark.reason,
        error: mark.error,
        attempts: mark.attempts,
        received_at: parcel.received_at(Some(receipt_id), now),
        first_failed_at: mark.first_failed_at,
        last_failed_at: mark.last_failed_at,
        replay_id: parcel.replay(),
        headers,
        payload: parcel.body.to_vec(),
    };
    let envelope = Envelope {
        receipt_id,
        source,
        tenant,
        key,
        topic,
        version: None,
        received_at: burial.received_at,
        failed_attempts: burial.attempts,
        generation: 0,
        replay_id: burial.replay_id,
        received_over_http: parcel.is_over_http(),
        secret_label: None,
        import: parcel.import(),
        body: parcel.body,
    };
    DeadLetter { row: burial, envelope }
}

/// Letters and their receipts' outcome, in one transaction: a receipt says
/// `dead` exactly when there is a letter.
async fn store_batch(database: &Store, letters: &[DeadLetter]) -> Result<(), StoreError> {
    database
        .with_timeout(async {
            let mut tx = database.begin().await?;
            let messages: Vec<(Uuid, &str)> = letters
                .iter()
                .map(|letter| (letter.row.receipt_id, letter.row.event_key.as_str()))
                .collect();
            let taken = receipts::ids_in_use(&mut tx, &messages).await?;
            let letters: Vec<DeadLetter> = letters
                .iter()
                .map(|letter| {
                    let used_twice = taken.contains(&letter.row.receipt_id);
                    if used_twice { letter.with_derived_receipt_id() } else { letter.clone() }
                })
                .collect();
            write(&mut tx, &letters).await?;
            tx.commit().await
        })
        .await
}

async fn write(conn: &mut Conn, letters: &[DeadLetter]) -> Result<(), StoreError> {
    let burials: Vec<NewDeadLetter> = letters.iter().map(|letter| letter.row.clone()).collect();
    let rows: Vec<receipts::ReceiptRow<'_>> = letters
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
    receipts::record(conn, &rows).await?;
    dead_letters::insert(conn, &burials).await
}
