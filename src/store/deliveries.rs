//! `deliveries`: what other systems must hear, and what became of telling them.

mod attempts;
mod operator_actions;
mod outbox;

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{DeliveryIdentity, DeliveryState, DocumentEvent};
pub use attempts::{
    AttemptOutcome, AttemptRecord, ClaimRequest, DueDelivery, claim, lock_due, record_attempts,
};
pub use operator_actions::{ActionRefusal, check_reissuable, reissue, retry, retry_refusal, void};
pub use outbox::{OutboxSubscription, insert_for_invoices, insert_for_orders, insert_for_refunds};

/// Which deliveries; every condition must hold, and an empty filter is all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeliveryFilter {
    /// These only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// In this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeliveryState>,
    /// To this target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Of documents of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The document's number, its id, the target's id of it, the key, the
    /// receipt that made it, or the delivery's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
}

/// A delivery as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// Its id.
    pub delivery_id: Uuid,
    /// Its place in the order in which things go out.
    pub sequence: i64,
    /// Where to.
    pub destination: String,
    /// What it tells.
    pub event: String,
    /// Whether it is the mirror that an invoice is ticked off by.
    pub is_mirror: bool,
    /// Where the document came in.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// Our id of the document.
    pub document_id: String,
    /// The number that people know it by.
    pub document_number: Option<String>,
    /// Which issue of it.
    pub issue: i32,
    /// The message that made it; nil for what is told once.
    pub cause_receipt_id: Uuid,
    /// Where it stands.
    pub state: String,
    /// The key that goes with it, once it was sent.
    pub idempotency_key: Option<Uuid>,
    /// How many attempts failed that count.
    pub attempts: i32,
    /// When it is tried next, while it waits.
    #[serde(with = "time::serde::rfc3339")]
    pub next_attempt_at: OffsetDateTime,
    /// The target's own id of what it made.
    pub remote_id: Option<String>,
    /// The status of the last answer.
    pub response_status: Option<i16>,
    /// What went wrong last.
    pub error: Option<String>,
    /// What a person should know though it was delivered.
    pub warning: Option<String>,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the first call began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_sent_at: Option<OffsetDateTime>,
    /// When the target had it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub delivered_at: Option<OffsetDateTime>,
    /// When a person took it back.
    #[serde(with = "time::serde::rfc3339::option")]
    pub voided_at: Option<OffsetDateTime>,
    /// Who did.
    pub voided_by: Option<String>,
    /// Why.
    pub void_comment: Option<String>,
}

impl Delivery {
    /// The key that goes with every attempt of it; none if this version does
    /// not know the event.
    pub fn key(&self) -> Option<Uuid> {
        let derived = || {
            let name = DeliveryIdentity {
                destination: &self.destination,
                event: DocumentEvent::from_word(&self.event)?,
                source: &self.source,
                tenant: &self.tenant,
                document_id: &self.document_id,
                issue: u32::try_from(self.issue).ok()?,
                cause_receipt_id: self.cause_receipt_id,
            };
            Some(name.idempotency_key())
        };
        self.idempotency_key.or_else(derived)
    }
}

/// Lists deliveries, oldest first, at most `limit` behind this position.
///
/// # Errors
/// What the database says.
pub async fn list(
    conn: &mut Conn,
    filter: &DeliveryFilter,
    after: Option<i64>,
    limit: u32,
) -> Result<Vec<Delivery>, StoreError> {
    Ok(sqlx::query_as!(
        Delivery,
        r#"
        select delivery_id, sequence, destination, event, is_mirror, source, tenant, document_id,
            document_number, issue, cause_receipt_id, state, idempotency_key, attempts, next_attempt_at,
            remote_id, response_status, error, warning, created_at, first_sent_at, delivered_at,
            voided_at, voided_by, void_comment
        from deliveries
        where (cardinality($1::uuid[]) = 0 or delivery_id = any($1))
          and ($2::text is null or state = $2)
          and ($3::text is null or destination = $3)
          and ($4::text is null or source = $4)
          and ($5::text is null or delivery_id in (
                -- One by one, so that each has its index.
                select delivery_id from deliveries where document_number = $5
                union all select delivery_id from deliveries where document_id = $5
                union all select delivery_id from deliveries where receipt_id = $6
                union all select delivery_id from deliveries where delivery_id = $6
                union all select delivery_id from deliveries
                where remote_id = $5 or idempotency_key = $6))
          and sequence > $7
        order by sequence
        limit $8
        "#,
        &filter.ids,
        filter.state.map(DeliveryState::as_str),
        filter.destination.as_deref(),
        filter.source.as_deref(),
        filter.number.as_deref(),
        filter.number.as_deref().and_then(|text| text.parse::<Uuid>().ok()),
        after.unwrap_or_default(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// What was sent and answered, and the document that it is about.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryContents {
    /// The document as it was when the delivery was written.
    pub document: Value,
    /// What was sent, if it was.
    pub request: Option<String>,
    /// The body of the last answer.
    pub response: Option<String>,
}

/// The contents of one delivery; `None` if there is no such delivery.
///
/// # Errors
/// What the database says.
pub async fn contents(conn: &mut Conn, id: Uuid) -> Result<Option<DeliveryContents>, StoreError> {
    Ok(sqlx::query_as!(
        DeliveryContents,
        "select document, request, response from deliveries where delivery_id = $1",
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// One of the issues of a delivery.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryIssue {
    /// Its id.
    pub delivery_id: Uuid,
    /// Which issue it is; 0 for the first.
    pub issue: i32,
    /// Where it stands.
    pub state: String,
    /// The target's own id of what it made.
    pub remote_id: Option<String>,
}

/// The issues of a delivery, the first one first, itself among them.
///
/// # Errors
/// What the database says.
pub async fn list_issues(conn: &mut Conn, id: Uuid) -> Result<Vec<DeliveryIssue>, StoreError> {
    Ok(sqlx::query_as!(
        DeliveryIssue,
        r#"
        select issue.delivery_id, issue.issue, issue.state, issue.remote_id
        from deliveries as mine
        join deliveries as issue
            using (document_id, destination, event, source, tenant, cause_receipt_id)
        where mine.delivery_id = $1
        order by issue.issue
        "#,
        id
    )
    .fetch_all(conn)
    .await?)
}

/// How many deliveries stand where, for metrics and the audit.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryCount {
    /// Where to.
    pub destination: String,
    /// A state.
    pub state: String,
    /// How many.
    pub count: i64,
    /// Seconds since the oldest of them was written.
    pub oldest_s: f64,
}

/// Counts deliveries by target and state: all that are not finished, and with
/// `finished` the delivered and voided as well.
///
/// # Errors
/// What the database says.
pub async fn count_by_state(
    conn: &mut Conn,
    finished: bool,
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
        finished
    )
    .fetch_all(conn)
    .await?)
}

/// Ticks invoices off whose every mirror stands at its target, and unticks
/// those of which one does not any more.
async fn update_mirrored_at(conn: &mut Conn, documents: &[String]) -> Result<(), StoreError> {
    // Of two whose last mirrors arrive at once, each would see the other's as
    // under way: the second waits here, and then looks.
    sqlx::query!(
        "select invoice_id from invoices where invoice_id = any($1::text[]::uuid[])
         order by invoice_id for no key update",
        documents
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        with told as (
            select document_id, bool_and(delivered) as ticked_off from (
                select document_id, destination, bool_or(state = 'delivered') as delivered
                from deliveries
                where document_id = any($1) and is_mirror
                group by document_id, destination
            ) as mirrors
            group by document_id
        )
        update invoices as known
        set mirrored_at = case when told.ticked_off then now() end
        from told
        where known.invoice_id = told.document_id::uuid
          and (known.mirrored_at is not null) <> told.ticked_off
        "#,
        documents,
    )
    .execute(conn)
    .await?;
    Ok(())
}
