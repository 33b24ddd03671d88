//! Refunds: money that went back, by an id of its own.

use std::fmt;

use time::OffsetDateTime;

use super::Money;

/// A refund's state in our words; the platform's own word stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefundStatus {
    /// On its way.
    Pending,
    /// The money is back. Only this counts.
    Succeeded,
    /// It did not come about.
    Failed,
    /// It was taken back.
    Cancelled,
    /// A state that we have no word for; see the platform's own.
    Other,
}

impl RefundStatus {
    /// Every status.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Other];

    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Other => "other",
        }
    }

    /// The status with this word (any case), or `Other`.
    pub fn parse_or_other(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
            .unwrap_or(Self::Other)
    }
}

impl fmt::Display for RefundStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a refund says it pays back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RefundTarget {
    /// An order, by the platform's id.
    Order(String),
    /// A payment, by the platform's id: the order is the one that names the
    /// same payment ([`super::Order::payment_ref`]).
    Payment(String),
}

impl RefundTarget {
    /// The platform's id of whichever it is.
    pub fn id(&self) -> &str {
        match self {
            Self::Order(id) | Self::Payment(id) => id,
        }
    }
}

/// A refund's whole state, as one event told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The platform's id of the refund: applied once, however often it is told.
    pub refund_id: String,
    /// What it pays back.
    pub target: RefundTarget,
    /// Our word for its state.
    pub status: RefundStatus,
    /// The platform's word for its state.
    pub platform_status: String,
    /// How much.
    pub amount: Money,
    /// Whether that is all that went back of a payment so far, told by the
    /// payment itself: held against the refunds that are told one by one, and
    /// never added to them.
    pub cumulative: bool,
    /// The platform's version of this state.
    pub version: OffsetDateTime,
}
