//! One document's story: everything known about a number, a key or an id.

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conn, StoreError,
    deliveries::{self, Delivery},
};

/// One message in a story.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineEntry {
    /// The message.
    pub receipt_id: Uuid,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// When its outcome was recorded.
    #[serde(with = "time::serde::rfc3339")]
    pub processed_at: OffsetDateTime,
    /// Where it came in.
    pub source: String,
    /// What it was about.
    pub topic: String,
    /// Its event key.
    pub event_key: String,
    /// What became of it.
    pub outcome: String,
    /// How many attempts failed.
    pub attempts: i32,
    /// Why, if it failed.
    pub error: Option<String>,
}

/// An order, invoice, refund or reference as it stands.
#[derive(Clone, Debug, Serialize)]
pub struct DocumentState {
    /// `order`, `invoice`, `refund`, or what a reference is to.
    pub kind: String,
    /// Where it comes from.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// The platform's id, or ours for invoices.
    pub id: String,
    /// The number that people know it by.
    pub number: Option<String>,
    /// Our word for its state.
    pub status: Option<String>,
    /// The platform's word for its state.
    pub platform_status: Option<String>,
    /// The amount as it is written.
    pub total: Option<String>,
    /// Its currency.
    pub currency: Option<String>,
    /// The platform's version.
    #[serde(with = "time::serde::rfc3339::option")]
    pub version: Option<OffsetDateTime>,
    /// When the platform deleted it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
}

/// The documents that a text names: a number, or an id of ours or the
/// platform's.
///
/// # Errors
/// What the database says.
pub async fn documents(conn: &mut Conn, text: &str) -> Result<Vec<DocumentState>, StoreError> {
    Ok(sqlx::query_as!(
        DocumentState,
        r#"
        -- The index of orders begins with the shop. An id without one is looked
        -- for in each, going from shop to shop: an index of its own would cost
        -- every order, and reading all of this one would cost this question.
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
                -- There is one at most; this says that no join will do better.
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

/// The messages that a text names, oldest first: by business number, event
/// key or receipt id, and every other message of the same event keys.
///
/// # Errors
/// What the database says.
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
        -- Nobody has statistics of all partitions together: without the inner
        -- limit they might be read from the oldest on, in search of a few rows.
        from keys, lateral (
            select receipt_id, received_at, processed_at, source, topic, outcome, attempts, error
            from receipts where receipts.event_key = keys.event_key
            order by received_at, receipt_id
            limit 500
        ) as step
        order by received_at, receipt_id
        limit 500
        "#,
        text,
        text.parse::<Uuid>().ok(),
    )
    .fetch_all(conn)
    .await?)
}

/// The deliveries of a story, oldest first: those that a text names, those of
/// its documents, and those that its messages made.
///
/// # Errors
/// What the database says.
pub async fn deliveries(
    conn: &mut Conn,
    text: &str,
    documents: &[DocumentState],
    steps: &[TimelineEntry],
) -> Result<Vec<Delivery>, StoreError> {
    let named = deliveries::DeliveryFilter { number: Some(text.to_owned()), ..Default::default() };
    let mut found = deliveries::list(conn, &named, None, 500).await?;
    let part = |of: fn(&DocumentState) -> &String| -> Vec<&str> {
        documents.iter().map(|document| of(document).as_str()).collect()
    };
    let receipts: Vec<Uuid> = steps.iter().map(|step| step.receipt_id).collect();
    let ids = sqlx::query_scalar!(
        r#"
        select delivery_id as "delivery_id!"
        from unnest($1::text[], $2::text[], $3::text[]) as known (source, tenant, document_id)
        join deliveries using (source, tenant, document_id)
        union
        select delivery_id from deliveries where receipt_id = any($4)
        "#,
        &part(|document| &document.source) as &[&str],
        &part(|document| &document.tenant) as &[&str],
        &part(|document| &document.id) as &[&str],
        &receipts,
    )
    .fetch_all(&mut *conn)
    .await?;
    let known: std::collections::BTreeSet<Uuid> =
        found.iter().map(|delivery| delivery.delivery_id).collect();
    let others = deliveries::DeliveryFilter {
        ids: ids.into_iter().filter(|id| !known.contains(id)).collect(),
        ..Default::default()
    };
    // A filter without ids would mean every delivery.
    if !others.ids.is_empty() {
        found.extend(deliveries::list(conn, &others, None, 500).await?);
        found.sort_by_key(|delivery| delivery.sequence);
    }
    Ok(found)
}
