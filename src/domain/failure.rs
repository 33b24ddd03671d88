//! Permanent failures: why an event can never be applied.

use std::fmt;

use super::string_enum;

string_enum! {
    /// Why a message was dead-lettered: a stable code, the same in SQL, metrics and the command
    /// line.
    ReasonCode {
        /// The body is not JSON, or not UTF-8.
        InvalidJson = "invalid_json",
        /// A field or AMQP property that the mapping needs is missing.
        MissingField = "missing_field",
        /// A field has a value that cannot be used.
        InvalidValue = "invalid_value",
        /// No source of this name is configured.
        UnknownSource = "unknown_source",
        /// The same event key with another body, from a sender whose redeliveries repeat the
        /// same bytes.
        ConflictingDuplicate = "conflicting_duplicate",
        /// The same invoice number with another transaction, from a source that wants such
        /// invoices reviewed.
        InvoiceConflict = "invoice_conflict",
        /// All retries failed.
        AttemptsExhausted = "attempts_exhausted",
        /// The broker dead-lettered the message after too many redeliveries: it may crash its
        /// worker.
        DeliveryLimit = "delivery_limit",
        /// The broker dead-lettered the message because it outlived a time limit set by policy.
        Expired = "expired",
        /// The broker dead-lettered the message because of a queue length limit set by policy.
        Maxlen = "maxlen",
        /// The database rejects the row on every attempt.
        ConstraintViolation = "constraint_violation",
        /// A destination rejected a delivery.
        DeliveryRefused = "delivery_refused",
        /// A destination says that it already has a delivery, but cannot return it.
        DeliveryGone = "delivery_gone",
    }
}

/// A permanent failure of one event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{detail}", FieldPrefix(field))]
pub struct PermanentFailure {
    /// The stable code.
    pub reason: ReasonCode,
    /// The JSON pointer, column, header or property at fault; empty if the whole message
    /// is.
    pub field: String,
    /// What is wrong with it, without personal data.
    pub detail: String,
}

struct FieldPrefix<'a>(&'a str);

impl fmt::Display for FieldPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl PermanentFailure {
    /// A failure of the whole message.
    pub fn new(reason: ReasonCode, detail: impl Into<String>) -> Self {
        Self { reason, field: String::new(), detail: detail.into() }
    }

    /// A required field is missing.
    pub fn missing(field: impl Into<String>) -> Self {
        Self {
            reason: ReasonCode::MissingField,
            field: field.into(),
            detail: "is missing or null".to_owned(),
        }
    }

    /// A field's value cannot be used.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: ReasonCode::InvalidValue, field: field.into(), detail: detail.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_codes_round_trip() {
        for reason in ReasonCode::ALL {
            assert_eq!(reason.as_str().parse(), Ok(reason));
        }
        assert!("nonsense".parse::<ReasonCode>().is_err());
    }

    #[test]
    fn failure_message_names_its_field() {
        assert_eq!(PermanentFailure::missing("/total").to_string(), "/total: is missing or null");
        assert_eq!(PermanentFailure::invalid("/total", "no").to_string(), "/total: no");
        assert_eq!(PermanentFailure::new(ReasonCode::InvalidJson, "no").to_string(), "no");
    }
}
