//! Review: what operators do with dead letters, deliveries and quarantined calls. One library for
//! the CLI, and for the API and the console to come.

pub mod deliveries;
pub mod quarantine;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    broker::{
        Confirmed, IncomingMessage, OutgoingMessage, PublishError, Publisher, StoredIdentity,
        Topology,
    },
    domain::{Envelope, EventKey, SourceName},
    store::{
        Store, StoreError, audit_log,
        audit_log::{Actor, AuditEntry},
        dead_letters,
        dead_letters::{DeadLetterContents, DeadLetterFilter, DeadLetterSummary},
        deliveries as outbox,
    },
};

/// Letters read at once while a selection is made.
const PAGE_SIZE: u32 = 500;

/// Why an act of review did not work.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The database.
    #[error("the dead letters cannot be read or written")]
    Store(#[from] StoreError),
    /// There is no such letter.
    #[error("there is no dead letter {0}")]
    NotFound(Uuid),
    /// Somebody else was faster.
    #[error("dead letter {0} is {1} by now")]
    AlreadyClosed(Uuid, String),
    /// Its source's name is none, so it has no queue to go to.
    #[error("dead letter {0} came in under a name that no source can have; only discard it")]
    NoSourceQueue(Uuid),
    /// The broker did not take it. It stays as it was.
    #[error("dead letter {id} was not sent")]
    PublishFailed {
        /// Which.
        id: Uuid,
        /// Why.
        #[source]
        source: PublishError,
    },
}

/// One letter with everything known about it.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: DeadLetterSummary,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// The AMQP properties and headers it carried.
    pub headers: Value,
    /// The payload as text, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// What people did to it, oldest first.
    pub history: Vec<AuditEntry>,
}

/// Lists letters, the longest waiting first.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn list(
    store: &Store,
    filter: &DeadLetterFilter,
    limit: u32,
) -> Result<Vec<DeadLetterSummary>, ReviewError> {
    let mut connection = store.connection().await?;
    Ok(dead_letters::list(&mut connection, filter, None, limit).await?)
}

/// Every letter that a filter selects now: frozen, so that what arrives later
/// does not join in.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn select(
    store: &Store,
    filter: &DeadLetterFilter,
) -> Result<Vec<DeadLetterSummary>, ReviewError> {
    let mut connection = store.connection().await?;
    let mut selected: Vec<DeadLetterSummary> = Vec::new();
    loop {
        let after = selected.last().map(|letter| letter.dead_letter_id);
        let page = dead_letters::list(&mut connection, filter, after, PAGE_SIZE).await?;
        let done = page.len() < PAGE_SIZE as usize;
        selected.extend(page);
        if done {
            return Ok(selected);
        }
    }
}

/// One letter with everything known about it.
///
/// # Errors
/// [`ReviewError::NotFound`], [`ReviewError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<DeadLetterDetail, ReviewError> {
    let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
    let mut connection = store.connection().await?;
    let summary = dead_letters::list(&mut connection, &filter, None, 1)
        .await?
        .pop()
        .ok_or(ReviewError::NotFound(id))?;
    let contents =
        dead_letters::contents(&mut connection, id).await?.ok_or(ReviewError::NotFound(id))?;
    let acts = audit_log::list_for_dead_letter(&mut connection, id).await?;
    let (payload, payload_base64) = match String::from_utf8(contents.payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(data_encoding::BASE64.encode(error.as_bytes()))),
    };
    Ok(DeadLetterDetail {
        summary,
        received_at: contents.received_at,
        headers: contents.headers,
        payload,
        payload_base64,
        history: acts,
    })
}

/// Discards letters that are open; gives back how many were. The delivery of
/// one is voided with it.
///
/// # Errors
/// [`ReviewError::Store`].
pub async fn discard(store: &Store, ids: &[Uuid], actor: Actor<'_>) -> Result<u64, ReviewError> {
    let mut connection = store.connection().await?;
    Ok(audit_log::discard(&mut connection, ids, actor).await?)
}

/// A run that sends selected letters in again.
pub struct Replay<'a> {
    /// Names the run; every message of it carries this.
    pub replay_id: Uuid,
    store: &'a Store,
    publisher: &'a Publisher,
    topology: Arc<Topology>,
    actor: Actor<'a>,
}

impl<'a> Replay<'a> {
    /// Opens a run for a frozen selection.
    ///
    /// # Errors
    /// [`ReviewError::Store`].
    pub async fn open(
        store: &'a Store,
        publisher: &'a Publisher,
        topology: Arc<Topology>,
        actor: Actor<'a>,
        filter: &DeadLetterFilter,
        letters: usize,
    ) -> Result<Self, ReviewError> {
        let replay_id = Uuid::now_v7();
        let mut connection = store.connection().await?;
        // A filter is plain texts: it can always be written as JSON.
        let filter = serde_json::to_value(filter).unwrap_or_else(|_| json!({}));
        audit_log::insert_replay(&mut connection, replay_id, actor, &filter, letters).await?;
        Ok(Self { replay_id, store, publisher, topology, actor })
    }

    /// Sends one letter in again, with the key it had: if it was applied
    /// meanwhile, the inbox makes this harmless. It is marked as replayed once
    /// the broker has it, and resolved by the worker when it is settled.
    ///
    /// That of a delivery has its delivery tried again, with the key it had,
    /// and is resolved when its target has it.
    ///
    /// # Errors
    /// [`ReviewError`]; the letter stays as it was.
    pub async fn send(&self, letter: &DeadLetterSummary) -> Result<(), ReviewError> {
        let id = letter.dead_letter_id;
        let mut connection = self.store.connection().await?;
        let contents =
            dead_letters::contents(&mut connection, id).await?.ok_or(ReviewError::NotFound(id))?;
        // The selection was frozen a while ago, and a person's word stands.
        if !matches!(contents.state.as_str(), "open" | "replayed") {
            return Err(ReviewError::AlreadyClosed(id, contents.state));
        }
        if let Some(delivery) = letter.delivery_id {
            let retried =
                outbox::retry(&mut connection, &[delivery], self.replay_id, self.actor).await?;
            return match retried.as_slice() {
                [] => Err(self.already_closed_error(letter).await?),
                _ => Ok(()),
            };
        }
        self.publish(letter, contents).await?;
        audit_log::mark_replayed(&mut connection, id, self.replay_id, self.actor).await?;
        Ok(())
    }

    /// What became of a letter whose delivery is not failed any more: somebody
    /// else replayed or voided it.
    async fn already_closed_error(
        &self,
        letter: &DeadLetterSummary,
    ) -> Result<ReviewError, ReviewError> {
        let id = letter.dead_letter_id;
        let mut connection = self.store.connection().await?;
        let contents = dead_letters::contents(&mut connection, id).await?;
        Ok(contents
            .map_or(ReviewError::NotFound(id), |now| ReviewError::AlreadyClosed(id, now.state)))
    }

    /// Publishes the message that a letter is.
    async fn publish(
        &self,
        letter: &DeadLetterSummary,
        contents: DeadLetterContents,
    ) -> Result<(), ReviewError> {
        let id = letter.dead_letter_id;
        let source: SourceName = letter
            .source
            .parse()
            .ok()
            .filter(|source| *source != SourceName::unknown())
            .ok_or(ReviewError::NoSourceQueue(id))?;
        let identity = StoredIdentity {
            receipt_id: letter.receipt_id,
            key: EventKey::from_message_id(&source, &letter.tenant, &letter.event_key),
            source,
            tenant: letter.tenant.clone(),
            topic: letter.topic.clone(),
            received_at: contents.received_at,
        };
        let stored = IncomingMessage::from_json(&contents.headers, contents.payload);
        let envelope = Envelope {
            // All attempts start again: an operator decided it.
            failed_attempts: 0,
            replay_id: Some(self.replay_id),
            // A replay is no use of the secret.
            secret_label: None,
            ..stored.lenient_envelope(identity)
        };
        let message = OutgoingMessage::inbound(&self.topology, &envelope);
        let _durable: Confirmed = self
            .publisher
            .publish(message)
            .await
            .map_err(|source| ReviewError::PublishFailed { id, source })?;
        Ok(())
    }
}
