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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::{
        Currency, InvoiceStatus, Money, Order, OrderStatus, RefundStatus, RefundTarget,
    };

    #[test]
    fn change_business_key_is_the_number_or_id_of_the_document() {
        let version = datetime!(2026-11-01 12:00 UTC);
        let total = Money { amount: 5.into(), currency: Currency::NONE };
        let order = Order {
            number: "#1001".to_owned(),
            status: OrderStatus::Paid,
            platform_status: "paid".to_owned(),
            total,
            refunded: 0.into(),
            customer_ref: None,
            payment_ref: None,
            sequence: 0,
            placed_at: None,
            lines: Vec::new(),
        };
        let order_id = "17".to_owned();
        let state =
            OrderUpdate::State { order_id, version, order: Box::new(order), restored: false };
        assert_eq!(state.order_id(), "17");
        let deleted = OrderUpdate::Deleted { order_id: "18".to_owned(), deleted_at: version };
        assert_eq!(deleted.order_id(), "18");
        let invoice = Invoice {
            document_id: Some("in_1".to_owned()),
            vendor: String::new(),
            invoice_number: "A-1".to_owned(),
            transaction_id: None,
            status: InvoiceStatus::Open,
            platform_status: "open".to_owned(),
            total,
            due_on: None,
            sequence: 0,
            version,
        };
        let deleted_invoice =
            DeletedInvoice { document_id: "in_2".to_owned(), deleted_at: version };
        let refund = |target| Refund {
            refund_id: "re_1".to_owned(),
            target,
            status: RefundStatus::Pending,
            platform_status: "pending".to_owned(),
            amount: total,
            cumulative: false,
            version,
        };
        let resource_change = ResourceChange {
            platform: "square",
            kind: "bill".to_owned(),
            id: "b_1".to_owned(),
            version: None,
            changed_at: version,
            action: "updated".to_owned(),
        };
        let of_order = refund(RefundTarget::Order("19".to_owned()));
        let of_payment = refund(RefundTarget::Payment("pi_1".to_owned()));
        for (change, expected) in [
            (Change::Order(Box::new(state)), "#1001"),
            (Change::Order(Box::new(deleted)), "18"),
            (Change::Invoice(Box::new(invoice)), "A-1"),
            (Change::InvoiceDeleted(Box::new(deleted_invoice)), "in_2"),
            (Change::Refund(Box::new(of_order)), "19"),
            (Change::Refund(Box::new(of_payment)), "pi_1"),
            (Change::ResourceChanged(Box::new(resource_change)), "b_1"),
        ] {
            assert_eq!(change.business_key(), expected, "{change:?}");
        }
    }
}
