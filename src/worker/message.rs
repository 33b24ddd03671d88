//! Messages of a source's queue, decoded and mapped.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use crate::{
    broker::{Delivery, IncomingMessage},
    domain::{Change, Envelope, MappedEvent, PermanentFailure, SourceName},
    sources::Source,
};

/// A message that the worker processes.
#[derive(Clone, Debug)]
pub struct Message {
    /// As RabbitMQ delivered it.
    pub incoming: IncomingMessage,
    /// The decoded event.
    pub envelope: Envelope,
    /// What it changes; empty if its topic is ignored.
    pub changes: Vec<Change>,
    digest: Uuid,
    /// For a message without changes that names its document all the same.
    business_key: Option<String>,
}

/// What follows for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Its effect is committed: acknowledge it.
    Processed,
    /// The attempt failed for a reason that may pass: publish it to the retry
    /// queue of its next attempt, or dead-letter it after the last one.
    Retry {
        /// The error and its causes.
        error: String,
    },
    /// It was not attempted: publish it to the retry queue of the longest
    /// delay. This does not count as a failed attempt.
    Defer {
        /// Why it was not attempted.
        error: String,
        /// How long attempts would be in vain.
        retry_after: Duration,
    },
    /// It can never be applied: publish it to the dead-letter queue.
    DeadLetter(PermanentFailure),
}

impl Message {
    /// A delivered message and what its source mapped it to.
    pub fn new(incoming: IncomingMessage, envelope: Envelope, mapped: MappedEvent) -> Self {
        let changes = match mapped {
            MappedEvent::Change(change) => vec![change],
            MappedEvent::Ignored => Vec::new(),
        };
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(&envelope.body)[..16]);
        let digest = Uuid::from_bytes(digest);
        Self { incoming, envelope, changes, digest, business_key: None }
    }

    /// A message that was not delivered by RabbitMQ.
    pub fn from_envelope(envelope: Envelope, mapped: MappedEvent) -> Self {
        Self::new(IncomingMessage::from_envelope(&envelope), envelope, mapped)
    }

    /// A message that cannot be decoded.
    fn undecodable(mut incoming: IncomingMessage, now: OffsetDateTime) -> Self {
        let identity = incoming.lenient_identity(now);
        let envelope = incoming.lenient_envelope(identity);
        Self::new(incoming, envelope, MappedEvent::Ignored)
    }

    /// Adds a change, such as the document that a resource change refers to.
    #[must_use]
    pub fn with_change(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// The first 16 bytes of the SHA-256 of its body.
    pub fn digest(&self) -> Uuid {
        self.digest
    }

    /// The document's number for operators. That of a fetched document, which
    /// is the last change, is better than that of a resource change.
    pub fn business_key(&self) -> Option<&str> {
        self.changes.last().map(Change::business_key).or(self.business_key.as_deref())
    }
}

/// A batch after its messages were decoded and mapped.
#[derive(Debug, Default)]
pub(super) struct DecodedBatch {
    /// Ready to be applied. Each has another receipt.
    pub(super) messages: Vec<Message>,
    /// Cannot be decoded or mapped.
    pub(super) rejected: Vec<(Message, Disposition)>,
}

impl DecodedBatch {
    fn reject(&mut self, message: Message, failure: PermanentFailure) {
        self.rejected.push((message, Disposition::DeadLetter(failure)));
    }
}

/// Decodes deliveries of the queue of `name` and maps them by its source.
pub(super) fn decode_and_map(
    name: &SourceName,
    source: &Source,
    deliveries: Vec<Delivery>,
    now: OffsetDateTime,
) -> DecodedBatch {
    let mut batch = DecodedBatch::default();
    batch.messages.reserve(deliveries.len());
    let mut index_of: HashMap<Uuid, usize> = HashMap::with_capacity(deliveries.len());
    for Delivery { message: incoming, .. } in deliveries {
        let envelope = match incoming.envelope(name, now) {
            Ok(envelope) => envelope,
            Err(failure) => {
                batch.reject(Message::undecodable(incoming, now), failure);
                continue;
            }
        };
        let mut message = match source.map(&envelope) {
            Ok(mapped) => Message::new(incoming, envelope, mapped),
            Err(failure) => {
                let business_key = source.business_key(&envelope);
                let message = Message::new(incoming, envelope, MappedEvent::Ignored);
                batch.reject(Message { business_key, ..message }, failure);
                continue;
            }
        };
        if let [Change::ResourceChanged(resource)] = message.changes.as_slice()
            && let Some(deletion) = source.deletion_change(resource)
        {
            message.changes.push(deletion);
        }
        match index_of.entry(message.envelope.receipt_id) {
            // At-least-once dead-lettering may deliver a message twice. One
            // copy is processed; the copy of a replay is the one that resolves
            // the dead letter.
            Entry::Occupied(entry)
                if batch.messages[*entry.get()].envelope.key == message.envelope.key =>
            {
                if message.envelope.replay_id.is_some() {
                    batch.messages[*entry.get()] = message;
                }
            }
            // Another producer used one receipt id for two messages. The
            // second one gets a derived id, the same at each delivery.
            Entry::Occupied(_) => {
                let used_twice = message.envelope.receipt_id;
                let receipt_id =
                    Uuid::new_v5(&used_twice, message.envelope.key.as_str().as_bytes());
                warn!(%used_twice, %receipt_id, "a receipt id was used twice and is replaced");
                message.envelope.receipt_id = receipt_id;
                batch.messages.push(message);
            }
            Entry::Vacant(entry) => {
                entry.insert(batch.messages.len());
                batch.messages.push(message);
            }
        }
    }
    batch
}
