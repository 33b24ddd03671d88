//! Orders: the canonical row, and how an event updates it.

use std::fmt;

use rust_decimal::Decimal;
use serde::Serialize;
use time::OffsetDateTime;

use super::Money;

/// An order's state in our words; the platform's own word stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OrderStatus {
    /// Placed, not paid.
    Pending,
    /// The money is reserved, not taken.
    Authorized,
    /// Some of it is paid.
    PartiallyPaid,
    /// All of it is paid.
    Paid,
    /// Some of it was paid back.
    PartiallyRefunded,
    /// All of it was paid back.
    Refunded,
    /// It will not happen.
    Cancelled,
    /// The payment failed.
    Failed,
    /// A state that we have no word for; see the platform's own.
    Other,
}

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 9] = [
        Self::Pending,
        Self::Authorized,
        Self::PartiallyPaid,
        Self::Paid,
        Self::PartiallyRefunded,
        Self::Refunded,
        Self::Cancelled,
        Self::Failed,
        Self::Other,
    ];

    /// The word, as it stands in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Authorized => "authorized",
            Self::PartiallyPaid => "partially_paid",
            Self::Paid => "paid",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Other => "other",
        }
    }

    /// The status with this word (any case), or `Other`: an unknown status
    /// must never cost an order.
    pub fn parse_or_other(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str().eq_ignore_ascii_case(word))
            .unwrap_or(Self::Other)
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One line of an order, as it stands in `orders.lines`. Amounts are decimal
/// strings, so that no JSON reader turns them into floats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderLine {
    /// The platform's id of the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The seller's article number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// What the customer was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Decimal>,
    /// Price of one, in the order's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Decimal>,
    /// Price of all, in the order's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Decimal>,
}

/// An order's whole state, as one event told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The number that people know it by, such as `#1001`.
    pub number: String,
    /// Our word for its state.
    pub status: OrderStatus,
    /// The platform's word for its state.
    pub platform_status: String,
    /// What it costs now.
    pub total: Money,
    /// How much of it was paid back so far, in the same currency.
    pub refunded: Decimal,
    /// The platform's id of the customer, or another reference to them.
    pub customer_ref: Option<String>,
    /// The platform's id of the payment, where its refunds name that and not
    /// the order.
    pub payment_ref: Option<String>,
    /// A number that the platform raises with each state, or the rank of the
    /// status where time tells no order; compared before the version. 0 where
    /// the version alone decides.
    pub sequence: i64,
    /// When it was placed.
    pub placed_at: Option<OffsetDateTime>,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
}

/// What happens to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderUpdate {
    /// Its state is this now.
    State {
        /// The platform's id of the order.
        order_id: String,
        /// The platform's version of this state.
        version: OffsetDateTime,
        /// The state.
        order: Box<Order>,
        /// True if this brings a deleted order back.
        restored: bool,
    },
    /// It was deleted; a tombstone stays.
    Deleted {
        /// The platform's id of the order.
        order_id: String,
        /// When.
        deleted_at: OffsetDateTime,
    },
}

impl OrderUpdate {
    /// The platform's id of the order.
    pub fn order_id(&self) -> &str {
        match self {
            Self::State { order_id, .. } | Self::Deleted { order_id, .. } => order_id,
        }
    }

    /// The order's number, or its id where the event does not tell the number.
    pub fn business_key(&self) -> &str {
        match self {
            Self::State { order, .. } => &order.number,
            Self::Deleted { order_id, .. } => order_id,
        }
    }
}
