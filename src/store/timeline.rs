//! The timeline of a document: everything on record for a number, a key or an id.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conn, StoreError,
    deliveries::{self, Delivery, DeliveryFilter},
};

/// A message in a timeline.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// When its outcome was recorded.
    #[serde(with = "time::serde::rfc3339")]
    pub processed_at: OffsetDateTime,
    /// The source that received it.
    pub source: String,
    /// The event type.
    pub topic: String,
    /// The event key.
    pub event_key: String,
    /// A word of [`Outcome`](crate::domain::Outcome).
    pub outcome: String,
    /// How many attempts failed.
    pub attempts: i32,
    /// Why it failed.
    pub error: Option<String>,
}

/// The current state of an order, invoice, refund or resource.
#[derive(Clone, Debug, Serialize)]
pub struct DocumentState {
    /// `order`, `invoice`, `refund`, or the kind of a resource followed by ` (reference)`.
    pub kind: String,
    /// The source of the document.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// The platform's id; for an invoice, ours.
    pub id: String,
    /// The document's number.
    pub number: Option<String>,
    /// Our word for the state.
    pub status: Option<String>,
    /// The platform's word for the state.
    pub platform_status: Option<String>,
    /// The amount as a decimal number.
    pub total: Option<String>,
    /// The currency code.
    pub currency: Option<String>,
    /// The platform's time of the state.
    #[serde(with = "time::serde::rfc3339::option")]
    pub version: Option<OffsetDateTime>,
    /// When the platform deleted it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
}

/// Finds documents by a number, or by an id of ours or of the platform.
///
/// # Errors
/// A database error.
pub async fn documents(conn: &mut Conn, text: &str) -> Result<Vec<DocumentState>, StoreError> {
    Ok(sqlx::query_as!(
        DocumentState,
        r#"
        -- The primary key of orders begins with the shop. To find an id without a shop, this visits
        -- one shop after the other. An index over the id alone would slow down every order, and
        -- reading all of the primary key would slow down this query.
        with recursive shops as (
            (select source, tenant from orders order by source, tenant limit 1)
            union all
            select next.source, next.tenant
            from shops, lateral (
                select source, tenant from orders
                where (source, tenant) > (shops.source, shops.tenant)
                order by source, tenant limit 1
            ) as next
        ), named as (
            select source, tenant, order_id, number, status, platform_status, total, currency,
                version, deleted_at
            from orders where number = $1
            union
            select found.*
            from shops, lateral (
                select source, tenant, order_id, number, status, platform_status, total,
                    currency, version, deleted_at
                from orders
                where (source, tenant) = (shops.source, shops.tenant) and order_id = $1
                -- There is at most one. The limit keeps the planner from using a join.
                limit 1
            ) as found
        )
        select 'order' as "kind!", source as "source!", tenant as "tenant!", order_id as "id!",
            number, status, platform_status, total::text as total, currency, version, deleted_at
        from named
        union all
        select 'invoice', source, tenant, invoice_id::text, invoice_number, status,
            platform_status, total::text, currency, version, deleted_at
        from invoices where invoice_number = $1 or document_id = $1 or invoice_id = $2
        union all
        select 'refund', source, tenant, refund_id, coalesce(order_id, payment_ref), status,
            platform_status, amount::text, currency, version, null
        from refunds where refund_id = $1 or order_id = $1 or payment_ref = $1
        union all
        select kind || ' (reference)', source, tenant, id, null, null, action, null, null,
            changed_at, null
        from resource_changes where id = $1
        order by 1, 2, 3, 4
        limit 50
        "#,
        text,
        text.parse::<Uuid>().ok(),
    )
    .fetch_all(conn)
    .await?)
}

/// Finds messages by business number, event key or receipt id, and all other messages with the same
/// event keys. The oldest comes first.
///
/// # Errors
/// A database error.
pub async fn entries(conn: &mut Conn, text: &str) -> Result<Vec<TimelineEntry>, StoreError> {
    Ok(sqlx::query_as!(
        TimelineEntry,
        r#"
        with named as (
            select event_key from receipts
            where business_key = $1 or event_key = $1 or receipt_id = $2
            limit 500
        ), keys as (
            select distinct event_key from named
        )
        select receipt_id as "receipt_id!", received_at as "received_at!",
            processed_at as "processed_at!", source as "source!", topic as "topic!",
            event_key as "event_key!", outcome as "outcome!", attempts as "attempts!", error
        -- PostgreSQL has no statistics of all partitions together. Without the inner limit, it
        -- might read the partitions from the oldest on in search of a few rows.
        from keys, lateral (
            select receipt_id, received_at, processed_at, source, topic, outcome, attempts, error
            from receipts where receipts.event_key = keys.event_key
            order by received_at, receipt_id
            limit 500
        ) as message
        order by received_at, receipt_id
        limit 500
        "#,
        text,
        text.parse::<Uuid>().ok(),
    )
    .fetch_all(conn)
    .await?)
}

/// Finds the deliveries that `text` names, those of the documents, and those that the messages
/// caused. The oldest comes first.
///
/// # Errors
/// A database error.
pub async fn deliveries(
    conn: &mut Conn,
    text: &str,
    documents: &[DocumentState],
    entries: &[TimelineEntry],
) -> Result<Vec<Delivery>, StoreError> {
    let by_text = DeliveryFilter { number: Some(text.to_owned()), ..Default::default() };
    let mut deliveries = deliveries::list(conn, &by_text, None, 500).await?;
    let related = sqlx::query_scalar!(
        r#"
        select delivery_id as "delivery_id!"
        from unnest($1::text[], $2::text[], $3::text[]) as known (source, tenant, document_id)
        join deliveries using (source, tenant, document_id)
        union
        select delivery_id from deliveries where receipt_id = any($4)
        "#,
        &column!(documents, document => document.source.as_str()) as &[&str],
        &column!(documents, document => document.tenant.as_str()) as &[&str],
        &column!(documents, document => document.id.as_str()) as &[&str],
        &column!(entries, entry => entry.receipt_id),
    )
    .fetch_all(&mut *conn)
    .await?;
    let is_found = |id: &Uuid| deliveries.iter().any(|delivery| delivery.delivery_id == *id);
    let ids: Vec<Uuid> = related.into_iter().filter(|id| !is_found(id)).collect();
    // A filter without ids would select every delivery.
    if !ids.is_empty() {
        let by_id = DeliveryFilter { ids, ..Default::default() };
        deliveries.extend(deliveries::list(conn, &by_id, None, 500).await?);
        deliveries.sort_by_key(|delivery| delivery.sequence);
    }
    Ok(deliveries)
}
