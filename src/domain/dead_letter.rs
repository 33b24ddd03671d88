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
    pub fn newest_copies(dead_letters: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut newest: HashMap<Uuid, Self> = HashMap::new();
        for mut dead_letter in dead_letters {
            let mut copy = newest.get(&dead_letter.envelope.receipt_id);
            if copy.is_some_and(|copy| copy.envelope.key != dead_letter.envelope.key) {
                dead_letter = dead_letter.with_derived_receipt_id();
                copy = newest.get(&dead_letter.envelope.receipt_id);
            }
            let is_copy_replayed = copy.is_some_and(|copy| copy.envelope.replay_id.is_some());
            if !is_copy_replayed || dead_letter.envelope.replay_id.is_some() {
                newest.insert(dead_letter.envelope.receipt_id, dead_letter);
            }
        }
        newest.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::{EventKey, SourceName};

    fn dead_letter(event_id: &str, replay_id: Option<Uuid>) -> DeadLetter {
        let source: SourceName = "shop".parse().unwrap();
        let received_at = datetime!(2026-11-01 12:00 UTC);
        DeadLetter {
            envelope: Envelope {
                receipt_id: Uuid::max(),
                key: EventKey::from_message_id(&source, "", event_id),
                source,
                tenant: String::new(),
                topic: "orders/create".to_owned(),
                version: None,
                received_at,
                failed_attempts: 5,
                generation: 0,
                replay_id,
                received_over_http: true,
                secret_label: None,
                import: None,
                body: "{}".into(),
            },
            reason: ReasonCode::AttemptsExhausted,
            error: "timed out".to_owned(),
            business_key: Some("1001".to_owned()),
            first_failed_at: received_at,
            last_failed_at: received_at,
            headers: json!({"type": "orders/create"}),
        }
    }

    #[test]
    fn newest_copies_keep_the_last_of_a_message() {
        let mut newer = dead_letter("1", None);
        newer.error = "refused".to_owned();
        let copies = [dead_letter("1", None), newer.clone()];
        assert_eq!(DeadLetter::newest_copies(copies), [newer]);
    }

    #[test]
    fn newest_copies_prefer_a_replay() {
        let replayed = dead_letter("1", Some(Uuid::nil()));
        let copies = [replayed.clone(), dead_letter("1", None)];
        assert_eq!(DeadLetter::newest_copies(copies), std::slice::from_ref(&replayed));
        let copies = [dead_letter("1", None), replayed.clone()];
        assert_eq!(DeadLetter::newest_copies(copies), [replayed]);
    }

    #[test]
    fn newest_copies_keep_two_messages_with_one_receipt_id() {
        let second = || dead_letter("2", None);
        let copies = [dead_letter("1", None), second(), second()];
        let newest = DeadLetter::newest_copies(copies);
        assert_eq!(newest.len(), 2);
        assert!(newest.contains(&dead_letter("1", None)));
        assert!(newest.contains(&second().with_derived_receipt_id()));
    }

    #[test]
    fn without_foreign_text_keeps_reason_and_body() {
        let plain = dead_letter("1", None).without_foreign_text("invalid byte sequence");
        assert_eq!(plain.error, "attempts_exhausted (invalid byte sequence)");
        assert_eq!(plain.headers, json!({"refused": "invalid byte sequence"}));
        assert_eq!((plain.business_key, plain.envelope.topic.as_str()), (None, ""));
        assert_eq!(plain.envelope.body, "{}");
    }
}
