//! What an event changes in the books.

use super::{Invoice, OrderUpdate};

/// One change of one row in the books.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An order appears, changes, is deleted or restored.
    Order(Box<OrderUpdate>),
    /// An invoice appears or changes.
    Invoice(Box<Invoice>),
}

impl Change {
    /// The number that people know the document by: what they search for.
    pub fn business_key(&self) -> &str {
        match self {
            Self::Order(update) => update.business_key(),
            Self::Invoice(invoice) => &invoice.invoice_number,
        }
    }
}

/// What an adapter made of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// It changes the books.
    Change(Change),
    /// It changes nothing: a ping, a test, a topic that nobody maps.
    Ignored,
}
