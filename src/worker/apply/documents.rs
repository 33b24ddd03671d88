//! Writes the changes of a batch to the document tables: which change goes into
//! which table, and in which order.

use std::collections::{BTreeMap, HashMap, HashSet};

use uuid::Uuid;

use crate::{
    domain::{
        Change, DeletedInvoice, Invoice, InvoiceConflict, OrderUpdate, PermanentFailure,
        ReasonCode, Refund, ResourceChange, SourceName, WriteKind,
    },
    store::{
        Conn, StoreError, invoices, orders,
        refunds::{self, AffectedOrder, Payment},
        resource_changes,
    },
    worker::message::Message,
};

/// What the tables did with the changes of a batch, by receipt.
#[derive(Debug, Default)]
pub(super) struct WriteResult {
    /// Messages that changed a row; with what they did to an order or invoice,
    /// if they did.
    pub(super) applied: HashMap<Uuid, Option<WriteKind>>,
    /// Messages whose invoice exists with another transaction.
    pub(super) conflicts: HashMap<Uuid, PermanentFailure>,
}

impl WriteResult {
    fn mark_applied(&mut self, receipt_ids: HashSet<Uuid>) {
        for receipt_id in receipt_ids {
            // A known write kind says more.
            self.applied.entry(receipt_id).or_default();
        }
    }
}

/// Writes the changes of messages that hold their event keys.
pub(super) async fn write(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    messages: &[&Message],
) -> Result<WriteResult, StoreError> {
    let mut result = WriteResult::default();
    let changes = ChangesByTable::group(messages);
    let payments = changes.payments();
    if !payments.is_empty() {
        let rows: Vec<Payment<'_>> = payments.iter().map(|(payment, _)| *payment).collect();
        refunds::upsert_payments(conn, source, &rows).await?;
    }
    let mut affected = affected_orders(conn, source, &changes, &payments).await?;
    lock_orders(conn, source, &changes.orders, &affected).await?;
    let orders = changes.orders.iter().map(|row| ((row.tenant, row.update.order_id()), *row));
    for rows in split_by_document(orders) {
        let written = orders::upsert(conn, source, &rows).await?;
        result.applied.extend(written.applied.into_iter().map(|(id, kind)| (id, Some(kind))));
        let with_new_currency =
            rows.iter().filter(|row| written.currency_changed.contains(&row.receipt_id));
        affected.extend(with_new_currency.map(|row| (order_key(row), row.receipt_id)));
    }
    if !affected.is_empty() || !changes.refunds.is_empty() {
        result.mark_applied(write_refunds(conn, source, &changes.refunds, affected).await?);
    }
    write_invoices(conn, source, on_conflict, &changes.invoices, &mut result).await?;
    let deletions = changes.deleted_invoices.iter();
    let deletions = deletions.map(|row| ((row.tenant, &row.deleted.document_id), *row));
    for rows in split_by_document(deletions) {
        result.mark_applied(invoices::mark_deleted(conn, source, &rows).await?);
    }
    let resources = changes.resource_changes.iter().map(|row| {
        let ResourceChange { kind, id, .. } = row.change;
        ((row.tenant, kind, id), *row)
    });
    for rows in split_by_document(resources) {
        result.mark_applied(resource_changes::upsert(conn, source, &rows).await?);
    }
    Ok(result)
}

/// The changes of a batch by table, in the order of arrival.
#[derive(Default)]
struct ChangesByTable<'a> {
    orders: Vec<orders::OrderRow<'a>>,
    refunds: Vec<refunds::RefundRow<'a>>,
    invoices: Vec<invoices::InvoiceRow<'a>>,
    deleted_invoices: Vec<invoices::InvoiceDeletion<'a>>,
    resource_changes: Vec<resource_changes::ResourceChangeRow<'a>>,
}

impl<'a> ChangesByTable<'a> {
    fn group(messages: &[&'a Message]) -> Self {
        let mut grouped = Self::default();
        for message in messages {
            let envelope = &message.envelope;
            let (receipt_id, tenant) = (envelope.receipt_id, envelope.tenant.as_str());
            for change in &message.changes {
                match change {
                    Change::Order(update) => {
                        let update: &OrderUpdate = update;
                        grouped.orders.push(orders::OrderRow { receipt_id, tenant, update });
                    }
                    Change::Refund(refund) => {
                        let refund: &Refund = refund;
                        grouped.refunds.push(refunds::RefundRow { receipt_id, tenant, refund });
                    }
                    Change::Invoice(invoice) => {
                        let (invoice, generation): (&Invoice, _) = (invoice, envelope.generation);
                        let row = invoices::InvoiceRow { receipt_id, tenant, generation, invoice };
                        grouped.invoices.push(row);
                    }
                    Change::InvoiceDeleted(deleted) => {
                        let deleted: &DeletedInvoice = deleted;
                        let row = invoices::InvoiceDeletion { receipt_id, tenant, deleted };
                        grouped.deleted_invoices.push(row);
                    }
                    Change::ResourceChanged(change) => {
                        let change: &ResourceChange = change;
                        let row =
                            resource_changes::ResourceChangeRow { receipt_id, tenant, change };
                        grouped.resource_changes.push(row);
                    }
                }
            }
        }
        grouped
    }

    /// The distinct payments of orders and refunds, each with the receipt of a
    /// message that refers to it.
    fn payments(&self) -> Vec<(Payment<'a>, Uuid)> {
        let of_orders = self.orders.iter().filter_map(|row| match row.update {
            OrderUpdate::State { order_id, order, .. } => {
                let payment_ref = order.payment_ref.as_deref()?;
                let order_id = Some(order_id.as_str());
                Some((Payment { tenant: row.tenant, payment_ref, order_id }, row.receipt_id))
            }
            OrderUpdate::Deleted { .. } => None,
        });
        let of_refunds = self.refunds.iter().filter_map(|row| {
            let payment_ref = refunds::payment_of(row.refund)?;
            Some((Payment { tenant: row.tenant, payment_ref, order_id: None }, row.receipt_id))
        });
        let mut distinct = BTreeMap::new();
        // Orders first: a refund does not know the order of its payment.
        for (payment, receipt_id) in of_orders.chain(of_refunds) {
            let key = (payment.tenant, payment.payment_ref);
            distinct.entry(key).or_insert((payment, receipt_id));
        }
        distinct.into_values().collect()
    }
}

/// Orders by tenant and id, each with the receipt of a message that affects it.
type AffectedOrders = BTreeMap<(String, String), Uuid>;

fn order_key(row: &orders::OrderRow<'_>) -> (String, String) {
    (row.tenant.to_owned(), row.update.order_id().to_owned())
}

/// The known orders whose refunded amount must be computed again.
async fn affected_orders(
    conn: &mut Conn,
    source: &SourceName,
    changes: &ChangesByTable<'_>,
    payments: &[(Payment<'_>, Uuid)],
) -> Result<AffectedOrders, StoreError> {
    let mut affected = AffectedOrders::new();
    for row in &changes.refunds {
        if let Some(order_id) = refunds::order_of(row.refund) {
            // The first refund of an unknown order is applied and creates the
            // order's row. A later one may be stale and must not create it.
            let key = (row.tenant.to_owned(), order_id.to_owned());
            affected.entry(key).or_insert(row.receipt_id);
        }
    }
    if !payments.is_empty() {
        for AffectedOrder { tenant, order_id, receipt_id } in
            refunds::orders_paid_by(conn, source, payments).await?
        {
            affected.entry((tenant, order_id)).or_insert(receipt_id);
        }
    }
    Ok(affected)
}

/// Locks the orders of the batch and those affected by its refunds in one
/// sorted statement. If the orders were written first and the affected ones
/// locked after, two batches could lock them in opposite order.
async fn lock_orders(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[orders::OrderRow<'_>],
    affected: &AffectedOrders,
) -> Result<(), StoreError> {
    if affected.is_empty() {
        return Ok(());
    }
    let mut all = AffectedOrders::new();
    for row in rows {
        all.entry(order_key(row)).or_insert(row.receipt_id);
    }
    // If the batch writes all affected orders, its upsert locks them, sorted.
    if affected.keys().any(|order| !all.contains_key(order)) {
        for (order, receipt_id) in affected {
            all.entry(order.clone()).or_insert(*receipt_id);
        }
        refunds::lock_orders(conn, source, &into_list(all)).await?;
    }
    Ok(())
}

fn into_list(orders: AffectedOrders) -> Vec<AffectedOrder> {
    orders
        .into_iter()
        .map(|((tenant, order_id), receipt_id)| AffectedOrder { tenant, order_id, receipt_id })
        .collect()
}

async fn write_refunds(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[refunds::RefundRow<'_>],
    affected: AffectedOrders,
) -> Result<HashSet<Uuid>, StoreError> {
    let mut applied = HashSet::new();
    let refunds = rows.iter().map(|row| ((row.tenant, &row.refund.refund_id), *row));
    for rows in split_by_document(refunds) {
        applied.extend(refunds::upsert(conn, source, &rows).await?);
    }
    refunds::recompute_refunded(conn, source, &into_list(affected)).await?;
    Ok(applied)
}

async fn write_invoices(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    rows: &[invoices::InvoiceRow<'_>],
    result: &mut WriteResult,
) -> Result<(), StoreError> {
    let invoices = rows.iter().map(|row| {
        let invoice = row.invoice;
        let document_id = invoice.document_id.as_ref();
        let number = (&invoice.vendor, &invoice.invoice_number);
        let identity = document_id.map_or((None, Some(number)), |id| (Some(id), None));
        ((row.tenant, identity, row.generation), *row)
    });
    for rows in split_by_document(invoices) {
        let applied = invoices::upsert(conn, source, on_conflict, &rows).await?;
        let not_applied: Vec<invoices::InvoiceRow<'_>> =
            rows.iter().filter(|row| !applied.contains_key(&row.receipt_id)).copied().collect();
        result.applied.extend(applied.into_iter().map(|(id, kind)| (id, Some(kind))));
        if on_conflict == InvoiceConflict::Update || not_applied.is_empty() {
            continue;
        }
        let conflicts = invoices::transaction_conflicts(conn, source, &not_applied).await?;
        for row in &not_applied {
            if let Some(existing) = conflicts.get(&row.receipt_id) {
                result.conflicts.insert(row.receipt_id, conflict_failure(row.invoice, existing));
            }
        }
    }
    Ok(())
}

/// The failure of an invoice that exists with another transaction. Its detail
/// describes both, for the operator who decides.
fn conflict_failure(invoice: &Invoice, existing: &str) -> PermanentFailure {
    let Invoice { vendor, invoice_number, transaction_id, total, .. } = invoice;
    let of_vendor = if vendor.is_empty() { String::new() } else { format!(" of {vendor}") };
    let transaction = transaction_id.as_deref().unwrap_or_default();
    PermanentFailure::new(
        ReasonCode::InvoiceConflict,
        format!(
            "invoice {invoice_number}{of_vendor} exists with {existing}; this event has \
             transaction {transaction} over {} {}",
            total.amount, total.currency
        ),
    )
}

/// Splits changes into lists that hold each document at most once, in the order
/// of arrival. A set statement cannot write a row twice, and each event must
/// see the effect of the one before it.
fn split_by_document<K: std::hash::Hash + Eq, T>(
    changes: impl Iterator<Item = (K, T)>,
) -> Vec<Vec<T>> {
    let mut count_of: HashMap<K, usize> = HashMap::new();
    let mut lists: Vec<Vec<T>> = Vec::new();
    for (document, change) in changes {
        let count = count_of.entry(document).or_default();
        if lists.len() == *count {
            lists.push(Vec::new());
        }
        lists[*count].push(change);
        *count += 1;
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_by_document_repeated_document_keeps_its_order() {
        let changes = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5), ("c", 6)];
        let lists = split_by_document(changes.into_iter());
        assert_eq!(lists, [vec![1, 2, 6], vec![3, 5], vec![4]]);
    }
}
