//! `refunds` and `payments`: refunds, and the order of each payment.
//!
//! An order's row is locked before its refunds are summed, and the row of a payment before either.
//! If an order and its refund are applied at the same time, the second transaction sees the first.

use std::collections::HashSet;

use rust_decimal::Decimal;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{Refund, RefundTarget, SourceName};

/// An update of a refund.
#[derive(Clone, Copy, Debug)]
pub struct RefundRow<'a> {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The shop.
    pub tenant: &'a str,
    /// The new state.
    pub refund: &'a Refund,
}

/// A payment that an order or a refund names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payment<'a> {
    /// The shop.
    pub tenant: &'a str,
    /// The platform's id of the payment.
    pub payment_ref: &'a str,
    /// The order; `None` if a refund names the payment.
    pub order_id: Option<&'a str>,
}

/// Locks payments, each listed once, and stores their orders. Call it before the orders are
/// written.
///
/// # Errors
/// A database error.
pub async fn upsert_payments(
    conn: &mut Conn,
    source: &SourceName,
    payments: &[Payment<'_>],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        insert into payments as known (source, tenant, payment_ref, order_id)
        select $1, tenant, payment_ref, order_id
        from unnest($2::text[], $3::text[], $4::text[]) as new (tenant, payment_ref, order_id)
        order by tenant, payment_ref
        on conflict (source, tenant, payment_ref) do update set
            order_id = coalesce(known.order_id, excluded.order_id)
        "#,
        source.as_str(),
        &column!(payments, payment => payment.tenant) as &[&str],
        &column!(payments, payment => payment.payment_ref) as &[&str],
        &column!(payments, payment => payment.order_id) as &[Option<&str>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes updates, each of another refund, and returns the receipts of the applied messages. Their
/// orders must be [locked](lock_orders) before, and their sums
/// [recomputed](recompute_refunded) afterwards.
///
/// # Errors
/// A database error.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[RefundRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
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
        ) as new (
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
           -- Times may have a resolution of one second. Then `pending` is the earlier state.
           or (known.version = excluded.version
               and (known.status = 'pending' or excluded.status <> 'pending'))
        returning last_receipt
        "#,
        source.as_str(),
        &column!(rows, row => row.tenant) as &[&str],
        &column!(rows, row => row.refund.refund_id.as_str()) as &[&str],
        &column!(rows, row => order_of(row.refund)) as &[Option<&str>],
        &column!(rows, row => payment_of(row.refund)) as &[Option<&str>],
        &column!(rows, row => row.refund.status.as_str()) as &[&str],
        &column!(rows, row => row.refund.platform_status.as_str()) as &[&str],
        &column!(rows, row => row.refund.amount.currency.as_str()) as &[&str],
        &column!(rows, row => row.refund.amount.amount) as &[Decimal],
        &column!(rows, row => row.refund.version) as &[OffsetDateTime],
        &column!(rows, row => row.receipt_id),
        &column!(rows, row => row.refund.cumulative),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// The order that a refund names.
pub fn order_of(refund: &Refund) -> Option<&str> {
    match &refund.target {
        RefundTarget::Order(order_id) => Some(order_id),
        RefundTarget::Payment(_) => None,
    }
}

/// The payment that a refund names.
pub fn payment_of(refund: &Refund) -> Option<&str> {
    match &refund.target {
        RefundTarget::Order(_) => None,
        RefundTarget::Payment(payment_ref) => Some(payment_ref),
    }
}

/// An order whose sum of refunds may change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AffectedOrder {
    /// The shop.
    pub tenant: String,
    /// The platform's id of the order.
    pub order_id: String,
    /// The receipt of a message that affects it.
    pub receipt_id: Uuid,
}

/// Finds the known orders of payments. Each payment is given with the receipt of its message.
///
/// # Errors
/// A database error.
pub async fn orders_paid_by(
    conn: &mut Conn,
    source: &SourceName,
    payments: &[(Payment<'_>, Uuid)],
) -> Result<Vec<AffectedOrder>, StoreError> {
    Ok(sqlx::query_as!(
        AffectedOrder,
        r#"
        select payment.tenant, payment.order_id as "order_id!", named.receipt_id as "receipt_id!"
        from unnest($2::text[], $3::text[], $4::uuid[]) as named (tenant, payment_ref, receipt_id)
        join payments as payment
            on payment.source = $1 and payment.tenant = named.tenant
            and payment.payment_ref = named.payment_ref
        where payment.order_id is not null
        "#,
        source.as_str(),
        &column!(payments, (payment, _) => payment.tenant) as &[&str],
        &column!(payments, (payment, _) => payment.payment_ref) as &[&str],
        &column!(payments, (_, receipt_id) => *receipt_id),
    )
    .fetch_all(conn)
    .await?)
}

/// Locks orders, each listed once. An order that is not on record gets an empty row, which its
/// first state fills.
///
/// # Errors
/// A database error.
pub async fn lock_orders(
    conn: &mut Conn,
    source: &SourceName,
    orders: &[AffectedOrder],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        insert into orders as known (source, tenant, order_id, first_receipt, last_receipt)
        select $1, tenant, order_id, receipt_id, receipt_id
        from unnest($2::text[], $3::text[], $4::uuid[]) as new (tenant, order_id, receipt_id)
        order by tenant, order_id
        -- This changes nothing and locks the row.
        on conflict (source, tenant, order_id) do update set source = known.source
        "#,
        source.as_str(),
        &column!(orders, order => order.tenant.as_str()) as &[&str],
        &column!(orders, order => order.order_id.as_str()) as &[&str],
        &column!(orders, order => order.receipt_id),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sums the refunds of locked orders. Refunds in another currency than the order's are left out.
/// Before the order's state is known, the first refund's currency is taken.
///
/// # Errors
/// A database error.
pub async fn recompute_refunded(
    conn: &mut Conn,
    source: &SourceName,
    orders: &[AffectedOrder],
) -> Result<(), StoreError> {
    sqlx::query!(
        r#"
        with summed as materialized (
            -- The source is repeated, and `offset 0` keeps the planner from merging the query of
            -- the order. Otherwise it may read all orders of a source, which looks cheap before
            -- the tables are analyzed for the first time.
            select $1::text as source, affected.tenant, affected.order_id, refunds.amount,
                refunds.currency
            from unnest($2::text[], $3::text[]) as affected (tenant, order_id)
            cross join lateral (
                select currency from orders
                where source = $1 and tenant = affected.tenant and order_id = affected.order_id
                offset 0
            ) as known
            left join lateral (
                select refund.currency, greatest(
                    sum(refund.amount) filter (where not refund.cumulative),
                    sum(refund.amount) filter (where refund.cumulative)) as amount
                from (
                    select refund.*
                    from refunds as refund
                    where refund.source = $1 and refund.tenant = affected.tenant
                      and refund.order_id = affected.order_id
                    union
                    select refund.*
                    from payments as payment
                    join refunds as refund using (source, tenant, payment_ref)
                    where payment.source = $1 and payment.tenant = affected.tenant
                      and payment.order_id = affected.order_id
                ) as refund
                where refund.status = 'succeeded'
                group by refund.currency
                order by refund.currency = known.currency desc nulls last,
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
        &column!(orders, order => order.tenant.as_str()) as &[&str],
        &column!(orders, order => order.order_id.as_str()) as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}
