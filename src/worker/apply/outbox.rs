//! Writes the deliveries for destinations in the transaction of their batch.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::documents::WriteResult;
use crate::{
    domain::{Change, DocumentEvent, SourceName, invoice::invoice_id},
    store::{Conn, StoreError, deliveries, deliveries::OutboxSubscription},
    worker::message::Message,
};

/// The destinations that subscribe to the documents of each source.
#[derive(Debug, Default)]
pub struct Outbox {
    subscriptions: BTreeMap<SourceName, SourceSubscriptions>,
    notify: Arc<Notify>,
}

/// The subscriptions to one source, by kind of document.
#[derive(Clone, Debug, Default)]
struct SourceSubscriptions {
    orders: Vec<OutboxSubscription>,
    invoices: Vec<OutboxSubscription>,
    refunds: Vec<OutboxSubscription>,
}

/// The distinct documents that a batch changed.
#[derive(Debug, Default)]
struct ChangedDocuments<'a> {
    orders: BTreeSet<(&'a str, &'a str)>,
    invoices: BTreeSet<Uuid>,
    refunds: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> ChangedDocuments<'a> {
    fn of(source: &SourceName, messages: &[&'a Message]) -> Self {
        let mut changed = Self::default();
        for message in messages {
            let envelope = &message.envelope;
            let (tenant, generation) = (envelope.tenant.as_str(), envelope.generation);
            for change in &message.changes {
                match change {
                    Change::Order(update) => {
                        changed.orders.insert((tenant, update.order_id()));
                    }
                    Change::Invoice(invoice) => {
                        changed.invoices.insert(invoice.id(source, tenant, generation));
                    }
                    Change::InvoiceDeleted(deleted) => {
                        let id = invoice_id(source, tenant, "", &deleted.document_id, generation);
                        changed.invoices.insert(id);
                    }
                    Change::Refund(refund) => {
                        changed.refunds.insert((tenant, refund.refund_id.as_str()));
                    }
                    // It has no content of the document.
                    Change::ResourceChanged(_) => {}
                }
            }
        }
        changed
    }
}

impl Outbox {
    /// An outbox with these subscriptions, each to the documents of a source.
    pub fn new(subscriptions: impl IntoIterator<Item = (SourceName, OutboxSubscription)>) -> Self {
        let mut outbox = Self::default();
        for (source, subscription) in subscriptions {
            let of_source = outbox.subscriptions.entry(source).or_default();
            of_source.for_event(subscription.event).push(subscription);
        }
        outbox
    }

    /// Notified whenever deliveries were committed.
    pub fn notifier(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }

    /// Wakes the delivery tasks after a commit.
    pub(super) fn notify_committed(&self, source: &SourceName) {
        if self.of_source(source).is_some() {
            self.notify.notify_waiters();
        }
    }

    /// Writes the deliveries for the changes that were applied.
    pub(super) async fn write(
        &self,
        conn: &mut Conn,
        source: &SourceName,
        written: &WriteResult,
        messages: &[&Message],
    ) -> Result<(), StoreError> {
        let Some(subscriptions) = self.of_source(source) else {
            return Ok(());
        };
        let applied: Vec<&Message> = messages
            .iter()
            .filter(|message| written.applied.contains_key(&message.envelope.receipt_id))
            .copied()
            .collect();
        let receipts: Vec<Uuid> =
            applied.iter().map(|message| message.envelope.receipt_id).collect();
        let changed = ChangedDocuments::of(source, &applied);
        let SourceSubscriptions { orders, invoices, refunds } = subscriptions;
        if !orders.is_empty() && !changed.orders.is_empty() {
            let changed: Vec<_> = changed.orders.into_iter().collect();
            deliveries::insert_for_orders(conn, source, orders, &changed, &receipts).await?;
        }
        if !refunds.is_empty() && !changed.refunds.is_empty() {
            let changed: Vec<_> = changed.refunds.into_iter().collect();
            deliveries::insert_for_refunds(conn, source, refunds, &changed, &receipts).await?;
        }
        if !invoices.is_empty() && !changed.invoices.is_empty() {
            let changed: Vec<Uuid> = changed.invoices.into_iter().collect();
            deliveries::insert_for_invoices(conn, invoices, &changed, &receipts).await?;
        }
        Ok(())
    }

    /// The subscriptions to a source, if there is any.
    fn of_source(&self, source: &SourceName) -> Option<&SourceSubscriptions> {
        self.subscriptions.get(source).filter(|subscriptions| !subscriptions.is_empty())
    }
}

impl SourceSubscriptions {
    fn for_event(&mut self, event: DocumentEvent) -> &mut Vec<OutboxSubscription> {
        match event {
            DocumentEvent::OrderUpserted | DocumentEvent::OrderDeleted => &mut self.orders,
            DocumentEvent::InvoiceCreated
            | DocumentEvent::InvoiceUpdated
            | DocumentEvent::InvoiceDeleted => &mut self.invoices,
            DocumentEvent::RefundUpserted => &mut self.refunds,
        }
    }

    fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.invoices.is_empty() && self.refunds.is_empty()
    }
}
