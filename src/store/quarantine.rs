//! `quarantine`: forged calls that wait for a secret to be mended.

use serde::Serialize;
use serde_json::Value;
use sqlx::Executor as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError, audit_log::Actor};
use crate::domain::{RejectedRequest, RequestHead, SourceName};

/// Takes calls in, each with its head, and lets go of the oldest beyond a
/// source's limit. Sources without a limit keep everything that is there.
///
/// # Errors
/// What the database says.
pub async fn insert(
    conn: &mut Conn,
    calls: &[(&RejectedRequest, &RequestHead)],
    limits: &[(SourceName, u32)],
) -> Result<(), StoreError> {
    macro_rules! column {
        ($call:ident, $head:ident => $value:expr) => {
            calls.iter().map(|($call, $head)| $value).collect::<Vec<_>>()
        };
    }
    // Two writers would each count without the other's rows, and meet in what
    // they delete. No lock of the table, which would keep vacuum away.
    conn.execute("select pg_advisory_xact_lock(hashtext('tallyhook quarantine'))").await?;
    sqlx::query!(
        r#"
        insert into quarantine (receipt_id, source, received_at, error, headers, query, payload)
        select receipt_id, source, received_at, error, headers::jsonb, query, payload
        from unnest(
            $1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
            $7::bytea[]
        ) as call (receipt_id, source, received_at, error, headers, query, payload)
        order by receipt_id
        on conflict do nothing
        "#,
        &column!(call, _head => call.receipt_id),
        &column!(call, _head => call.source.as_str()) as &[&str],
        &column!(call, _head => call.received_at),
        &column!(call, _head => call.error.as_str()) as &[&str],
        &column!(_call, head => head.headers.to_string()),
        &column!(_call, head => head.query.as_str()) as &[&str],
        &column!(call, _head => call.body.as_ref()) as &[&[u8]],
    )
    .execute(&mut *conn)
    .await?;
    let sources: Vec<&str> = limits.iter().map(|(source, _)| source.as_str()).collect();
    let most: Vec<i64> = limits.iter().map(|(_, most)| i64::from(*most)).collect();
    sqlx::query!(
        r#"
        delete from quarantine where receipt_id in (
            select beyond.receipt_id
            from unnest($1::text[], $2::bigint[]) as lim (source, most)
            cross join lateral (
                select receipt_id from quarantine
                where quarantine.source = lim.source
                order by received_at desc, receipt_id desc
                offset lim.most
            ) as beyond)
        "#,
        &sources as &[&str],
        &most,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A quarantined call as people see it in a list.
#[derive(Clone, Debug, Serialize)]
pub struct QuarantineSummary {
    /// The receipt that its answer named.
    pub receipt_id: Uuid,
    /// Where it came in.
    pub source: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// The size of its body in bytes.
    pub payload_bytes: i32,
}

/// Which quarantined calls; every condition must hold.
#[derive(Clone, Debug, Default)]
pub struct QuarantineFilter {
    /// These calls only; empty for all.
    pub ids: Vec<Uuid>,
    /// Where they came in.
    pub source: Option<String>,
}

/// Lists calls, the oldest first.
///
/// # Errors
/// What the database says.
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

/// A quarantined call, whole.
#[derive(Clone, Debug)]
pub struct QuarantinedRequest {
    /// Where it came in.
    pub source: String,
    /// When.
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// Its headers, as an adapter keeps and reads them.
    pub headers: Value,
    /// What stood behind the `?` of its address.
    pub query: String,
    /// The raw bytes.
    pub payload: Vec<u8>,
}

/// One call, whole; `None` if there is no such call.
///
/// # Errors
/// What the database says.
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

/// Lets calls go, and says so in the audit log under this word; gives back
/// how many were still there.
///
/// # Errors
/// What the database says.
pub async fn delete(
    conn: &mut Conn,
    ids: &[Uuid],
    act: &str,
    actor: Actor<'_>,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        r#"
        with gone as (
            delete from quarantine where receipt_id = any($1) returning receipt_id, source
        )
        insert into audit_log (actor, action, comment, detail)
        select $2, $3, $4, jsonb_build_object('receipt_id', receipt_id, 'source', source)
        from gone order by receipt_id
        "#,
        ids,
        actor.name,
        act,
        actor.comment,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
