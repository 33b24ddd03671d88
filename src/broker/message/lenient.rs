//! Decodes messages that may break the contract: dead letters, live or stored.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{decode::IncomingMessage, headers};
use crate::domain::{DeadLetter, Envelope, EventKey, SourceName};

/// What identifies an event. `dead_letters` has it in columns, so it outlives
/// headers that could not be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredIdentity {
    /// The receipt id.
    pub receipt_id: Uuid,
    /// The source that its routing key names, or the unknown source.
    pub source: SourceName,
    /// The shop or company within the source.
    pub tenant: String,
    /// The event key.
    pub key: EventKey,
    /// The topic.
    pub topic: String,
    /// When it was received.
    pub received_at: OffsetDateTime,
}

impl IncomingMessage {
    /// Identifies a message that may break the contract. Missing and invalid
    /// parts are replaced.
    pub fn lenient_identity(&mut self, now: OffsetDateTime) -> StoredIdentity {
        let receipt_id = self.ensure_receipt_id();
        let [message_id, topic, tenant] = self.identity_texts();
        let source = self.routing_key.parse().unwrap_or_else(|_| SourceName::unknown());
        // Messages without an id must not share an event key: the inbox would
        // take the second one for a duplicate.
        let message_id =
            if message_id.is_empty() { format!("receipt:{receipt_id}") } else { message_id };
        let key = EventKey::from_message_id(&source, &tenant, &message_id);
        let received_at = self.received_at(Some(receipt_id), now);
        StoredIdentity { receipt_id, source, tenant, key, topic, received_at }
    }

    /// Decodes the event of a message that may break the contract. Invalid
    /// headers count as absent.
    pub fn lenient_envelope(&self, identity: StoredIdentity) -> Envelope {
        let StoredIdentity { receipt_id, source, tenant, key, topic, received_at } = identity;
        Envelope {
            receipt_id,
            source,
            tenant,
            key,
            topic,
            version: self.timestamp(headers::VERSION).ok().flatten(),
            received_at,
            failed_attempts: self.failed_attempts(),
            generation: self.number(headers::GENERATION).unwrap_or_default(),
            replay_id: self.uuid(headers::REPLAY).ok().flatten(),
            received_over_http: self.is_received_over_http(),
            secret_label: self.text(headers::SECRET),
            import: self.import_position(),
            body: self.body.clone(),
        }
    }

    /// Decodes a message from the dead-letter queue, which may break the contract.
    pub fn into_dead_letter(mut self, now: OffsetDateTime) -> DeadLetter {
        let death = self.death_info(now);
        let identity = self.lenient_identity(now);
        let envelope =
            Envelope { failed_attempts: death.attempts, ..self.lenient_envelope(identity) };
        DeadLetter {
            envelope,
            reason: death.reason,
            error: death.error,
            business_key: death.business_key,
            first_failed_at: death.first_failed_at,
            last_failed_at: death.last_failed_at,
            headers: self.to_json(),
        }
    }
}
