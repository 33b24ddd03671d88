//! The archiver: the only reader of the dead-letter queue. It brings the dead
//! before a person: into `dead_letters`, and then acknowledges.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    Tools, Trouble,
    collect::{self, Batch},
    patience::patiently,
};
use crate::{
    broker::{Delivery, Link, Parcel, Subscription},
    domain::{Envelope, EventKey, Outcome, SourceName},
    store::{
        Conn, Store, StoreError,
        dead_letters::{self, Burial},
        receipts,
    },
};

/// Letters in one transaction.
const BATCH: usize = 100;
/// How long a batch may wait to fill: nobody is in a hurry to see the dead.
const WAIT: Duration = Duration::from_millis(20);

/// Reads the dead-letter queue.
pub struct Archiver {
    tools: Tools,
    subscription: Subscription,
}

impl Archiver {
    /// Subscribes to the dead-letter queue.
    ///
    /// # Errors
    /// [`Trouble::Broker`].
    pub async fn open(tools: Tools, link: &Link) -> Result<Self, Trouble> {
        let subscription = subscribe(&tools.topology.dead(), link).await?;
        Ok(Self { tools, subscription })
    }

    /// Works until stopped; the batch in hand is finished first.
    ///
    /// # Errors
    /// [`Trouble`]; letters that were not archived wait in the queue, safe.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Trouble> {
        let result = self.work(&stop).await;
        self.subscription.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                batch = collect::batch(&mut self.subscription, BATCH, WAIT) => batch?,
            };
            let hold = Duration::from_millis(self.tools.settings.hold_ms);
            let letters = letters(batch.deliveries);
            archive(&self.tools.store, hold, &letters).await?;
            self.count(&letters);
            self.subscription.ack_through(batch.last).await?;
        }
    }

    fn count(&self, letters: &[Letter]) {
        for Letter { envelope, burial } in letters {
            debug!(receipt_id = %envelope.receipt_id, reason = burial.reason.code(), "archived");
            // A stranger's routing key must not become a label.
            let known = self.tools.sources.contains_key(&envelope.source);
            let source = if known { envelope.source.clone() } else { SourceName::unknown() };
            self.tools.metrics.count_outcomes(&source, std::iter::once(Outcome::Dead));
        }
    }
}

/// Subscribes to the dead-letter queue.
async fn subscribe(queue: &str, link: &Link) -> Result<Subscription, Trouble> {
    let prefetch = u16::try_from(2 * BATCH).unwrap_or(u16::MAX);
    Ok(Subscription::open(link, queue, prefetch).await?)
}

/// Archives what is in the dead-letter queue until nothing has come for
/// `quiet`; gives back how many letters there were. For operators whose
/// workers do not run.
///
/// # Errors
/// [`Trouble`]; letters that were not archived wait in the queue, safe.
pub async fn drain(
    queue: &str,
    link: &Link,
    database: &Store,
    quiet: Duration,
) -> Result<usize, Trouble> {
    let mut subscription = subscribe(queue, link).await?;
    let mut drained = 0;
    loop {
        let next = collect::batch(&mut subscription, BATCH, WAIT);
        let Ok(batch) = tokio::time::timeout(quiet, next).await else { break };
        let Batch { deliveries, last, .. } = batch?;
        let letters = letters(deliveries);
        archive(database, Duration::ZERO, &letters).await?;
        drained += letters.len();
        subscription.ack_through(last).await?;
    }
    subscription.close().await;
    Ok(drained)
}

/// Archives letters, in halves where one is refused. One that is refused
/// alone is archived without what strangers wrote into its headers: nothing
/// may keep the dead from being seen.
async fn archive(database: &Store, hold: Duration, letters: &[Letter]) -> Result<(), Trouble> {
    let mut parts = vec![letters];
    while let Some(part) = parts.pop() {
        let Err(error) = patiently(hold, || store(database, part)).await? else {
            continue;
        };
        match part {
            [] => {}
            [letter] => {
                let receipt_id = letter.burial.receipt_id;
                warn!(%receipt_id, %error, "the letter is archived without its headers");
                let plain = [letter.plain(&error)];
                patiently(hold, || store(database, &plain)).await?.map_err(Trouble::Database)?;
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
fn letters(batch: Vec<Delivery>) -> Vec<Letter> {
    let now = OffsetDateTime::now_utc();
    let mut newest: HashMap<Uuid, Letter> = HashMap::with_capacity(batch.len());
    for delivery in batch {
        let mut letter = letter(delivery.parcel, now);
        let mut known = newest.get(&letter.burial.receipt_id);
        if known.is_some_and(|known| known.burial.event_key != letter.burial.event_key) {
            letter = letter.with_own_receipt();
            known = newest.get(&letter.burial.receipt_id);
        }
        let replayed = known.is_some_and(|known| known.burial.replay.is_some());
        if !replayed || letter.burial.replay.is_some() {
            newest.insert(letter.burial.receipt_id, letter);
        }
    }
    newest.into_values().collect()
}

/// A letter and the envelope for its receipt.
#[derive(Clone)]
struct Letter {
    burial: Burial,
    envelope: Envelope,
}

impl Letter {
    /// The same under a receipt of its own, the same each time: another
    /// producer gave two messages one receipt, and neither may hide the other.
    fn with_own_receipt(&self) -> Self {
        let mut letter = self.clone();
        let key = letter.burial.event_key.as_bytes();
        letter.burial.receipt_id = Uuid::new_v5(&letter.burial.receipt_id, key);
        letter.envelope.receipt_id = letter.burial.receipt_id;
        letter
    }

    /// The same with nothing but what we wrote ourselves.
    fn plain(&self, refused: &StoreError) -> Self {
        let mut letter = self.clone();
        letter.burial.headers = json!({"refused": refused.to_string()});
        letter.burial.business_key = None;
        letter.burial.error = format!("{} ({refused})", letter.burial.reason);
        letter.burial.topic.clear();
        letter.envelope.topic.clear();
        letter
    }
}

fn letter(mut parcel: Parcel, now: OffsetDateTime) -> Letter {
    parcel.ensure_receipt();
    let receipt_id = parcel.receipt_id().ok().flatten().unwrap_or_else(Uuid::now_v7);
    let mark = parcel.dead_mark(now);
    let [message_id, topic, tenant] = parcel.labels();
    let source = parcel.routing_key.parse().unwrap_or_else(|_| SourceName::unknown());
    // Letters without an id must not share a key: the inbox would take one
    // for the other.
    let message_id =
        if message_id.is_empty() { format!("receipt:{receipt_id}") } else { message_id };
    let key = EventKey::from_message_id(&source, &tenant, &message_id);
    let mut headers = parcel.describe();
    headers["routing_key"] = parcel.routing_key.replace('\0', "\u{fffd}").into();
    let burial = Burial {
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
        replay: parcel.replay(),
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
        attempt: burial.attempts,
        generation: 0,
        replay: burial.replay,
        over_http: parcel.is_over_http(),
        secret: None,
        import: parcel.import(),
        body: parcel.body,
    };
    Letter { burial, envelope }
}

/// Letters and their receipts' outcome, in one transaction: a receipt says
/// `dead` exactly when there is a letter.
async fn store(database: &Store, letters: &[Letter]) -> Result<(), StoreError> {
    database
        .in_time(async {
            let mut tx = database.begin().await?;
            let messages: Vec<(Uuid, &str)> = letters
                .iter()
                .map(|letter| (letter.burial.receipt_id, letter.burial.event_key.as_str()))
                .collect();
            let taken = receipts::taken(&mut tx, &messages).await?;
            let letters: Vec<Letter> = letters
                .iter()
                .map(|letter| {
                    let used_twice = taken.contains(&letter.burial.receipt_id);
                    if used_twice { letter.with_own_receipt() } else { letter.clone() }
                })
                .collect();
            write(&mut tx, &letters).await?;
            tx.commit().await
        })
        .await
}

async fn write(conn: &mut Conn, letters: &[Letter]) -> Result<(), StoreError> {
    let burials: Vec<Burial> = letters.iter().map(|letter| letter.burial.clone()).collect();
    let rows: Vec<receipts::Row<'_>> = letters
        .iter()
        .map(|letter| receipts::Row {
            envelope: &letter.envelope,
            business_key: letter.burial.business_key.as_deref(),
            outcome: Outcome::Dead,
            wrote: None,
            attempts: letter.burial.attempts,
            error: Some(&letter.burial.error),
            keep_payload: true,
        })
        .collect();
    receipts::record(conn, &rows).await?;
    dead_letters::bury(conn, &burials).await
}
