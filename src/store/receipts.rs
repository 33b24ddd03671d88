//! `receipts`: the call log, one row for every message received.

pub mod partition_range;
pub mod partitions;

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::{Envelope, Outcome, RejectedRequest, WriteKind};

/// The HTTP status of the response after a confirmed publish: of a webhook, or of an upload.
fn accepted_status(envelope: &Envelope) -> i16 {
    if envelope.import.is_some() { 202 } else { 200 }
}

/// The outcome of a message.
#[derive(Clone, Debug)]
pub struct ReceiptRow<'a> {
    /// The message.
    pub envelope: &'a Envelope,
    /// The number of the order or invoice, if it could be read.
    pub business_key: Option<&'a str>,
    /// The outcome.
    pub outcome: Outcome,
    /// What `applied` did to the order or invoice, if that is known.
    pub write_kind: Option<WriteKind>,
    /// How many attempts failed.
    pub attempts: u32,
    /// Why it failed, for `retried` and `dead`.
    pub error: Option<&'a str>,
    /// Whether to store the payload: not for a duplicate of a body that is on record.
    pub keep_payload: bool,
}

/// Records outcomes, each of another message. A final outcome never changes; `retried` and `dead`
/// may. Returns the receipts whose outcome changed: they may have an open dead letter.
///
/// # Errors
/// A database error.
pub async fn record(conn: &mut Conn, rows: &[ReceiptRow<'_>]) -> Result<Vec<Uuid>, StoreError> {
    // Sorted here and not in SQL: PostgreSQL would sort the bodies too, in a temporary file if there
    // are many. `unnest` keeps the order of arrays.
    let mut rows: Vec<&ReceiptRow<'_>> = rows.iter().collect();
    rows.sort_unstable_by_key(|row| row.envelope.receipt_id);
    let status = column!(rows, row => {
        row.envelope.received_over_http.then(|| accepted_status(row.envelope))
    });
    let payloads = column!(rows, row => row.keep_payload.then_some(row.envelope.body.as_ref()));
    let import_ids = column!(rows, row => row.envelope.import.map(|item| item.import_id));
    let lines = column!(rows, row => row.envelope.import.map(|item| i64::from(item.line)));
    let recorded = sqlx::query!(
        r#"
        insert into receipts as known (
            receipt_id, source, tenant, event_key, topic, business_key, received_at,
            response_status, outcome, attempts, error, payload, import_id, import_line,
            write_kind)
        select *
        from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
            $7::timestamptz[], $8::smallint[], $9::text[], $10::int[], $11::text[], $12::bytea[],
            $13::uuid[], $14::bigint[], $15::text[])
        on conflict (receipt_id) do update set
            business_key = coalesce(excluded.business_key, known.business_key),
            outcome = excluded.outcome,
            attempts = excluded.attempts,
            error = excluded.error,
            write_kind = excluded.write_kind,
            payload = coalesce(known.payload, excluded.payload),
            processed_at = now(),
            outcome_changed = true
        where known.outcome = 'retried'
           or (known.outcome = 'dead' and excluded.outcome not in ('retried', 'dead'))
        -- False for an inserted row.
        returning receipt_id, outcome_changed
        "#,
        &column!(rows, row => row.envelope.receipt_id),
        &column!(rows, row => row.envelope.source.as_str()) as &[&str],
        &column!(rows, row => row.envelope.tenant.as_str()) as &[&str],
        &column!(rows, row => row.envelope.key.as_str()) as &[&str],
        &column!(rows, row => row.envelope.topic.as_str()) as &[&str],
        &column!(rows, row => row.business_key) as &[Option<&str>],
        &column!(rows, row => row.envelope.received_at) as &[OffsetDateTime],
        &status as &[Option<i16>],
        &column!(rows, row => row.outcome.as_str()) as &[&str],
        &column!(rows, row => i32::try_from(row.attempts).unwrap_or(i32::MAX)),
        &column!(rows, row => row.error) as &[Option<&str>],
        &payloads as &[Option<&[u8]>],
        &import_ids as &[Option<Uuid>],
        &lines as &[Option<i64>],
        &column!(rows, row => row.write_kind.map(WriteKind::as_str)) as &[Option<&str>],
    )
    .fetch_all(conn)
    .await?;
    let changed = recorded.into_iter().filter(|row| row.outcome_changed);
    Ok(changed.map(|row| row.receipt_id).collect())
}

/// Records rejected requests. A request that is on record does not change.
///
/// # Errors
/// A database error.
pub async fn record_rejected(
    conn: &mut Conn,
    requests: &[&RejectedRequest],
) -> Result<(), StoreError> {
    let status = column!(requests, request => {
        request.status.and_then(|status| i16::try_from(status).ok())
    });
    let import_ids = column!(requests, request => request.import.map(|item| item.import_id));
    let lines = column!(requests, request => request.import.map(|item| i64::from(item.line)));
    sqlx::query!(
        r#"
        insert into receipts (
            receipt_id, source, tenant, event_key, topic, received_at, response_status, outcome,
            attempts, error, payload, import_id, import_line)
        select receipt_id, source, tenant, event_key, '', received_at, response_status, $9, 0,
            error,
            -- Null if the body was not read to its end.
            nullif(payload, ''), import_id, import_line
        from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::smallint[],
            $7::text[], $8::bytea[], $10::uuid[], $11::bigint[]
        ) as request (
            receipt_id, source, tenant, event_key, received_at, response_status, error, payload,
            import_id, import_line)
        order by receipt_id
        on conflict do nothing
        "#,
        &column!(requests, request => request.receipt_id),
        &column!(requests, request => request.source.as_str()) as &[&str],
        &column!(requests, request => request.tenant.as_str()) as &[&str],
        &column!(requests, request => request.log_key().to_string()),
        &column!(requests, request => request.received_at),
        &status as &[Option<i16>],
        &column!(requests, request => request.error.as_str()) as &[&str],
        &column!(requests, request => request.body.as_ref()) as &[&[u8]],
        Outcome::Rejected.as_str(),
        &import_ids as &[Option<Uuid>],
        &lines as &[Option<i64>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds the messages, given as receipt and event key, whose receipt is on record with another
/// event key.
///
/// # Errors
/// A database error.
pub async fn ids_in_use(
    conn: &mut Conn,
    messages: &[(Uuid, &str)],
) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        with message as (
            select * from unnest($1::uuid[], $2::text[]) as message (receipt_id, event_key)
        )
        select receipt_id as "receipt_id!"
        from message join receipts as receipt using (receipt_id)
        where receipt.event_key <> message.event_key
        union
        -- A dead letter may outlast its receipt.
        select receipt_id
        from message join dead_letters as dead_letter using (receipt_id)
        where dead_letter.event_key <> message.event_key
        "#,
        &column!(messages, (receipt_id, _) => *receipt_id),
        &column!(messages, (_, event_key) => *event_key) as &[&str],
    )
    .fetch_all(conn)
    .await?)
}
