//! `receipts`: the call log, one row for every message received.

pub mod partition_range;
pub mod partitions;

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::{Envelope, Outcome, RejectedRequest, WriteKind};

/// What a confirmed publish answers over HTTP: the webhook, or the file.
fn accepted_status(envelope: &Envelope) -> i16 {
    if envelope.import.is_some() { 202 } else { 200 }
}

/// What became of one message.
#[derive(Clone, Debug)]
pub struct ReceiptRow<'a> {
    /// The message.
    pub envelope: &'a Envelope,
    /// The number that people know the document by, if it could be read.
    pub business_key: Option<&'a str>,
    /// What became of it.
    pub outcome: Outcome,
    /// What `applied` did to the order or invoice, where that can be told.
    pub write_kind: Option<WriteKind>,
    /// How many attempts have failed.
    pub attempts: u32,
    /// Why, for `retried` and `dead`.
    pub error: Option<&'a str>,
    /// Whether the payload is kept: not for a duplicate of bytes on record.
    pub keep_payload: bool,
}

/// Records outcomes, each of another message. What was final stays as it is;
/// `retried` and `dead` may still turn into something better. Gives back those
/// that did: a dead letter may be open for them.
///
/// # Errors
/// What the database says.
pub async fn record(conn: &mut Conn, rows: &[ReceiptRow<'_>]) -> Result<Vec<Uuid>, StoreError> {
    // Sorted here and not there: PostgreSQL would sort the bodies along, in a
    // temporary file if they are many. It keeps the order of arrays.
    let mut rows: Vec<&ReceiptRow<'_>> = rows.iter().collect();
    rows.sort_unstable_by_key(|row| row.envelope.receipt_id);
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let ids: Vec<Uuid> = column!(row => row.envelope.receipt_id);
    let received: Vec<OffsetDateTime> = column!(row => row.envelope.received_at);
    let status: Vec<Option<i16>> =
        column!(row => row.envelope.received_over_http.then(|| accepted_status(row.envelope)));
    let attempts = column!(row => i32::try_from(row.attempts).unwrap_or(i32::MAX));
    let payloads: Vec<Option<&[u8]>> =
        column!(row => row.keep_payload.then_some(row.envelope.body.as_ref()));
    let recorded = sqlx::query!(
        r#"
        insert into receipts as known (
            receipt_id, source, tenant, event_key, topic, business_key, received_at,
            response_status, outcome, attempts, error, payload, import_id, import_line, write_kind)
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
        -- Of a row that was inserted just now it says false.
        returning receipt_id, outcome_changed
        "#,
        &ids,
        &column!(row => row.envelope.source.as_str()) as &[&str],
        &column!(row => row.envelope.tenant.as_str()) as &[&str],
        &column!(row => row.envelope.key.as_str()) as &[&str],
        &column!(row => row.envelope.topic.as_str()) as &[&str],
        &column!(row => row.business_key) as &[Option<&str>],
        &received,
        &status as &[Option<i16>],
        &column!(row => row.outcome.as_str()) as &[&str],
        &attempts,
        &column!(row => row.error) as &[Option<&str>],
        &payloads as &[Option<&[u8]>],
        &column!(row => row.envelope.import.map(|item| item.import_id)) as &[Option<Uuid>],
        &column!(row => row.envelope.import.map(|item| i64::from(item.line))) as &[Option<i64>],
        &column!(row => row.write_kind.map(WriteKind::as_str)) as &[Option<&str>],
    )
    .fetch_all(conn)
    .await?;
    Ok(recorded.into_iter().filter(|row| row.outcome_changed).map(|row| row.receipt_id).collect())
}

/// Records calls that were refused. One that is on record stays as it is.
///
/// # Errors
/// What the database says.
pub async fn record_rejected(
    conn: &mut Conn,
    calls: &[&RejectedRequest],
) -> Result<(), StoreError> {
    macro_rules! column {
        ($call:ident => $value:expr) => {
            calls.iter().map(|$call| $value).collect::<Vec<_>>()
        };
    }
    let status = column!(call => call.status.and_then(|status| i16::try_from(status).ok()));
    sqlx::query!(
        r#"
        insert into receipts (
            receipt_id, source, tenant, event_key, topic, received_at, response_status, outcome,
            attempts, error, payload, import_id, import_line)
        select receipt_id, source, tenant, event_key, '', received_at, response_status, $9, 0,
            error,
            -- Nothing, where the body was not read whole.
            nullif(payload, ''), import_id, import_line
        from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::smallint[],
            $7::text[], $8::bytea[], $10::uuid[], $11::bigint[]
        ) as call (
            receipt_id, source, tenant, event_key, received_at, response_status, error, payload,
            import_id, import_line)
        order by receipt_id
        on conflict do nothing
        "#,
        &column!(call => call.receipt_id),
        &column!(call => call.source.as_str()) as &[&str],
        &column!(call => call.tenant.as_str()) as &[&str],
        &column!(call => call.log_key().to_string()),
        &column!(call => call.received_at),
        &status as &[Option<i16>],
        &column!(call => call.error.as_str()) as &[&str],
        &column!(call => call.body.as_ref()) as &[&[u8]],
        Outcome::Rejected.as_str(),
        &column!(call => call.import.map(|item| item.import_id)) as &[Option<Uuid>],
        &column!(call => call.import.map(|item| i64::from(item.line))) as &[Option<i64>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Of these messages, those whose receipt is on record for another event key.
///
/// # Errors
/// What the database says.
pub async fn ids_in_use(
    conn: &mut Conn,
    messages: &[(Uuid, &str)],
) -> Result<Vec<Uuid>, StoreError> {
    let ids: Vec<Uuid> = messages.iter().map(|(id, _)| *id).collect();
    let keys: Vec<&str> = messages.iter().map(|(_, key)| *key).collect();
    Ok(sqlx::query_scalar!(
        r#"
        with message as (
            select * from unnest($1::uuid[], $2::text[]) as message (receipt_id, event_key)
        )
        select receipt_id as "receipt_id!"
        from message join receipts as receipt using (receipt_id)
        where receipt.event_key <> message.event_key
        union
        -- A letter is there for longer than its receipt.
        select receipt_id
        from message join dead_letters as letter using (receipt_id)
        where letter.event_key <> message.event_key
        "#,
        &ids,
        &keys as &[&str],
    )
    .fetch_all(conn)
    .await?)
}
