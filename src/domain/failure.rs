//! Why an event cannot be applied, now or ever.

use std::fmt;

use serde::Serialize;

/// Why a message is dead: a stable code, the same in SQL, metrics and CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// The body is not JSON, or not UTF-8.
    InvalidJson,
    /// A field (or AMQP property) that the mapping needs is not there.
    MissingField,
    /// A field is there, but its value cannot be what it must be.
    InvalidValue,
    /// No source of this name is configured.
    UnknownSource,
    /// The same event key with another body, from a sender that repeats the
    /// same bytes.
    ConflictingDuplicate,
    /// The same invoice number with another transaction, from a source that
    /// wants a person to see it.
    InvoiceConflict,
    /// Every retry failed.
    AttemptsExhausted,
    /// The broker gave up: the message was redelivered too often, as a
    /// message that crashes its worker is.
    DeliveryLimit,
    /// The broker gave up: the message outlived a time limit set by policy.
    Expired,
    /// The broker gave up: a length limit set by policy pushed it out.
    Maxlen,
    /// The database refuses the row, whatever we do.
    ConstraintViolation,
    /// A target refuses what it was sent.
    DeliveryRefused,
    /// A target says that it has what it was sent, and cannot show it.
    DeliveryGone,
}

impl ReasonCode {
    /// Every reason, for closed label sets and for help texts.
    pub const ALL: [Self; 13] = [
        Self::InvalidJson,
        Self::MissingField,
        Self::InvalidValue,
        Self::UnknownSource,
        Self::ConflictingDuplicate,
        Self::InvoiceConflict,
        Self::AttemptsExhausted,
        Self::DeliveryLimit,
        Self::Expired,
        Self::Maxlen,
        Self::ConstraintViolation,
        Self::DeliveryRefused,
        Self::DeliveryGone,
    ];

    /// The stable code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::MissingField => "missing_field",
            Self::InvalidValue => "invalid_value",
            Self::UnknownSource => "unknown_source",
            Self::ConflictingDuplicate => "conflicting_duplicate",
            Self::InvoiceConflict => "invoice_conflict",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::DeliveryLimit => "delivery_limit",
            Self::Expired => "expired",
            Self::Maxlen => "maxlen",
            Self::ConstraintViolation => "constraint_violation",
            Self::DeliveryRefused => "delivery_refused",
            Self::DeliveryGone => "delivery_gone",
        }
    }

    /// The reason with this code, if there is one.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == code)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A permanent failure of one event: the reason, the field at fault, and what
/// a person needs to know to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{detail}", FieldPrefix(field))]
pub struct PermanentFailure {
    /// The stable code.
    pub reason: ReasonCode,
    /// The JSON pointer, column, header or property at fault; empty if it is
    /// the message as a whole.
    pub field: String,
    /// What is wrong with it, in plain words, without personal data.
    pub detail: String,
}

struct FieldPrefix<'a>(&'a str);

impl fmt::Display for FieldPrefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "{}: ", self.0) }
    }
}

impl PermanentFailure {
    /// A failure of the message as a whole.
    pub fn new(reason: ReasonCode, detail: impl Into<String>) -> Self {
        Self { reason, field: String::new(), detail: detail.into() }
    }

    /// A field that must be there is not.
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
    fn codes_are_unique_and_read_back() {
        for reason in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_code(reason.as_str()), Some(reason));
        }
        assert_eq!(ReasonCode::from_code("nonsense"), None);
    }

    #[test]
    fn a_failure_names_its_field() {
        assert_eq!(PermanentFailure::missing("/total").to_string(), "/total: is missing or null");
        assert_eq!(PermanentFailure::new(ReasonCode::InvalidJson, "no").to_string(), "no");
    }
}
