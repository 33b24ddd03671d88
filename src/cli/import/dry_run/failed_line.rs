//! What a check records of a line that the database refuses.

use crate::{
    domain::{Envelope, Outcome, PermanentFailure},
    store::{StoreError, receipts::ReceiptRow},
    worker::message::Message,
};

/// A line that would become a dead letter or be retried.
pub(super) struct FailedLine {
    pub(super) envelope: Envelope,
    pub(super) business_key: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) error: String,
}

impl FailedLine {
    pub(super) fn dead(message: &Message, failure: &PermanentFailure) -> Self {
        Self::new(message, Outcome::Dead, failure.to_string())
    }

    pub(super) fn retried(message: &Message, error: &StoreError) -> Self {
        Self::new(message, Outcome::Retried, error.to_string())
    }

    fn new(message: &Message, outcome: Outcome, error: String) -> Self {
        let business_key = message.business_key().map(str::to_owned);
        Self { envelope: message.envelope.clone(), business_key, outcome, error }
    }

    pub(super) fn receipt(&self) -> ReceiptRow<'_> {
        ReceiptRow {
            envelope: &self.envelope,
            business_key: self.business_key.as_deref(),
            outcome: self.outcome,
            write_kind: None,
            attempts: self.envelope.failed_attempts,
            error: Some(&self.error),
            keep_payload: false,
        }
    }
}
