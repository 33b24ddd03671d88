//! What an event changes in the books.

use super::{DeletedInvoice, Invoice, OrderUpdate, Refund, ResourceChange};

/// One change of one row in the books.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An order appears, changes, is deleted or restored.
    Order(Box<OrderUpdate>),
    /// An invoice appears or changes.
    Invoice(Box<Invoice>),
    /// An invoice is deleted at the platform; a tombstone stays.
    InvoiceDeleted(Box<DeletedInvoice>),
    /// Money goes back.
    Refund(Box<Refund>),
    /// Something changed at the platform, which did not say what it is now.
    ResourceChanged(Box<ResourceChange>),
}

impl Change {
    /// The number that people know the document by: what they search for.
    pub fn business_key(&self) -> &str {
        match self {
            Self::Order(update) => update.business_key(),
            Self::Invoice(invoice) => &invoice.invoice_number,
            Self::InvoiceDeleted(deleted) => &deleted.document_id,
            Self::Refund(refund) => refund.target.id(),
            Self::ResourceChanged(reference) => &reference.id,
        }
    }
}

/// What an adapter made of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum MappedEvent {
    /// It changes the books.
    Change(Change),
    /// It changes nothing: a ping, a test, a topic that nobody maps.
    Ignored,
}

impl From<OrderUpdate> for MappedEvent {
    fn from(update: OrderUpdate) -> Self {
        Self::Change(Change::Order(Box::new(update)))
    }
}

impl From<Invoice> for MappedEvent {
    fn from(invoice: Invoice) -> Self {
        Self::Change(Change::Invoice(Box::new(invoice)))
    }
}

impl From<Refund> for MappedEvent {
    fn from(refund: Refund) -> Self {
        Self::Change(Change::Refund(Box::new(refund)))
    }
}

impl From<ResourceChange> for MappedEvent {
    fn from(reference: ResourceChange) -> Self {
        Self::Change(Change::ResourceChanged(Box::new(reference)))
    }
}
