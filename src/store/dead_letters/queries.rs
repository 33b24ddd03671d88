//! What operators and metrics read of `dead_letters`.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{Conn, StoreError};

/// Selects dead letters. Every condition must hold; a filter without conditions selects all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeadLetterFilter {
    /// Only these dead letters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// `open`, `replayed`, `resolved` or `discarded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Received by this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Failed for this reason, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of this event type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// First failed at this time or later.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// First failed before this time.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// With this order number, invoice number or event key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Of deliveries to this destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// A row of a list of dead letters.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterSummary {
    /// The id of the dead letter.
    pub dead_letter_id: Uuid,
    /// The receipt of the message; for a delivery, the delivery's id.
    pub receipt_id: Uuid,
    /// The failed delivery; none for a message that came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<Uuid>,
    /// The destination of that delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The event key; for a delivery, its idempotency key.
    pub event_key: String,
    /// The source of the message or document.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// The event type.
    pub topic: String,
    /// The number of the order or invoice.
    pub business_key: Option<String>,
    /// Why it failed, as a code.
    pub reason: String,
    /// The error and its causes, outermost first.
    pub error: String,
    /// How many attempts failed.
    pub attempts: i32,
    /// `open`, `replayed`, `resolved` or `discarded`.
    pub state: String,
    /// The outcome of the replay that resolved it.
    pub outcome: Option<String>,
    /// When its first attempt failed.
    #[serde(with = "time::serde::rfc3339")]
    pub first_failed_at: OffsetDateTime,
    /// When its last attempt failed.
    #[serde(with = "time::serde::rfc3339")]
    pub last_failed_at: OffsetDateTime,
    /// The size of the payload in bytes.
    pub payload_bytes: i32,
}

/// Lists at most `limit` dead letters, the one that failed first at the top. `after` is the last
/// dead letter of the page before.
///
/// # Errors
/// A database error.
pub async fn list(
    conn: &mut Conn,
    filter: &DeadLetterFilter,
    after: Option<Uuid>,
    limit: u32,
) -> Result<Vec<DeadLetterSummary>, StoreError> {
    Ok(sqlx::query_as!(
        DeadLetterSummary,
        r#"
        select dead_letter_id, receipt_id, delivery_id,
            case when delivery_id is not null then headers->>'destination' end as destination,
            event_key, source, tenant, topic, business_key, reason, error, attempts, state,
            outcome, first_failed_at, last_failed_at, length(payload) as "payload_bytes!"
        from dead_letters
        where (cardinality($1::uuid[]) = 0 or dead_letter_id = any($1))
          and ($2::text is null or state = $2)
          and ($3::text is null or source = $3)
          and ($4::text is null or reason = $4)
          and ($5::text is null or topic = $5)
          and ($6::timestamptz is null or first_failed_at >= $6)
          and ($7::timestamptz is null or first_failed_at < $7)
          and ($8::text is null or business_key = $8 or event_key = $8)
          and ($9::uuid is null or (first_failed_at, dead_letter_id) > (
                select first_failed_at, dead_letter_id from dead_letters
                where dead_letter_id = $9))
          and ($10::text is null
               or delivery_id is not null and headers->>'destination' = $10)
        order by first_failed_at, dead_letter_id
        limit $11
        "#,
        &filter.ids,
        filter.state.as_deref(),
        filter.source.as_deref(),
        filter.reason.as_deref(),
        filter.topic.as_deref(),
        filter.since,
        filter.until,
        filter.number.as_deref(),
        after,
        filter.destination.as_deref(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// Finds the dead letter of a delivery, in any state.
///
/// # Errors
/// A database error.
pub async fn find_by_delivery(
    conn: &mut Conn,
    delivery_id: Uuid,
) -> Result<Option<DeadLetterSummary>, StoreError> {
    let id = sqlx::query_scalar!(
        "select dead_letter_id from dead_letters where delivery_id = $1",
        delivery_id
    )
    .fetch_optional(&mut *conn)
    .await?;
    let Some(id) = id else { return Ok(None) };
    let filter = DeadLetterFilter { ids: vec![id], ..DeadLetterFilter::default() };
    Ok(list(conn, &filter, None, 1).await?.pop())
}

/// What a replay or an export needs besides the summary.
#[derive(Clone, Debug)]
pub struct DeadLetterContents {
    /// The state now; that of a summary may be outdated.
    pub state: String,
    /// When the message was received.
    pub received_at: OffsetDateTime,
    /// The AMQP properties and headers.
    pub headers: Value,
    /// The raw body.
    pub payload: Vec<u8>,
}

/// Reads the contents of a dead letter. `None` if there is none with this id.
///
/// # Errors
/// A database error.
pub async fn contents(conn: &mut Conn, id: Uuid) -> Result<Option<DeadLetterContents>, StoreError> {
    Ok(sqlx::query_as!(
        DeadLetterContents,
        "select state, received_at, headers, payload from dead_letters where dead_letter_id = $1",
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// How many dead letters have a reason and a state.
#[derive(Clone, Debug)]
pub struct DeadLetterCount {
    /// Why they failed, as a code.
    pub reason: String,
    /// `open` or `replayed`.
    pub state: String,
    /// The number of dead letters.
    pub count: i64,
    /// Seconds since the first of them failed.
    pub oldest_s: f64,
}

/// Counts the dead letters that are not closed, by reason and state.
///
/// # Errors
/// A database error.
pub async fn count_open(conn: &mut Conn) -> Result<Vec<DeadLetterCount>, StoreError> {
    Ok(sqlx::query_as!(
        DeadLetterCount,
        r#"
        select reason, state, count(*) as "count!",
            extract(epoch from now() - min(first_failed_at))::float8 as "oldest_s!"
        from dead_letters
        where state in ('open', 'replayed')
        group by reason, state
        "#
    )
    .fetch_all(conn)
    .await?)
}
