//! Orders, in the form in which they are stored.

use rust_decimal::Decimal;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Money, string_enum};

string_enum! {
    /// The normalized state of an order; the platform's own word is stored beside it.
    OrderStatus or Other {
        /// Placed, not paid.
        Pending = "pending",
        /// The payment is authorized, not captured.
        Authorized = "authorized",
        /// Partly paid.
        PartiallyPaid = "partially_paid",
        /// Fully paid.
        Paid = "paid",
        /// Partly refunded.
        PartiallyRefunded = "partially_refunded",
        /// Fully refunded.
        Refunded = "refunded",
        /// Cancelled before completion.
        Cancelled = "cancelled",
        /// The payment failed.
        Failed = "failed",
        /// Any other state; see the platform's word.
        Other = "other",
    }
}

/// One line of an order, as stored in `orders.lines`. Amounts are serialized as decimal
/// strings, so that JSON readers do not turn them into floats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OrderLine {
    /// The platform's id of the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The seller's article number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The title shown to the customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Decimal>,
    /// Price of one unit, in the order's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit_price: Option<Decimal>,
    /// Price of the line, in the order's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Decimal>,
}

/// The complete state of an order, as one event reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The order number shown to people, such as `#1001`.
    pub number: String,
    /// Normalized state.
    pub status: OrderStatus,
    /// The platform's word for the state.
    pub platform_status: String,
    /// Current total.
    pub total: Money,
    /// Amount refunded so far, in the same currency.
    pub refunded: Decimal,
    /// The platform's id of the customer, or another reference to the customer.
    pub customer_ref: Option<String>,
    /// The platform's id of the payment, if refunds name the payment and not the order.
    pub payment_ref: Option<String>,
    /// A number that the platform raises with each state, or the rank of the status if
    /// times give no order. Compared before the version; 0 if the version alone decides.
    pub sequence: i64,
    /// When the order was placed.
    pub placed_at: Option<OffsetDateTime>,
    /// The order lines.
    pub lines: Vec<OrderLine>,
}

/// A change of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderUpdate {
    /// The order has a new state.
    State {
        /// The platform's id of the order.
        order_id: String,
        /// The platform's time of this state.
        version: OffsetDateTime,
        /// The new state.
        order: Box<Order>,
        /// True if this restores a deleted order.
        restored: bool,
    },
    /// The order was deleted; a tombstone row stays.
    Deleted {
        /// The platform's id of the order.
        order_id: String,
        /// When it was deleted.
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

    /// The order number, or the order id if the event does not contain the number.
    pub fn business_key(&self) -> &str {
        match self {
            Self::State { order, .. } => &order.number,
            Self::Deleted { order_id, .. } => order_id,
        }
    }
}
