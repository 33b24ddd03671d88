//! `orders`: the canonical state of every order.

use std::collections::HashMap;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError, write_kind};
use crate::domain::{OrderUpdate, SourceName, WriteKind};

/// One update of one order, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct OrderRow<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The shop.
    pub tenant: &'a str,
    /// What happens.
    pub update: &'a OrderUpdate,
}

/// What became of updates.
#[derive(Debug, Default)]
pub struct OrderWriteResult {
    /// The messages that had an effect, each with what it did. The rest are
    /// stale: a newer state stands already.
    pub applied: HashMap<Uuid, WriteKind>,
    /// Those after which the order is in another currency than its refunds
    /// were summed in: before its state was known, that was a guess.
    pub currency_changed: Vec<Uuid>,
}

/// Writes updates, each of another order.
///
/// # Errors
/// What the database says.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[OrderRow<'_>],
) -> Result<OrderWriteResult, StoreError> {
    let mut columns = OrderColumns::with_capacity(rows.len());
    for row in rows {
        columns.push(row);
    }
    let rows = sqlx::query!(
        r#"
        insert into orders as known (
            source, tenant, order_id, number, status, platform_status, currency, total,
            refunded_reported, customer_ref, payment_ref, placed_at, sequence, version, lines,
            deleted_at, restored_at, first_receipt, last_receipt)
        select
            $1, tenant, order_id, number, status, platform_status, currency, total,
            refunded_reported, customer_ref, payment_ref, placed_at, sequence, version, lines::jsonb,
            deleted_at, restored_at, receipt_id, receipt_id
        from unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[],
            $9::numeric[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::text[],
            $14::timestamptz[], $15::timestamptz[], $16::uuid[], $17::text[], $18::bigint[]
        ) as told (
            tenant, order_id, number, status, platform_status, currency, total,
            refunded_reported, customer_ref, placed_at, version, lines,
            deleted_at, restored_at, receipt_id, payment_ref, sequence)
        order by tenant, order_id
        on conflict (source, tenant, order_id) do update set
            -- A deletion tells nothing but itself: the last state stays readable.
            number = coalesce(excluded.number, known.number),
            status = coalesce(excluded.status, known.status),
            platform_status = coalesce(excluded.platform_status, known.platform_status),
            currency = coalesce(excluded.currency, known.currency),
            total = coalesce(excluded.total, known.total),
            refunded_reported = case when excluded.deleted_at is null
                then excluded.refunded_reported else known.refunded_reported end,
            customer_ref = case when excluded.deleted_at is null
                then excluded.customer_ref else known.customer_ref end,
            payment_ref = coalesce(excluded.payment_ref, known.payment_ref),
            placed_at = coalesce(excluded.placed_at, known.placed_at),
            sequence = case when excluded.deleted_at is null
                then excluded.sequence else known.sequence end,
            version = coalesce(excluded.version, known.version),
            lines = case when excluded.deleted_at is null
                then excluded.lines else known.lines end,
            deleted_at = excluded.deleted_at,
            restored_at = coalesce(excluded.restored_at, known.restored_at),
            last_receipt = excluded.last_receipt,
            updated_at = now()
        where case
            when excluded.deleted_at is not null then
                (known.version is null or known.version <= excluded.deleted_at)
                and (known.deleted_at is null or known.deleted_at <= excluded.deleted_at)
            else
                -- Clocks of one second make equal versions; the later message wins.
                (known.version is null
                    or (known.sequence, known.version) <= (excluded.sequence, excluded.version))
                -- What happened before a deletion must not undo it.
                and (known.deleted_at is null or known.deleted_at < excluded.version
                     or excluded.restored_at is not null)
            end
        returning last_receipt, first_receipt = last_receipt as "is_new!",
            coalesce(refunded_currency <> currency, false) as "is_unsummed!"
        "#,
        source.as_str(),
        &columns.tenant as &[&str],
        &columns.order_id as &[&str],
        &columns.number as &[Option<&str>],
        &columns.status as &[Option<&str>],
        &columns.platform_status as &[Option<&str>],
        &columns.currency as &[Option<&str>],
        &columns.total as &[Option<Decimal>],
        &columns.refunded,
        &columns.customer_ref as &[Option<&str>],
        &columns.placed_at as &[Option<OffsetDateTime>],
        &columns.version as &[Option<OffsetDateTime>],
        &columns.lines,
        &columns.deleted_at as &[Option<OffsetDateTime>],
        &columns.restored_at as &[Option<OffsetDateTime>],
        &columns.receipt_id,
        &columns.payment_ref as &[Option<&str>],
        &columns.sequence,
    )
    .fetch_all(conn)
    .await?;
    let mut written = OrderWriteResult::default();
    for row in rows {
        written.applied.insert(row.last_receipt, write_kind(row.is_new));
        if row.is_unsummed {
            written.currency_changed.push(row.last_receipt);
        }
    }
    Ok(written)
}

/// The rows turned on their side, as `unnest` wants them.
struct OrderColumns<'a> {
    tenant: Vec<&'a str>,
    order_id: Vec<&'a str>,
    number: Vec<Option<&'a str>>,
    status: Vec<Option<&'a str>>,
    platform_status: Vec<Option<&'a str>>,
    currency: Vec<Option<&'a str>>,
    total: Vec<Option<Decimal>>,
    refunded: Vec<Decimal>,
    customer_ref: Vec<Option<&'a str>>,
    placed_at: Vec<Option<OffsetDateTime>>,
    version: Vec<Option<OffsetDateTime>>,
    lines: Vec<String>,
    deleted_at: Vec<Option<OffsetDateTime>>,
    restored_at: Vec<Option<OffsetDateTime>>,
    receipt_id: Vec<Uuid>,
    payment_ref: Vec<Option<&'a str>>,
    sequence: Vec<i64>,
}

impl<'a> OrderColumns<'a> {
    fn with_capacity(rows: usize) -> Self {
        Self {
            tenant: Vec::with_capacity(rows),
            order_id: Vec::with_capacity(rows),
            number: Vec::with_capacity(rows),
            status: Vec::with_capacity(rows),
            platform_status: Vec::with_capacity(rows),
            currency: Vec::with_capacity(rows),
            total: Vec::with_capacity(rows),
            refunded: Vec::with_capacity(rows),
            customer_ref: Vec::with_capacity(rows),
            placed_at: Vec::with_capacity(rows),
            version: Vec::with_capacity(rows),
            lines: Vec::with_capacity(rows),
            deleted_at: Vec::with_capacity(rows),
            restored_at: Vec::with_capacity(rows),
            receipt_id: Vec::with_capacity(rows),
            payment_ref: Vec::with_capacity(rows),
            sequence: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, row: &OrderRow<'a>) {
        let (state, gone) = match row.update {
            OrderUpdate::State { version, order, restored, .. } => {
                (Some((*version, order.as_ref(), *restored)), None)
            }
            OrderUpdate::Deleted { deleted_at, .. } => (None, Some(*deleted_at)),
        };
        let order = state.map(|(_, order, _)| order);
        self.tenant.push(row.tenant);
        self.order_id.push(row.update.order_id());
        self.number.push(order.map(|order| order.number.as_str()));
        self.status.push(order.map(|order| order.status.as_str()));
        self.platform_status.push(order.map(|order| order.platform_status.as_str()));
        self.currency.push(order.map(|order| order.total.currency.as_str()));
        self.total.push(order.map(|order| order.total.amount));
        self.refunded.push(order.map_or(Decimal::ZERO, |order| order.refunded));
        self.customer_ref.push(order.and_then(|order| order.customer_ref.as_deref()));
        self.placed_at.push(order.and_then(|order| order.placed_at));
        self.version.push(state.map(|(version, ..)| version));
        // Lines are texts and decimals: serializing them cannot fail.
        let lines = order.and_then(|order| serde_json::to_string(&order.lines).ok());
        self.lines.push(lines.unwrap_or_else(|| "[]".to_owned()));
        self.deleted_at.push(gone);
        self.restored_at.push(state.and_then(|(version, _, restored)| restored.then_some(version)));
        self.receipt_id.push(row.receipt_id);
        self.payment_ref.push(order.and_then(|order| order.payment_ref.as_deref()));
        self.sequence.push(order.map_or(0, |order| order.sequence));
    }
}
