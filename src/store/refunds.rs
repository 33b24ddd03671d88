//! `refunds` and `payments`: money that went back, and which order it is of.
//!
//! An order's row is locked before its refunds are summed, and the row of a
//! payment before either: of an order and its refund that are applied at the
//! same time, whichever is second sees the first.

use std::collections::HashSet;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{Refund, RefundTarget, SourceName};

/// One update of one refund, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct RefundRow<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The shop.
    pub tenant: &'a str,
    /// Its state.
    pub refund: &'a Refund,
}

/// That an order is paid by a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payment<'a> {
    /// The shop.
    pub tenant: &'a str,
    /// The payment.
    pub payment_ref: &'a str,
    /// The order; `None` from a refund, which does not know it.
    pub order_id: Option<&'a str>,
}

/// Locks payments, each of which must be there once, and keeps which order
/// they are of. Before the orders themselves are written.
///
/// # Errors
/// What the database says.
pub async fn upsert_payments(
    conn: &mut Conn,
    source: &SourceName,
    payments: &[Payment<'_>],
) -> Result<(), StoreError> {
    let tenants: Vec<&str> = payments.iter().map(|payment| payment.tenant).collect();
    let refs: Vec<&str> = payments.iter().map(|payment| payment.payment_ref).collect();
    let orders: Vec<Option<&str>> = payments.iter().map(|payment| payment.order_id).collect();
    sqlx::query!(
        r#"
        insert into payments as known (source, tenant, payment_ref, order_id)
        select $1, tenant, payment_ref, order_id
        from unnest($2::text[], $3::text[], $4::text[]) as told (tenant, payment_ref, order_id)
        order by tenant, payment_ref
        on conflict (source, tenant, payment_ref) do update set
            order_id = coalesce(known.order_id, excluded.order_id)
        "#,
        source.as_str(),
        &tenants as &[&str],
        &refs as &[&str],
        &orders as &[Option<&str>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes refunds, each another one, and gives back the messages that had an
/// effect. Their orders must be [locked](lock_orders) before and
/// [summed](sum) afterwards.
///
/// # Errors
/// What the database says.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[RefundRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let orders: Vec<Option<&str>> = column!(row => order_of(row.refund));
    let payments: Vec<Option<&str>> = column!(row => payment_of(row.refund));
    let amounts: Vec<Decimal> = column!(row => row.refund.amount.amount);
    let versions: Vec<OffsetDateTime> = column!(row => row.refund.version);
    let applied = sqlx::query_scalar!(
        r#"
        insert into refunds as known (
            source, tenant, refund_id, order_id, payment_ref, status, platform_status, currency,
            amount, version, first_receipt, last_receipt, cumulative)
        select
            $1, tenant, refund_id, order_id, payment_ref, status, platform_status, currency,
            amount, version, receipt_id, receipt_id, cumulative
        from unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::numeric[], $10::timestamptz[], $11::uuid[], $12::boolean[]
        ) as told (
            tenant, refund_id, order_id, payment_ref, status, platform_status, currency, amount,
            version, receipt_id, cumulative)
        order by tenant, refund_id
        on conflict (source, tenant, refund_id) do update set
            order_id = coalesce(known.order_id, excluded.order_id),
            payment_ref = coalesce(known.payment_ref, excluded.payment_ref),
            status = excluded.status,
            platform_status = excluded.platform_status,
            currency = excluded.currency,
            amount = excluded.amount,
            version = excluded.version,
            last_receipt = excluded.last_receipt,
            updated_at = now()
        where known.version < excluded.version
           -- Within the same second what is still on its way came first.
           or (known.version = excluded.version
               and (known.status = 'pending' or excluded.status <> 'pending'))
        returning last_receipt
        "#,
        source.as_str(),
        &column!(row => row.tenant) as &[&str],
        &column!(row => row.refund.refund_id.as_str()) as &[&str],
        &orders as &[Option<&str>],
        &payments as &[Option<&str>],
        &column!(row => row.refund.status.as_str()) as &[&str],
        &column!(row => row.refund.platform_status.as_str()) as &[&str],
        &column!(row => row.refund.amount.currency.as_str()) as &[&str],
        &amounts,
        &versions,
        &column!(row => row.receipt_id),
        &column!(row => row.refund.cumulative),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// The order that a refund names itself.
pub fn order_of(refund: &Refund) -> Option<&str> {
    match &refund.target {
        RefundTarget::Order(id) => Some(id),
        RefundTarget::Payment(_) => None,
    }
}

/// The payment that a refund names instead.
pub fn payment_of(refund: &Refund) -> Option<&str> {
    match &refund.target {
        RefundTarget::Order(_) => None,
        RefundTarget::Payment(payment) => Some(payment),
    }
}

/// An order whose refunds are about to change, or to be summed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffectedOrder {
    /// The shop.
    pub tenant: String,
    /// The order.
    pub order_id: String,
    /// A message that touches it.
    pub receipt_id: Uuid,
}

/// The orders of payments, as far as they are known.
///
/// # Errors
/// What the database says.
pub async fn orders_paid_by(
    conn: &mut Conn,
    source: &SourceName,
    payments: &[(Payment<'_>, Uuid)],
) -> Result<Vec<AffectedOrder>, StoreError> {
    let tenants: Vec<&str> = payments.iter().map(|(payment, _)| payment.tenant).collect();
    let refs: Vec<&str> = payments.iter().map(|(payment, _)| payment.payment_ref).collect();
    let receipts: Vec<Uuid> = payments.iter().map(|(_, receipt_id)| *receipt_id).collect();
    Ok(sqlx::query_as!(
        AffectedOrder,
        r#"
        select payment.tenant, payment.order_id as "order_id!", told.receipt_id as "receipt_id!"
        from unnest($2::text[], $3::text[], $4::uuid[]) as told (tenant, payment_ref, receipt_id)
        join payments as payment
            on payment.source = $1 and payment.tenant = told.tenant
            and payment.payment_ref = told.payment_ref
        where payment.order_id is not null
        "#,
        source.as_str(),
        &tenants as &[&str],
        &refs as &[&str],
        &receipts,
    )
    .fetch_all(conn)
    .await?)
}

/// Locks orders, each of which must be there once. One that nobody has told
/// of yet gets an empty row, which its state will fill.
///
/// # Errors
/// What the database says.
pub async fn lock_orders(
    conn: &mut Conn,
    source: &SourceName,
    orders: &[AffectedOrder],
) -> Result<(), StoreError> {
    let (tenants, ids, receipts) = affected_order_columns(orders);
    sqlx::query!(
        r#"
        insert into orders as known (source, tenant, order_id, first_receipt, last_receipt)
        select $1, tenant, order_id, receipt_id, receipt_id
        from unnest($2::text[], $3::text[], $4::uuid[]) as told (tenant, order_id, receipt_id)
        order by tenant, order_id
        -- Nothing changes; the row is locked.
        on conflict (source, tenant, order_id) do update set source = known.source
        "#,
        source.as_str(),
        &tenants as &[&str],
        &ids as &[&str],
        &receipts,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sums up the refunds of locked orders. Those in another currency than the
/// order's (or, before its state is known, than the first refund's) are left
/// out rather than added to it.
///
/// # Errors
/// What the database says.
pub async fn recompute_refunded(
    conn: &mut Conn,
    source: &SourceName,
    orders: &[AffectedOrder],
) -> Result<(), StoreError> {
    let (tenants, ids, _) = affected_order_columns(orders);
    sqlx::query!(
        r#"
        with summed as materialized (
            -- The source is repeated, and the order's row fenced off: so that
            -- no plan reads all orders of a source, which looks cheap before
            -- the tables are analyzed for the first time.
            select $1::text as source, told.tenant, told.order_id, refunds.amount, refunds.currency
            from unnest($2::text[], $3::text[]) as told (tenant, order_id)
            cross join lateral (
                select currency from orders
                where source = $1 and tenant = told.tenant and order_id = told.order_id
                offset 0
            ) as standing
            left join lateral (
                select refund.currency, greatest(
                    sum(refund.amount) filter (where not refund.cumulative),
                    sum(refund.amount) filter (where refund.cumulative)) as amount
                from (
                    select refund.*
                    from refunds as refund
                    where refund.source = $1 and refund.tenant = told.tenant
                      and refund.order_id = told.order_id
                    union
                    select refund.*
                    from payments as payment
                    join refunds as refund using (source, tenant, payment_ref)
                    where payment.source = $1 and payment.tenant = told.tenant
                      and payment.order_id = told.order_id
                ) as refund
                where refund.status = 'succeeded'
                group by refund.currency
                order by refund.currency = standing.currency desc nulls last,
                    min(refund.created_at)
                limit 1
            ) as refunds on true
        )
        update orders as known set
            refunded_computed = coalesce(summed.amount, 0),
            refunded_currency = summed.currency,
            updated_at = now()
        from summed
        where known.source = summed.source and known.tenant = summed.tenant
          and known.order_id = summed.order_id
          and (known.refunded_computed, known.refunded_currency)
              is distinct from (coalesce(summed.amount, 0), summed.currency)
        "#,
        source.as_str(),
        &tenants as &[&str],
        &ids as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn affected_order_columns(orders: &[AffectedOrder]) -> (Vec<&str>, Vec<&str>, Vec<Uuid>) {
    let tenants = orders.iter().map(|order| order.tenant.as_str()).collect();
    let ids = orders.iter().map(|order| order.order_id.as_str()).collect();
    (tenants, ids, orders.iter().map(|order| order.receipt_id).collect())
}
