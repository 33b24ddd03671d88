//! A message that failed for good.

use std::collections::HashMap;

use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Envelope, ReasonCode};

/// A message from the dead-letter queue, with the reason for its failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message and the number of its failed attempts.
    pub envelope: Envelope,
    /// Why it failed, as a code.
    pub reason: ReasonCode,
    /// The error and its causes, outermost first.
    pub error: String,
    /// The number of the order or invoice, if it could be read.
    pub business_key: Option<String>,
    /// When its first attempt failed.
    pub first_failed_at: OffsetDateTime,
    /// When its last attempt failed.
    pub last_failed_at: OffsetDateTime,
    /// The AMQP properties and headers.
    pub headers: Value,
}

impl DeadLetter {
    /// The same under a receipt id derived from its event key. Another producer used one receipt id
    /// for two messages; both must be archived.
    #[must_use]
    pub fn with_derived_receipt_id(mut self) -> Self {
        let key = self.envelope.key.as_str().as_bytes();
        self.envelope.receipt_id = Uuid::new_v5(&self.envelope.receipt_id, key);
        self
    }

    /// The same without the texts that other producers wrote, of which the database refused one
    /// with this error.
    #[must_use]
    pub fn without_foreign_text(mut self, refused: &str) -> Self {
        self.headers = json!({"refused": refused});
        self.business_key = None;
        self.error = format!("{} ({refused})", self.reason);
        self.envelope.topic.clear();
        self
    }

    /// Of several copies of one message, keeps the newest, but the copy of a replay before any
    /// other.
    #[must_use]
    pub fn newest_copies(letters: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut newest: HashMap<Uuid, Self> = HashMap::new();
        for mut letter in letters {
            let mut copy = newest.get(&letter.envelope.receipt_id);
            if copy.is_some_and(|copy| copy.envelope.key != letter.envelope.key) {
                letter = letter.with_derived_receipt_id();
                copy = newest.get(&letter.envelope.receipt_id);
            }
            let is_copy_replayed = copy.is_some_and(|copy| copy.envelope.replay_id.is_some());
            if !is_copy_replayed || letter.envelope.replay_id.is_some() {
                newest.insert(letter.envelope.receipt_id, letter);
            }
        }
        newest.into_values().collect()
    }
}
