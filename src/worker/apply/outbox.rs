//! What other systems must hear of a batch, written with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::Notify;
use uuid::Uuid;

use super::{Item, books::Told};
use crate::{
    domain::{Change, DocumentEvent, SourceName, invoice::invoice_id},
    store::{
        Conn, StoreError,
        deliveries::{self, Subscription},
    },
    target::Target,
};

/// Which targets hear of which sources' documents.
#[derive(Debug, Default)]
pub struct Outbox {
    heard: BTreeMap<SourceName, Subscriptions>,
    written: Arc<Notify>,
}

/// Who hears of one source's documents, by kind of document.
#[derive(Clone, Debug, Default)]
struct Subscriptions {
    orders: Vec<Subscription>,
    invoices: Vec<Subscription>,
    refunds: Vec<Subscription>,
}

/// The documents that a batch changed, each once.
#[derive(Debug, Default)]
struct Changed<'a> {
    orders: BTreeSet<(&'a str, &'a str)>,
    invoices: BTreeSet<Uuid>,
    refunds: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Changed<'a> {
    fn of(source: &SourceName, items: &[&'a Item]) -> Self {
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
                    Change::Reference(_) => {}
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
        targets: &BTreeMap<String, Target>,
    ) -> Self {
        let of = |source: &SourceName| {
            let mut heard = Subscriptions::default();
            for target in targets.values().filter(|target| target.hears(source)) {
                for event in &target.events {
                    let subscription = Subscription {
                        target: target.name.clone(),
                        event: *event,
                        mirror: target.mirrors(*event),
                    };
                    heard.of(*event).push(subscription);
                }
            }
            heard
        };
        let heard = sources.into_iter().map(|source| (source.clone(), of(source))).collect();
        Self { heard, written: Arc::default() }
    }

    /// Told whenever something was written and committed.
    pub fn written(&self) -> Arc<Notify> {
        Arc::clone(&self.written)
    }

    /// Tells whoever delivers that there is something to deliver.
    pub(super) fn committed(&self, source: &SourceName) {
        if self.heard.get(source).is_some_and(|heard| !heard.is_empty()) {
            self.written.notify_waiters();
        }
    }

    /// Writes what is to be told of the changes that took effect.
    pub(super) async fn write(
        &self,
        conn: &mut Conn,
        source: &SourceName,
        told: &Told,
        ours: &[&Item],
    ) -> Result<(), StoreError> {
        let Some(heard) = self.heard.get(source).filter(|heard| !heard.is_empty()) else {
            return Ok(());
        };
        let applied =
            ours.iter().filter(|item| told.applied.contains_key(&item.envelope.receipt_id));
        let applied: Vec<&Item> = applied.copied().collect();
        let receipts: Vec<Uuid> = applied.iter().map(|item| item.envelope.receipt_id).collect();
        let changed = Changed::of(source, &applied);
        if !heard.orders.is_empty() && !changed.orders.is_empty() {
            let orders: Vec<_> = changed.orders.into_iter().collect();
            deliveries::write_orders(conn, source, &heard.orders, &orders, &receipts).await?;
        }
        if !heard.refunds.is_empty() && !changed.refunds.is_empty() {
            let refunds: Vec<_> = changed.refunds.into_iter().collect();
            deliveries::write_refunds(conn, source, &heard.refunds, &refunds, &receipts).await?;
        }
        if !heard.invoices.is_empty() && !changed.invoices.is_empty() {
            let invoices: Vec<Uuid> = changed.invoices.into_iter().collect();
            deliveries::write_invoices(conn, &heard.invoices, &invoices, &receipts).await?;
        }
        Ok(())
    }
}

impl Subscriptions {
    fn of(&mut self, event: DocumentEvent) -> &mut Vec<Subscription> {
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
