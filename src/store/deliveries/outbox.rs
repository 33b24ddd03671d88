//! The outbox: deliveries that are written in the transaction that changed their documents.
//!
//! Each statement finds the documents that the batch changed by their last receipt. A document that
//! changed twice in one batch has one delivery, of its last state.

use uuid::Uuid;

use crate::{
    domain::{DocumentEvent, SourceName},
    store::{Conn, StoreError},
};

/// A destination's subscription to an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSubscription {
    /// The destination's name in the configuration.
    pub destination: String,
    /// The event.
    pub event: DocumentEvent,
    /// Whether the destination keeps a copy of the invoice.
    pub is_mirror: bool,
}

/// Subscriptions as columns for `unnest`.
struct SubscriptionColumns<'a> {
    destinations: Vec<&'a str>,
    events: Vec<&'a str>,
    are_mirrors: Vec<bool>,
}

impl<'a> SubscriptionColumns<'a> {
    fn of(subscriptions: &'a [OutboxSubscription]) -> Self {
        Self {
            destinations: column!(subscriptions, row => row.destination.as_str()),
            events: column!(subscriptions, row => row.event.as_str()),
            are_mirrors: column!(subscriptions, row => row.is_mirror),
        }
    }
}

/// Writes deliveries of the invoices that these messages changed.
///
/// # Errors
/// A database error.
pub async fn insert_for_invoices(
    conn: &mut Conn,
    subscriptions: &[OutboxSubscription],
    invoice_ids: &[Uuid],
    receipt_ids: &[Uuid],
) -> Result<u64, StoreError> {
    let columns = SubscriptionColumns::of(subscriptions);
    let inserted = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number,
            cause_receipt_id, receipt_id, document)
        select subscription.destination, subscription.event, subscription.is_mirror,
            changed.source, changed.tenant, changed.invoice_id::text, changed.invoice_number,
            -- An invoice is created once, whichever message created it.
            case when subscription.event = 'invoice.created'
                then '00000000-0000-0000-0000-000000000000'::uuid else changed.last_receipt end,
            changed.last_receipt, changed.document
        from (
            select invoices.*, invoice_document(invoices) as document, case
                when deleted_at is not null then 'invoice.deleted'
                when first_receipt = any($2) then 'invoice.created'
                else 'invoice.updated' end as event
            from invoices
            where invoice_id = any($1) and last_receipt = any($2)
        ) as changed
        join unnest($3::text[], $4::text[], $5::boolean[])
            as subscription (destination, event, is_mirror) using (event)
        order by changed.invoice_id, subscription.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        invoice_ids,
        receipt_ids,
        &columns.destinations as &[&str],
        &columns.events as &[&str],
        &columns.are_mirrors,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected())
}

/// Writes deliveries of the orders that these messages changed. Each order is given as its tenant
/// and id.
///
/// # Errors
/// A database error.
pub async fn insert_for_orders(
    conn: &mut Conn,
    source: &SourceName,
    subscriptions: &[OutboxSubscription],
    orders: &[(&str, &str)],
    receipt_ids: &[Uuid],
) -> Result<u64, StoreError> {
    let columns = SubscriptionColumns::of(subscriptions);
    let inserted = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number,
            cause_receipt_id, receipt_id, document)
        select subscription.destination, subscription.event, subscription.is_mirror,
            changed.source, changed.tenant, changed.order_id, changed.number,
            changed.last_receipt, changed.last_receipt, changed.document
        from (
            select known.*, order_document(known) as document, case
                when known.deleted_at is not null then 'order.deleted'
                else 'order.upserted' end as event
            from unnest($2::text[], $3::text[]) as touched (tenant, order_id)
            join orders as known
                on known.source = $1 and known.tenant = touched.tenant
                and known.order_id = touched.order_id
            where known.last_receipt = any($4)
        ) as changed
        join unnest($5::text[], $6::text[], $7::boolean[])
            as subscription (destination, event, is_mirror) using (event)
        order by changed.tenant, changed.order_id, subscription.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        source.as_str(),
        &column!(orders, (tenant, _) => *tenant) as &[&str],
        &column!(orders, (_, order_id) => *order_id) as &[&str],
        receipt_ids,
        &columns.destinations as &[&str],
        &columns.events as &[&str],
        &columns.are_mirrors,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected())
}

/// Writes deliveries of the refunds that these messages changed. Each refund is given as its tenant
/// and id.
///
/// # Errors
/// A database error.
pub async fn insert_for_refunds(
    conn: &mut Conn,
    source: &SourceName,
    subscriptions: &[OutboxSubscription],
    refunds: &[(&str, &str)],
    receipt_ids: &[Uuid],
) -> Result<u64, StoreError> {
    let columns = SubscriptionColumns::of(subscriptions);
    let inserted = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number,
            cause_receipt_id, receipt_id, document)
        select subscription.destination, subscription.event, subscription.is_mirror,
            changed.source, changed.tenant, changed.refund_id, changed.order_id,
            changed.last_receipt, changed.last_receipt, changed.document
        from (
            select known.*, refund_document(known) as document, 'refund.upserted' as event
            from unnest($2::text[], $3::text[]) as touched (tenant, refund_id)
            join refunds as known
                on known.refund_id = touched.refund_id and known.tenant = touched.tenant
                and known.source = $1
            where known.last_receipt = any($4)
        ) as changed
        join unnest($5::text[], $6::text[], $7::boolean[])
            as subscription (destination, event, is_mirror) using (event)
        order by changed.tenant, changed.refund_id, subscription.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        source.as_str(),
        &column!(refunds, (tenant, _) => *tenant) as &[&str],
        &column!(refunds, (_, refund_id) => *refund_id) as &[&str],
        receipt_ids,
        &columns.destinations as &[&str],
        &columns.events as &[&str],
        &columns.are_mirrors,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected())
}
