//! `quarantine`: requests with an invalid signature that can be verified again.

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::Executor as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Conn, StoreError,
    audit_log::{self, Actor, Subject},
};
use crate::domain::{AuditAction, RejectedRequest, RequestHead, SourceName};

/// Inserts requests, each with its head, and deletes the oldest requests beyond a source's limit.
/// Sources that `limits` does not name keep all requests.
///
/// # Errors
/// A database error.
pub async fn insert(
    conn: &mut Conn,
    requests: &[(&RejectedRequest, &RequestHead)],
    limits: &[(SourceName, u32)],
) -> Result<(), StoreError> {
    // Two concurrent writers would not count each other's rows, and could deadlock when they
    // delete. A lock of the table would block vacuum.
    conn.execute("select pg_advisory_xact_lock(hashtext('tallyhook quarantine'))").await?;
    sqlx::query!(
        r#"
        insert into quarantine (receipt_id, source, received_at, error, headers, query, payload)
        select receipt_id, source, received_at, error, headers::jsonb, query, payload
        from unnest(
            $1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
            $7::bytea[]
        ) as request (receipt_id, source, received_at, error, headers, query, payload)
        order by receipt_id
        on conflict do nothing
        "#,
        &column!(requests, (request, _) => request.receipt_id),
        &column!(requests, (request, _) => request.source.as_str()) as &[&str],
        &column!(requests, (request, _) => request.received_at),
        &column!(requests, (request, _) => request.error.as_str()) as &[&str],
        &column!(requests, (_, head) => head.headers.to_string()),
        &column!(requests, (_, head) => head.query.as_str()) as &[&str],
        &column!(requests, (request, _) => request.body.as_ref()) as &[&[u8]],
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        delete from quarantine where receipt_id in (
            select excess.receipt_id
            from unnest($1::text[], $2::bigint[]) as source_limit (source, max_requests)
            cross join lateral (
                select receipt_id from quarantine
                where quarantine.source = source_limit.source
                order by received_at desc, receipt_id desc
                offset source_limit.max_requests
            ) as excess)
        "#,
        &column!(limits, (source, _) => source.as_str()) as &[&str],
        &column!(limits, (_, limit) => i64::from(*limit)),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A row of a list of quarantined requests.
#[derive(Clone, Debug, Serialize)]
pub struct QuarantineSummary {
    /// The receipt id in the response.
    pub receipt_id: Uuid,
    /// The source that received it.
    pub source: String,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// The size of its body in bytes.
    pub payload_bytes: i32,
}

/// Selects quarantined requests. Every condition must hold; a filter without conditions selects
/// all.
#[derive(Clone, Debug, Default)]
pub struct QuarantineFilter {
    /// Only these requests.
    pub ids: Vec<Uuid>,
    /// Received by this source.
    pub source: Option<String>,
}

/// Lists at most `limit` requests, oldest first.
///
/// # Errors
/// A database error.
pub async fn list(
    conn: &mut Conn,
    filter: &QuarantineFilter,
    limit: u32,
) -> Result<Vec<QuarantineSummary>, StoreError> {
    Ok(sqlx::query_as!(
        QuarantineSummary,
        r#"
        select receipt_id, source, received_at, error, length(payload) as "payload_bytes!"
        from quarantine
        where (cardinality($1::uuid[]) = 0 or receipt_id = any($1))
          and ($2::text is null or source = $2)
        order by received_at, receipt_id
        limit $3
        "#,
        &filter.ids,
        filter.source.as_deref(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?)
}

/// A quarantined request with its headers and body.
#[derive(Clone, Debug)]
pub struct QuarantinedRequest {
    /// The source that received it.
    pub source: String,
    /// When it was received.
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// Its headers in their stored form, credentials included.
    pub headers: Value,
    /// The query string.
    pub query: String,
    /// The raw body.
    pub payload: Vec<u8>,
}

/// Finds a request.
///
/// # Errors
/// A database error.
pub async fn find(conn: &mut Conn, id: Uuid) -> Result<Option<QuarantinedRequest>, StoreError> {
    Ok(sqlx::query_as!(
        QuarantinedRequest,
        "select source, received_at, error, headers, query, payload
         from quarantine where receipt_id = $1",
        id
    )
    .fetch_optional(conn)
    .await?)
}

/// Deletes requests, records the action that caused it, and returns how many were still there. Call
/// it in a transaction.
///
/// # Errors
/// A database error.
pub async fn delete(
    conn: &mut Conn,
    ids: &[Uuid],
    action: AuditAction,
    actor: Actor<'_>,
) -> Result<u64, StoreError> {
    let deleted = sqlx::query!(
        r#"
        with deleted as (
            delete from quarantine where receipt_id = any($1) returning receipt_id, source
        )
        select receipt_id, source from deleted order by receipt_id
        "#,
        ids
    )
    .fetch_all(&mut *conn)
    .await?;
    let subjects = column!(deleted, row => Subject {
        dead_letter_id: None,
        delivery_id: None,
        detail: json!({"receipt_id": row.receipt_id, "source": row.source}),
    });
    audit_log::insert(conn, action, actor, &subjects).await?;
    Ok(deleted.len() as u64)
}
