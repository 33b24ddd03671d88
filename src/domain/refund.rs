//! Refunds, in the form in which they are stored.

use time::OffsetDateTime;

use super::{Money, string_enum};

string_enum! {
    /// The normalized state of a refund; the platform's own word is stored beside it.
    RefundStatus or Other {
        /// In progress.
        Pending = "pending",
        /// The money was paid back. Only this state counts.
        Succeeded = "succeeded",
        /// The refund failed.
        Failed = "failed",
        /// The refund was cancelled.
        Cancelled = "cancelled",
        /// Any other state; see the platform's word.
        Other = "other",
    }
}

/// What a refund refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RefundTarget {
    /// An order, by the platform's id.
    Order(String),
    /// A payment, by the platform's id. Its order is the one with the same
    /// [`super::Order::payment_ref`].
    Payment(String),
}

impl RefundTarget {
    /// The platform's id of the order or payment.
    pub fn id(&self) -> &str {
        match self {
            Self::Order(id) | Self::Payment(id) => id,
        }
    }
}

/// The complete state of a refund, as one event reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The platform's id of the refund. A refund counts once, however many events report
    /// it.
    pub refund_id: String,
    /// The refunded order or payment.
    pub target: RefundTarget,
    /// Normalized state.
    pub status: RefundStatus,
    /// The platform's word for the state.
    pub platform_status: String,
    /// Refunded amount.
    pub amount: Money,
    /// True if the amount is everything refunded of a payment so far. It is compared with
    /// the sum of the single refunds, never added to it.
    pub cumulative: bool,
    /// The platform's time of this state.
    pub version: OffsetDateTime,
}
