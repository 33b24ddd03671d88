//! The books: which changes of a batch go into which table, and in which
//! order.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use super::Message;
use crate::{
    domain::{
        Change, DeletedInvoice, Invoice, InvoiceConflict, OrderUpdate, PermanentFailure,
        ReasonCode, Refund, ResourceChange, SourceName, WriteKind,
    },
    store::{
        Conn, StoreError, invoices, orders, refunds,
        refunds::{AffectedOrder, Payment},
        resource_changes,
    },
};

/// What the tables made of a batch.
#[derive(Debug, Default)]
pub(super) struct WriteResult {
    /// The messages that changed something, and what they did to an order or
    /// an invoice, if they did.
    pub(super) applied: HashMap<Uuid, Option<WriteKind>>,
    /// Those that tell of an invoice with another transaction.
    pub(super) conflicts: HashMap<Uuid, PermanentFailure>,
}

impl WriteResult {
    /// Messages that changed something, whatever it was.
    fn mark_applied(&mut self, messages: HashSet<Uuid>) {
        for receipt_id in messages {
            // What is known of it already says more.
            self.applied.entry(receipt_id).or_default();
        }
    }
}

/// Writes the changes of items that hold their claims.
pub(super) async fn write(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    items: &[&Message],
) -> Result<WriteResult, StoreError> {
    let mut told = WriteResult::default();
    let changes = ChangesByTable::group(items);
    let payments = changes.payments();
    if !payments.is_empty() {
        let rows: Vec<Payment<'_>> = payments.iter().map(|(payment, _)| *payment).collect();
        refunds::upsert_payments(conn, source, &rows).await?;
    }
    let mut touched = affected_orders(conn, source, &changes, &payments).await?;
    lock_orders(conn, source, &changes.orders, &touched).await?;
    for round in split_by_document(
        changes.orders.iter().map(|row| ((row.tenant, row.update.order_id()), *row)),
    ) {
        let written = orders::upsert(conn, source, &round).await?;
        told.applied.extend(written.applied.into_iter().map(|(id, wrote)| (id, Some(wrote))));
        let unsummed =
            round.iter().filter(|row| written.currency_changed.contains(&row.receipt_id));
        touched.extend(unsummed.map(|row| (order_key(row), row.receipt_id)));
    }
    if !touched.is_empty() || !changes.refunds.is_empty() {
        told.mark_applied(write_refunds(conn, source, &changes.refunds, touched).await?);
    }
    write_invoices(conn, source, on_conflict, &changes.invoices, &mut told).await?;
    let gone = changes.deleted_invoices.iter();
    for round in split_by_document(gone.map(|row| ((row.tenant, &row.deleted.document_id), *row))) {
        told.mark_applied(invoices::mark_deleted(conn, source, &round).await?);
    }
    let things = changes.references.iter().map(|row| {
        let ResourceChange { kind, id, .. } = row.reference;
        ((row.tenant, kind, id), *row)
    });
    for round in split_by_document(things) {
        told.mark_applied(resource_changes::upsert(conn, source, &round).await?);
    }
    Ok(told)
}

/// A batch's changes by table, in the order in which they came.
#[derive(Default)]
struct ChangesByTable<'a> {
    orders: Vec<orders::OrderRow<'a>>,
    refunds: Vec<refunds::RefundRow<'a>>,
    invoices: Vec<invoices::InvoiceRow<'a>>,
    deleted_invoices: Vec<invoices::InvoiceDeletion<'a>>,
    references: Vec<resource_changes::ResourceChangeRow<'a>>,
}

impl<'a> ChangesByTable<'a> {
    fn group(items: &[&'a Message]) -> Self {
        let mut sorted = Self::default();
        for item in items {
            let (receipt_id, tenant) = (item.envelope.receipt_id, item.envelope.tenant.as_str());
            for change in &item.changes {
                match change {
                    Change::Order(update) => {
                        let update: &OrderUpdate = update;
                        sorted.orders.push(orders::OrderRow { receipt_id, tenant, update });
                    }
                    Change::Refund(refund) => {
                        let refund: &Refund = refund;
                        sorted.refunds.push(refunds::RefundRow { receipt_id, tenant, refund });
                    }
                    Change::Invoice(invoice) => {
                        let (invoice, generation): (&Invoice, _) =
                            (invoice, item.envelope.generation);
                        let row = invoices::InvoiceRow { receipt_id, tenant, generation, invoice };
                        sorted.invoices.push(row);
                    }
                    Change::InvoiceDeleted(deleted) => {
                        let deleted: &DeletedInvoice = deleted;
                        let row = invoices::InvoiceDeletion { receipt_id, tenant, deleted };
                        sorted.deleted_invoices.push(row);
                    }
                    Change::ResourceChanged(reference) => {
                        let reference: &ResourceChange = reference;
                        sorted.references.push(resource_changes::ResourceChangeRow {
                            receipt_id,
                            tenant,
                            reference,
                        });
                    }
                }
            }
        }
        sorted
    }

    /// The payments that orders or refunds name, each once, with a message
    /// that names it.
    fn payments(&self) -> Vec<(Payment<'a>, Uuid)> {
        let of_orders = self.orders.iter().filter_map(|row| match row.update {
            OrderUpdate::State { order_id, order, .. } => {
                Some((row, order.payment_ref.as_deref()?, Some(order_id.as_str())))
            }
            OrderUpdate::Deleted { .. } => None,
        });
        let of_orders = of_orders.map(|(row, payment_ref, order_id)| {
            (Payment { tenant: row.tenant, payment_ref, order_id }, row.receipt_id)
        });
        let of_refunds = self.refunds.iter().filter_map(|row| {
            let payment_ref = refunds::payment_of(row.refund)?;
            Some((Payment { tenant: row.tenant, payment_ref, order_id: None }, row.receipt_id))
        });
        let mut once = BTreeMap::new();
        // Whoever knows the order goes first.
        for (payment, receipt_id) in of_orders.chain(of_refunds) {
            once.entry((payment.tenant, payment.payment_ref)).or_insert((payment, receipt_id));
        }
        once.into_values().collect()
    }
}

/// Orders by tenant and id, each with a message that touches it.
type AffectedOrders = BTreeMap<(String, String), Uuid>;

fn order_key(row: &orders::OrderRow<'_>) -> (String, String) {
    (row.tenant.to_owned(), row.update.order_id().to_owned())
}

/// The orders whose refunds are to be summed, as far as they are known.
async fn affected_orders(
    conn: &mut Conn,
    source: &SourceName,
    changes: &ChangesByTable<'_>,
    payments: &[(Payment<'_>, Uuid)],
) -> Result<AffectedOrders, StoreError> {
    let mut touched = AffectedOrders::new();
    for row in &changes.refunds {
        if let Some(order_id) = refunds::order_of(row.refund) {
            // The first refund of an order that nobody told of has an effect;
            // one that follows may be stale, and no row may stand on it.
            touched.entry((row.tenant.to_owned(), order_id.to_owned())).or_insert(row.receipt_id);
        }
    }
    if !payments.is_empty() {
        for AffectedOrder { tenant, order_id, receipt_id } in
            refunds::orders_paid_by(conn, source, payments).await?
        {
            touched.entry((tenant, order_id)).or_insert(receipt_id);
        }
    }
    Ok(touched)
}

/// Locks the batch's orders and those whose refunds it tells in one sorted
/// statement. Written first and locked after, they would meet in both orders:
/// another batch may have them the other way round.
async fn lock_orders(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[orders::OrderRow<'_>],
    touched: &AffectedOrders,
) -> Result<(), StoreError> {
    if touched.is_empty() {
        return Ok(());
    }
    let mut all = AffectedOrders::new();
    for row in rows {
        all.entry(order_key(row)).or_insert(row.receipt_id);
    }
    // Else the writing itself locks them all, sorted.
    if touched.keys().any(|order| !all.contains_key(order)) {
        for (order, receipt_id) in touched {
            all.entry(order.clone()).or_insert(*receipt_id);
        }
        refunds::lock_orders(conn, source, &into_list(all)).await?;
    }
    Ok(())
}

fn into_list(orders: AffectedOrders) -> Vec<AffectedOrder> {
    let touched = |((tenant, order_id), receipt_id)| AffectedOrder { tenant, order_id, receipt_id };
    orders.into_iter().map(touched).collect()
}

async fn write_refunds(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[refunds::RefundRow<'_>],
    touched: AffectedOrders,
) -> Result<HashSet<Uuid>, StoreError> {
    let mut applied = HashSet::new();
    for round in
        split_by_document(rows.iter().map(|row| ((row.tenant, &row.refund.refund_id), *row)))
    {
        applied.extend(refunds::upsert(conn, source, &round).await?);
    }
    refunds::recompute_refunded(conn, source, &into_list(touched)).await?;
    Ok(applied)
}

async fn write_invoices(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    rows: &[invoices::InvoiceRow<'_>],
    told: &mut WriteResult,
) -> Result<(), StoreError> {
    let documents = rows.iter().map(|row| {
        let invoice = row.invoice;
        let document = invoice.document_id.as_ref();
        let named = (&invoice.vendor, &invoice.invoice_number);
        let name = document.map_or((None, Some(named)), |document| (Some(document), None));
        ((row.tenant, name, row.generation), *row)
    });
    for round in split_by_document(documents) {
        let applied = invoices::upsert(conn, source, on_conflict, &round).await?;
        let refused = round.iter().filter(|row| !applied.contains_key(&row.receipt_id));
        let refused: Vec<invoices::InvoiceRow<'_>> = refused.copied().collect();
        told.applied.extend(applied.into_iter().map(|(id, wrote)| (id, Some(wrote))));
        if on_conflict == InvoiceConflict::Update || refused.is_empty() {
            continue;
        }
        let standing = invoices::transaction_conflicts(conn, source, &refused).await?;
        told.conflicts.extend(refused.iter().filter_map(|row| {
            let standing = standing.get(&row.receipt_id)?;
            Some((row.receipt_id, conflict_failure(row.invoice, standing)))
        }));
    }
    Ok(())
}

/// Both sides of a conflict, for the person who decides.
fn conflict_failure(invoice: &Invoice, standing: &str) -> PermanentFailure {
    let Invoice { vendor, invoice_number, transaction_id, total, .. } = invoice;
    let of_vendor = if vendor.is_empty() { String::new() } else { format!(" of {vendor}") };
    let transaction = transaction_id.as_deref().unwrap_or_default();
    PermanentFailure::new(
        ReasonCode::InvoiceConflict,
        format!(
            "invoice {invoice_number}{of_vendor} stands with {standing}; this one tells \
             transaction {transaction} over {} {}",
            total.amount, total.currency
        ),
    )
}

/// Sorts changes into rounds, each of which holds every document at most
/// once, in the order of arrival: a set statement cannot touch a row twice,
/// and each event must see the effect of the one before it.
fn split_by_document<K: std::hash::Hash + Eq, T>(
    changes: impl Iterator<Item = (K, T)>,
) -> Vec<Vec<T>> {
    let mut seen: HashMap<K, usize> = HashMap::new();
    let mut rounds: Vec<Vec<T>> = Vec::new();
    for (document, change) in changes {
        let round = seen.entry(document).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(change);
        *round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_keep_the_order_of_each_document() {
        let changes = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5), ("c", 6)];
        assert_eq!(split_by_document(changes.into_iter()), [vec![1, 2, 6], vec![3, 5], vec![4]]);
    }
}
