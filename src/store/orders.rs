//! `orders`: the current state of every order.

use std::collections::HashMap;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError, write_kind};
use crate::domain::{OrderUpdate, SourceName, WriteKind};

/// An update of an order.
#[derive(Clone, Copy, Debug)]
pub struct OrderRow<'a> {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The shop.
    pub tenant: &'a str,
    /// The new state, or the deletion.
    pub update: &'a OrderUpdate,
}

/// The results of updates.
#[derive(Debug, Default)]
pub struct OrderWriteResult {
    /// What each applied message did, by receipt. The other messages are stale.
    pub applied: HashMap<Uuid, WriteKind>,
    /// The messages after which the order has another currency than the one its refunds were
    /// summed in. Before the order's state was known, that currency was a guess.
    pub currency_changed: Vec<Uuid>,
}

/// Writes updates, each of another order.
///
/// # Errors
/// A database error.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[OrderRow<'_>],
) -> Result<OrderWriteResult, StoreError> {
    let mut columns = OrderColumns::default();
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
            refunded_reported, customer_ref, payment_ref, placed_at, sequence, version,
            lines::jsonb, deleted_at, restored_at, receipt_id, receipt_id
        from unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::numeric[],
            $9::numeric[], $10::text[], $11::timestamptz[], $12::timestamptz[], $13::text[],
            $14::timestamptz[], $15::timestamptz[], $16::uuid[], $17::text[], $18::bigint[]
        ) as new (
            tenant, order_id, number, status, platform_status, currency, total,
            refunded_reported, customer_ref, placed_at, version, lines,
            deleted_at, restored_at, receipt_id, payment_ref, sequence)
        order by tenant, order_id
        on conflict (source, tenant, order_id) do update set
            -- A deletion carries no state. The last state stays readable.
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
                -- Some platforms' times have a resolution of one second, so that versions can be
                -- equal. Then the later message wins.
                (known.version is null
                    or (known.sequence, known.version) <= (excluded.sequence, excluded.version))
                -- A state from before a deletion must not undo the deletion.
                and (known.deleted_at is null or known.deleted_at < excluded.version
                     or excluded.restored_at is not null)
            end
        returning last_receipt, first_receipt = last_receipt as "is_new!",
            coalesce(refunded_currency <> currency, false) as "is_currency_changed!"
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
    let mut result = OrderWriteResult::default();
    for row in rows {
        result.applied.insert(row.last_receipt, write_kind(row.is_new));
        if row.is_currency_changed {
            result.currency_changed.push(row.last_receipt);
        }
    }
    Ok(result)
}

/// The updates as columns for `unnest`.
#[derive(Default)]
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
    fn push(&mut self, row: &OrderRow<'a>) {
        let (state, deleted_at) = match row.update {
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
        // Lines are strings and decimals: serializing them cannot fail.
        let lines = order.and_then(|order| serde_json::to_string(&order.lines).ok());
        self.lines.push(lines.unwrap_or_else(|| "[]".to_owned()));
        self.deleted_at.push(deleted_at);
        self.restored_at.push(state.and_then(|(version, _, restored)| restored.then_some(version)));
        self.receipt_id.push(row.receipt_id);
        self.payment_ref.push(order.and_then(|order| order.payment_ref.as_deref()));
        self.sequence.push(order.map_or(0, |order| order.sequence));
    }
}
