//! `dead_letters`: what waits for a person.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{Outcome, ReasonCode};

/// A dead letter to be archived.
#[derive(Clone, Debug)]
pub struct NewDeadLetter {
    /// The message.
    pub receipt_id: Uuid,
    /// Its event key.
    pub event_key: String,
    /// Where it came in.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// What it is about.
    pub topic: String,
    /// The number that people know the document by, if it could be read.
    pub business_key: Option<String>,
    /// Why it is dead.
    pub reason: ReasonCode,
    /// The error and its causes.
    pub error: String,
    /// How many attempts failed.
    pub attempts: u32,
    /// When it was received.
    pub received_at: OffsetDateTime,
    /// When it failed first.
    pub first_failed_at: OffsetDateTime,
    /// When it failed last.
    pub last_failed_at: OffsetDateTime,
    /// The replay that had sent it, if one did.
    pub replay_id: Option<Uuid>,
    /// The AMQP properties and headers.
    pub headers: Value,
    /// The raw bytes.
    pub payload: Vec<u8>,
}

/// Archives dead letters, each of another message. A letter that a replay
/// sent and that failed again is open again; a message archived twice is one.
/// Their receipts must be on record already, in the same transaction.
///
/// # Errors
/// What the database says.
pub async fn insert(conn: &mut Conn, burials: &[NewDeadLetter]) -> Result<(), StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            burials.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    // Sorted by receipt in the statement, so the new ids' order is no matter.
    let ids = column!(_burial => Uuid::now_v7());
    let attempts = column!(burial => i32::try_from(burial.attempts).unwrap_or(i32::MAX));
    sqlx::query!(
        r#"
        insert into dead_letters as known (
            dead_letter_id, receipt_id, event_key, source, tenant, topic, business_key, reason,
            error, attempts, received_at, first_failed_at, last_failed_at, replay_id, headers,
            payload, state, outcome, closed_at)
        select
            dead_letter_id, told.receipt_id, told.event_key, told.source, told.tenant, told.topic,
            told.business_key, reason, told.error, told.attempts, told.received_at,
            first_failed_at, last_failed_at,
            (select replay_id from replays where replays.replay_id = replay), headers::jsonb,
            told.payload,
            -- A copy of a message that was settled in the meantime: on record,
            -- and nobody's work.
            case when receipt.outcome = 'dead' then 'open' else 'resolved' end,
            nullif(receipt.outcome, 'dead'),
            case when receipt.outcome = 'dead' then null else now() end
        from unnest(
            $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::int[], $11::timestamptz[], $12::timestamptz[],
            $13::timestamptz[], $14::uuid[], $15::text[], $16::bytea[]
        ) as told (
            dead_letter_id, receipt_id, event_key, source, tenant, topic, business_key, reason,
            error, attempts, received_at, first_failed_at, last_failed_at, replay, headers,
            payload)
        join receipts as receipt using (receipt_id)
        order by told.receipt_id
        on conflict (receipt_id) do update set
            state = excluded.state,
            outcome = excluded.outcome,
            closed_at = excluded.closed_at,
            business_key = coalesce(excluded.business_key, known.business_key),
            reason = excluded.reason,
            error = excluded.error,
            attempts = excluded.attempts,
            last_failed_at = excluded.last_failed_at,
            headers = excluded.headers,
            replay_id = excluded.replay_id
        -- Only a replay's failure opens a letter again; the first death
        -- archived twice changes nothing. If a newer replay is under way, what
        -- it comes to closes the letter again.
        where excluded.replay_id is not null and known.state in ('open', 'replayed')
        "#,
        &ids,
        &column!(burial => burial.receipt_id),
        &column!(burial => burial.event_key.as_str()) as &[&str],
        &column!(burial => burial.source.as_str()) as &[&str],
        &column!(burial => burial.tenant.as_str()) as &[&str],
        &column!(burial => burial.topic.as_str()) as &[&str],
        &column!(burial => burial.business_key.as_deref()) as &[Option<&str>],
        &column!(burial => burial.reason.as_str()) as &[&str],
        &column!(burial => burial.error.as_str()) as &[&str],
        &attempts,
        &column!(burial => burial.received_at),
        &column!(burial => burial.first_failed_at),
        &column!(burial => burial.last_failed_at),
        &column!(burial => burial.replay_id) as &[Option<Uuid>],
        &column!(burial => burial.headers.to_string()),
        &column!(burial => burial.payload.as_slice()) as &[&[u8]],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A replayed message that was settled.
#[derive(Clone, Copy, Debug)]
pub struct Resolution {
    /// The message.
    pub receipt_id: Uuid,
    /// The replay that sent it, if one did.
    pub replay_id: Option<Uuid>,
    /// What it came to: not `retried` or `dead`.
    pub outcome: Outcome,
}

/// Resolves letters in the transaction that settles their messages.
///
/// # Errors
/// What the database says.
pub async fn resolve(conn: &mut Conn, resolutions: &[Resolution]) -> Result<(), StoreError> {
    let receipts: Vec<Uuid> = resolutions.iter().map(|one| one.receipt_id).collect();
    let replays: Vec<Option<Uuid>> = resolutions.iter().map(|one| one.replay_id).collect();
    let outcomes: Vec<&str> = resolutions.iter().map(|one| one.outcome.as_str()).collect();
    sqlx::query!(
        r#"
        with told as (
            select letter.dead_letter_id, told.replay, told.outcome
            from unnest($1::uuid[], $2::uuid[], $3::text[]) as told (receipt_id, replay, outcome)
            join dead_letters as letter using (receipt_id)
            where letter.state <> 'resolved'
            order by letter.receipt_id
            for update of letter
        )
        update dead_letters as letter
        set state = 'resolved', outcome = told.outcome, closed_at = now(),
            replay_id = coalesce(
                (select replay_id from replays where replays.replay_id = told.replay),
                letter.replay_id)
        from told
        where letter.dead_letter_id = told.dead_letter_id
        "#,
        &receipts,
        &replays as &[Option<Uuid>],
        &outcomes as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which dead letters; every condition must hold, and an empty filter is all.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DeadLetterFilter {
    /// These letters only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<Uuid>,
    /// `open`, `replayed`, `resolved` or `discarded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Where they came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A reason's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What they are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// First failed at this time or later.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// First failed before this time.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
    /// The order's or invoice's number, or the event key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Where they were to go, of those that are deliveries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
}

/// A dead letter as people see it in a list.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterSummary {
    /// Its id.
    pub dead_letter_id: Uuid,
    /// The message, or the delivery.
    pub receipt_id: Uuid,
    /// The delivery that failed, where it is no message that came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<Uuid>,
    /// Where that was to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Its event key; a delivery's idempotency key.
    pub event_key: String,
    /// Where it came in.
    pub source: String,
    /// The shop or company.
    pub tenant: String,
    /// What it is about.
    pub topic: String,
    /// The number that people know the document by.
    pub business_key: Option<String>,
    /// Why it is dead.
    pub reason: String,
    /// The error and its causes.
    pub error: String,
    /// How many attempts failed.
    pub attempts: i32,
    /// `open`, `replayed`, `resolved` or `discarded`.
    pub state: String,
    /// What a replay came to.
    pub outcome: Option<String>,
    /// When it failed first.
    #[serde(with = "time::serde::rfc3339")]
    pub first_failed_at: OffsetDateTime,
    /// When it failed last.
    #[serde(with = "time::serde::rfc3339")]
    pub last_failed_at: OffsetDateTime,
    /// The size of the payload in bytes.
    pub payload_bytes: i32,
}

/// Lists letters, the longest waiting first, at most `limit` behind the one
/// after which the page begins.
///
/// # Errors
/// What the database says.
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
          and ($10::text is null or delivery_id is not null and headers->>'destination' = $10)
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

/// The letter of a delivery, if it ever had one.
///
/// # Errors
/// What the database says.
pub async fn find_by_delivery(
    conn: &mut Conn,
    id: Uuid,
) -> Result<Option<DeadLetterSummary>, StoreError> {
    let letter =
        sqlx::query_scalar!("select dead_letter_id from dead_letters where delivery_id = $1", id)
            .fetch_optional(&mut *conn)
            .await?;
    let Some(letter) = letter else { return Ok(None) };
    let filter = DeadLetterFilter { ids: vec![letter], ..DeadLetterFilter::default() };
    Ok(list(conn, &filter, None, 1).await?.pop())
}

/// What a replay or an export needs of a letter besides its summary.
#[derive(Clone, Debug)]
pub struct DeadLetterContents {
    /// Its state now; the summary's may be old.
    pub state: String,
    /// When it was received.
    pub received_at: OffsetDateTime,
    /// The AMQP properties and headers.
    pub headers: Value,
    /// The raw bytes.
    pub payload: Vec<u8>,
}

/// The contents of one letter; `None` if there is no such letter.
///
/// # Errors
/// What the database says.
pub async fn contents(conn: &mut Conn, id: Uuid) -> Result<Option<DeadLetterContents>, StoreError> {
    Ok(sqlx::query_as!(
        DeadLetterContents,
        "select state, received_at, headers, payload from dead_letters where dead_letter_id = $1",
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// How many letters stand where, for metrics.
#[derive(Clone, Debug)]
pub struct DeadLetterCount {
    /// A reason's code.
    pub reason: String,
    /// A state.
    pub state: String,
    /// How many.
    pub count: i64,
    /// Seconds since the oldest of them failed first.
    pub oldest_s: f64,
}

/// Counts the letters that are not closed, by reason and state.
///
/// # Errors
/// What the database says.
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
