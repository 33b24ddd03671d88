//! `deliveries`: the outbox, what other systems must receive of each document.

mod attempts;
mod operator_actions;
mod outbox;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{DeliveryIdentity, DeliveryState};
pub use attempts::{
    AttemptOutcome, AttemptRecord, ClaimRequest, DueDelivery, claim, lock_due, record_attempts,
};
pub(super) use operator_actions::void_failed;
pub use operator_actions::{ActionRefusal, check_reissuable, reissue, retry, retry_refusal, void};
pub use outbox::{OutboxSubscription, insert_for_invoices, insert_for_orders, insert_for_refunds};

/// Selects deliveries. Every condition must hold; a filter without conditions selects all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeliveryFilter {
    /// Only these deliveries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeliveryState>,
    /// To this destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Of documents of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whose dead letter has this reason code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With this document number, document id, remote id, idempotency key, receipt or delivery id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
}

/// A row of a list of deliveries.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// The id of the delivery.
    pub delivery_id: Uuid,
    /// Orders the deliveries of one document to one destination.
    pub sequence: i64,
    /// The destination's name in the configuration.
    pub destination: String,
    /// What happened to the document: a [`crate::domain::DocumentEvent`] as text.
    pub event: String,
    /// Whether the destination keeps a copy of the invoice.
    pub is_mirror: bool,
    /// The source of the document.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// Our id of the document.
    pub document_id: String,
    /// The document's number.
    pub document_number: Option<String>,
    /// The issue number, from 0.
    pub issue: i32,
    /// The receipt of the causing message; the nil UUID for events that occur once.
    pub cause_receipt_id: Uuid,
    /// A word of [`DeliveryState`].
    pub state: String,
    /// The idempotency key, once it was sent.
    pub idempotency_key: Option<Uuid>,
    /// How many attempts failed.
    pub attempts: i32,
    /// The earliest time of the next attempt.
    #[serde(with = "time::serde::rfc3339")]
    pub next_attempt_at: OffsetDateTime,
    /// The destination's own id of the document.
    pub remote_id: Option<String>,
    /// The HTTP status of the last response.
    pub response_status: Option<i16>,
    /// Why it failed for good, as the code of its dead letter.
    pub reason: Option<String>,
    /// The last error.
    pub error: Option<String>,
    /// What an operator should know although it was delivered.
    pub warning: Option<String>,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the first attempt began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_sent_at: Option<OffsetDateTime>,
    /// When the destination confirmed it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub delivered_at: Option<OffsetDateTime>,
    /// When an operator voided it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub voided_at: Option<OffsetDateTime>,
    /// The operator who voided it.
    pub voided_by: Option<String>,
    /// The comment of that operator.
    pub void_comment: Option<String>,
}

impl Delivery {
    /// The idempotency key of every attempt. `None` if this version does not know the event.
    pub fn key(&self) -> Option<Uuid> {
        let derived = || {
            let identity = DeliveryIdentity {
                destination: &self.destination,
                event: self.event.parse().ok()?,
                source: &self.source,
                tenant: &self.tenant,
                document_id: &self.document_id,
                issue: u32::try_from(self.issue).ok()?,
                cause_receipt_id: self.cause_receipt_id,
            };
            Some(identity.idempotency_key())
        };
        self.idempotency_key.or_else(derived)
    }
}

/// Lists at most `limit` deliveries, oldest first, that come after the sequence number `after`.
///
/// # Errors
/// A database error.
pub async fn list(
    conn: &mut Conn,
    filter: &DeliveryFilter,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    Ok(sqlx::query_as!(
        Delivery,
        r#"
        select delivery.delivery_id, sequence, destination, event, is_mirror, delivery.source,
            delivery.tenant, document_id, document_number, issue, cause_receipt_id,
            delivery.state, idempotency_key, delivery.attempts, next_attempt_at, remote_id,
            response_status, dead_letter.reason as "reason?", delivery.error, warning, created_at,
            first_sent_at, delivered_at, voided_at, voided_by, void_comment
        from deliveries as delivery left join dead_letters as dead_letter using (delivery_id)
        where (cardinality($1::uuid[]) = 0 or delivery.delivery_id = any($1))
          and ($2::text is null or delivery.state = $2)
          and ($3::text is null or destination = $3)
          and ($4::text is null or delivery.source = $4)
          and ($5::text is null or delivery.delivery_id in (
                -- One query each, so that each uses its index.
                select delivery_id from deliveries where document_number = $5
                union all select delivery_id from deliveries where document_id = $5
                union all select delivery_id from deliveries where receipt_id = $6
                union all select delivery_id from deliveries where delivery_id = $6
                union all select delivery_id from deliveries
                where remote_id = $5 or idempotency_key = $6))
          and sequence > $7
          and ($8::text is null or dead_letter.reason = $8)
        order by sequence
        limit $9
        "#,
        &filter.ids,
        filter.state.map(DeliveryState::as_str),
        filter.destination.as_deref(),
        filter.source.as_deref(),
        filter.number.as_deref(),
        filter.number.as_deref().and_then(|number| number.parse::<Uuid>().ok()),
        after.unwrap_or_default(),
        filter.reason.as_deref(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// The bodies of a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryContents {
    /// The document when the delivery was written.
    pub document: Value,
    /// The request body, once it was sent.
    pub request: Option<String>,
    /// The body of the last response.
    pub response: Option<String>,
}

/// Reads the contents of a delivery. `None` if there is none with this id.
///
/// # Errors
/// A database error.
pub async fn contents(conn: &mut Conn, id: Uuid) -> Result<Option<DeliveryContents>, StoreError> {
    Ok(sqlx::query_as!(
        DeliveryContents,
        "select document, request, response from deliveries where delivery_id = $1",
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// One issue of a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryIssue {
    /// The id of the delivery.
    pub delivery_id: Uuid,
    /// The issue number, from 0.
    pub issue: i32,
    /// A word of [`DeliveryState`].
    pub state: String,
    /// The destination's own id of the document.
    pub remote_id: Option<String>,
}

/// Lists all issues of a delivery, including itself, by issue number.
///
/// # Errors
/// A database error.
pub async fn list_issues(conn: &mut Conn, id: Uuid) -> Result<Vec<DeliveryIssue>, StoreError> {
    Ok(sqlx::query_as!(
        DeliveryIssue,
        r#"
        select other.delivery_id, other.issue, other.state, other.remote_id
        from deliveries as delivery
        join deliveries as other
            using (document_id, destination, event, source, tenant, cause_receipt_id)
        where delivery.delivery_id = $1
        order by other.issue
        "#,
        id
    )
    .fetch_all(conn)
    .await?)
}

/// How many deliveries have a destination and a state.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryCount {
    /// The destination's name in the configuration.
    pub destination: String,
    /// A word of [`DeliveryState`].
    pub state: String,
    /// The number of deliveries.
    pub count: i64,
    /// Seconds since the oldest of them was written.
    pub oldest_s: f64,
}

/// Counts deliveries by destination and state. Delivered and voided ones are counted only if
/// `include_finished` is set.
///
/// # Errors
/// A database error.
pub async fn count_by_state(
    conn: &mut Conn,
    include_finished: bool,
) -> Result<Vec<DeliveryCount>, StoreError> {
    Ok(sqlx::query_as!(
        DeliveryCount,
        r#"
        select destination, state, count(*) as "count!",
            extract(epoch from now() - min(created_at))::float8 as "oldest_s!"
        from deliveries
        where $1 or state in ('pending', 'sending', 'uncertain', 'failed')
        group by destination, state
        order by destination, state
        "#,
        include_finished
    )
    .fetch_all(conn)
    .await?)
}

/// Sets `invoices.mirrored_at` where every destination has its mirror of the invoice, and clears it
/// where one does not.
async fn update_mirrored_at(conn: &mut Conn, invoice_ids: &[String]) -> Result<(), StoreError> {
    // The last two mirrors of an invoice may be confirmed at once, in two transactions that do not
    // see each other. This lock makes the second one wait, and then it sees the first.
    sqlx::query!(
        "select invoice_id from invoices where invoice_id = any($1::text[]::uuid[])
         order by invoice_id for no key update",
        invoice_ids
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        with mirrored as (
            select document_id, bool_and(is_delivered) as is_complete from (
                select document_id, destination, bool_or(state = 'delivered') as is_delivered
                from deliveries
                where document_id = any($1) and is_mirror
                group by document_id, destination
            ) as mirrors
            group by document_id
        )
        update invoices as known
        set mirrored_at = case when mirrored.is_complete then now() end
        from mirrored
        where known.invoice_id = mirrored.document_id::uuid
          and (known.mirrored_at is not null) <> mirrored.is_complete
        "#,
        invoice_ids,
    )
    .execute(conn)
    .await?;
    Ok(())
}
