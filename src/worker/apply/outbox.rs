//! What other systems must hear of a batch, written with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{Message, documents::WriteResult};
use crate::{
    destinations::Destination,
    domain::{Change, DocumentEvent, SourceName, invoice::invoice_id},
    store::{Conn, StoreError, deliveries, deliveries::OutboxSubscription},
};

/// Which targets hear of which sources' documents.
#[derive(Debug, Default)]
pub struct Outbox {
    subscriptions: BTreeMap<SourceName, SourceSubscriptions>,
    notify: Arc<Notify>,
}

/// Who hears of one source's documents, by kind of document.
#[derive(Clone, Debug, Default)]
struct SourceSubscriptions {
    orders: Vec<OutboxSubscription>,
    invoices: Vec<OutboxSubscription>,
    refunds: Vec<OutboxSubscription>,
}

/// The documents that a batch changed, each once.
#[derive(Debug, Default)]
struct ChangedDocuments<'a> {
    orders: BTreeSet<(&'a str, &'a str)>,
    invoices: BTreeSet<Uuid>,
    refunds: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> ChangedDocuments<'a> {
    fn of(source: &SourceName, items: &[&'a Message]) -> Self {
        let mut changed = Self::default();
        for item in items {
            let (tenant, generation) = (item.envelope.tenant.as_str(), item.envelope.generation);
            for change in &item.changes {
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
                    // It says that something changed, and not what.
                    Change::ResourceChanged(_) => {}
                }
            }
        }
        changed
    }
}

impl Outbox {
    /// The targets that hear of these sources.
    pub fn new<'a>(
        sources: impl IntoIterator<Item = &'a SourceName>,
        targets: &BTreeMap<String, Destination>,
    ) -> Self {
        let of = |source: &SourceName| {
            let mut heard = SourceSubscriptions::default();
            for target in targets.values().filter(|target| target.subscribes_to(source)) {
                for event in &target.events {
                    let subscription = OutboxSubscription {
                        destination: target.name.clone(),
                        event: *event,
                        is_mirror: target.is_mirror(*event),
                    };
                    heard.for_event(*event).push(subscription);
                }
            }
            heard
        };
        let subscriptions =
            sources.into_iter().map(|source| (source.clone(), of(source))).collect();
        Self { subscriptions, notify: Arc::default() }
    }

    /// Told whenever something was written and committed.
    pub fn notifier(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }

    /// Tells whoever delivers that there is something to deliver.
    pub(super) fn notify_committed(&self, source: &SourceName) {
        if self.subscriptions.get(source).is_some_and(|heard| !heard.is_empty()) {
            self.notify.notify_waiters();
        }
    }

    /// Writes what is to be told of the changes that took effect.
    pub(super) async fn write(
        &self,
        conn: &mut Conn,
        source: &SourceName,
        told: &WriteResult,
        ours: &[&Message],
    ) -> Result<(), StoreError> {
        let Some(heard) = self.subscriptions.get(source).filter(|heard| !heard.is_empty()) else {
            return Ok(());
        };
        let applied =
            ours.iter().filter(|item| told.applied.contains_key(&item.envelope.receipt_id));
        let applied: Vec<&Message> = applied.copied().collect();
        let receipts: Vec<Uuid> = applied.iter().map(|item| item.envelope.receipt_id).collect();
        let changed = ChangedDocuments::of(source, &applied);
        if !heard.orders.is_empty() && !changed.orders.is_empty() {
            let orders: Vec<_> = changed.orders.into_iter().collect();
            deliveries::insert_for_orders(conn, source, &heard.orders, &orders, &receipts).await?;
        }
        if !heard.refunds.is_empty() && !changed.refunds.is_empty() {
            let refunds: Vec<_> = changed.refunds.into_iter().collect();
            deliveries::insert_for_refunds(conn, source, &heard.refunds, &refunds, &receipts)
                .await?;
        }
        if !heard.invoices.is_empty() && !changed.invoices.is_empty() {
            let invoices: Vec<Uuid> = changed.invoices.into_iter().collect();
            deliveries::insert_for_invoices(conn, &heard.invoices, &invoices, &receipts).await?;
        }
        Ok(())
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
