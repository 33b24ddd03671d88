//! The change that an event makes to the stored documents.

use super::{DeletedInvoice, Invoice, OrderUpdate, Refund, ResourceChange};

/// One change of one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An order is created, changed, deleted or restored.
    Order(Box<OrderUpdate>),
    /// An invoice is created or changed.
    Invoice(Box<Invoice>),
    /// The platform deleted an invoice; a tombstone row stays.
    InvoiceDeleted(Box<DeletedInvoice>),
    /// A refund is created or changed.
    Refund(Box<Refund>),
    /// A resource changed at the platform, and the event does not carry its new state.
    ResourceChanged(Box<ResourceChange>),
}

impl Change {
    /// The document's business number, by which operators search.
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

/// The result of mapping an event.
#[derive(Clone, Debug, PartialEq)]
pub enum MappedEvent {
    /// The event changes a document.
    Change(Change),
    /// The event changes nothing: a ping, a test, or a topic without a mapping.
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
