//! The outbox: deliveries written in the transaction that changed the
//! documents they tell of.
//!
//! Each statement finds the rows that the batch changed by the receipt that
//! changed them last. What changed twice in one batch is told once, as it
//! stands in the end.

use uuid::Uuid;

use crate::{
    domain::{DocumentEvent, SourceName},
    store::{Conn, StoreError},
};

/// That a target hears of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxSubscription {
    /// The target.
    pub destination: String,
    /// The event.
    pub event: DocumentEvent,
    /// Whether what it makes of it is a mirror.
    pub is_mirror: bool,
}

/// Subscriptions turned on their side, as `unnest` wants them.
struct SubscriptionColumns<'a> {
    destinations: Vec<&'a str>,
    events: Vec<&'a str>,
    are_mirrors: Vec<bool>,
}

impl<'a> SubscriptionColumns<'a> {
    fn of(subscriptions: &'a [OutboxSubscription]) -> Self {
        Self {
            destinations: subscriptions.iter().map(|one| one.destination.as_str()).collect(),
            events: subscriptions.iter().map(|one| one.event.as_str()).collect(),
            are_mirrors: subscriptions.iter().map(|one| one.is_mirror).collect(),
        }
    }
}

/// Tells of invoices that these messages changed.
///
/// # Errors
/// What the database says.
pub async fn insert_for_invoices(
    conn: &mut Conn,
    subscriptions: &[OutboxSubscription],
    invoices: &[Uuid],
    receipts: &[Uuid],
) -> Result<u64, StoreError> {
    let SubscriptionColumns { destinations: targets, events, are_mirrors: mirrors } =
        SubscriptionColumns::of(subscriptions);
    let written = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number, cause_receipt_id,
            receipt_id, document)
        select heard.destination, heard.event, heard.is_mirror, changed.source, changed.tenant,
            changed.invoice_id::text, changed.invoice_number,
            -- Once for each invoice, whichever message it was.
            case when heard.event = 'invoice.created'
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
        join unnest($3::text[], $4::text[], $5::boolean[]) as heard (destination, event, is_mirror)
            using (event)
        order by changed.invoice_id, heard.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        invoices,
        receipts,
        &targets as &[&str],
        &events as &[&str],
        &mirrors,
    )
    .execute(conn)
    .await?;
    Ok(written.rows_affected())
}

/// Tells of orders that these messages changed; each with its tenant.
///
/// # Errors
/// What the database says.
pub async fn insert_for_orders(
    conn: &mut Conn,
    source: &SourceName,
    subscriptions: &[OutboxSubscription],
    orders: &[(&str, &str)],
    receipts: &[Uuid],
) -> Result<u64, StoreError> {
    let SubscriptionColumns { destinations: targets, events, are_mirrors: mirrors } =
        SubscriptionColumns::of(subscriptions);
    let tenants: Vec<&str> = orders.iter().map(|(tenant, _)| *tenant).collect();
    let ids: Vec<&str> = orders.iter().map(|(_, id)| *id).collect();
    let written = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number, cause_receipt_id,
            receipt_id, document)
        select heard.destination, heard.event, heard.is_mirror, changed.source, changed.tenant,
            changed.order_id, changed.number, changed.last_receipt, changed.last_receipt,
            changed.document
        from (
            select known.*, order_document(known) as document, case when known.deleted_at is not null
                then 'order.deleted' else 'order.upserted' end as event
            from unnest($2::text[], $3::text[]) as told (tenant, order_id)
            join orders as known
                on known.source = $1 and known.tenant = told.tenant
                and known.order_id = told.order_id
            where known.last_receipt = any($4)
        ) as changed
        join unnest($5::text[], $6::text[], $7::boolean[]) as heard (destination, event, is_mirror)
            using (event)
        order by changed.tenant, changed.order_id, heard.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        source.as_str(),
        &tenants as &[&str],
        &ids as &[&str],
        receipts,
        &targets as &[&str],
        &events as &[&str],
        &mirrors,
    )
    .execute(conn)
    .await?;
    Ok(written.rows_affected())
}

/// Tells of refunds that these messages changed; each with its tenant.
///
/// # Errors
/// What the database says.
pub async fn insert_for_refunds(
    conn: &mut Conn,
    source: &SourceName,
    subscriptions: &[OutboxSubscription],
    refunds: &[(&str, &str)],
    receipts: &[Uuid],
) -> Result<u64, StoreError> {
    let SubscriptionColumns { destinations: targets, events, are_mirrors: mirrors } =
        SubscriptionColumns::of(subscriptions);
    let tenants: Vec<&str> = refunds.iter().map(|(tenant, _)| *tenant).collect();
    let ids: Vec<&str> = refunds.iter().map(|(_, id)| *id).collect();
    let written = sqlx::query!(
        r#"
        insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, document_number, cause_receipt_id,
            receipt_id, document)
        select heard.destination, heard.event, heard.is_mirror, changed.source, changed.tenant,
            changed.refund_id, changed.order_id, changed.last_receipt,
            changed.last_receipt, changed.document
        from (
            select known.*, refund_document(known) as document, 'refund.upserted' as event
            from unnest($2::text[], $3::text[]) as told (tenant, refund_id)
            join refunds as known
                on known.refund_id = told.refund_id and known.tenant = told.tenant
                and known.source = $1
            where known.last_receipt = any($4)
        ) as changed
        join unnest($5::text[], $6::text[], $7::boolean[]) as heard (destination, event, is_mirror)
            using (event)
        order by changed.tenant, changed.refund_id, heard.destination
        on conflict on constraint deliveries_unique do nothing
        "#,
        source.as_str(),
        &tenants as &[&str],
        &ids as &[&str],
        receipts,
        &targets as &[&str],
        &events as &[&str],
        &mirrors,
    )
    .execute(conn)
    .await?;
    Ok(written.rows_affected())
}
