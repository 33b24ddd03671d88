//! `invoices`: the canonical state of every invoice.

use std::collections::HashSet;

use time::Date;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{Invoice, SourceName, invoice::invoice_id};

/// One update of one invoice, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// Which issue of the invoice.
    pub generation: u32,
    /// Its state.
    pub invoice: &'a Invoice,
}

/// Writes updates, each of another invoice, and gives back the messages that
/// had an effect. The rest are stale: a newer state stands already.
///
/// # Errors
/// What the database says.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[Row<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let ids = column!(row => {
        let Row { tenant, generation, invoice, .. } = row;
        invoice_id(source, tenant, &invoice.vendor, &invoice.invoice_number, *generation)
    });
    let generations = column!(row => i32::try_from(row.generation).unwrap_or(i32::MAX));
    let transactions: Vec<Option<&str>> = column!(row => row.invoice.transaction_id.as_deref());
    let due: Vec<Option<Date>> = column!(row => row.invoice.due_on);
    let applied = sqlx::query_scalar!(
        r#"
        insert into invoices as known (
            invoice_id, source, tenant, vendor, invoice_number, generation, transaction_id,
            status, platform_status, currency, total, due_on, version,
            first_receipt, last_receipt)
        select
            invoice_id, $1, tenant, vendor, invoice_number, generation, transaction_id,
            status, platform_status, currency, total, due_on, version,
            receipt_id, receipt_id
        from unnest(
            $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::numeric[], $12::date[], $13::timestamptz[], $14::uuid[]
        ) as told (
            invoice_id, tenant, vendor, invoice_number, generation, transaction_id, status,
            platform_status, currency, total, due_on, version, receipt_id)
        order by invoice_id
        on conflict (invoice_id) do update set
            transaction_id = coalesce(excluded.transaction_id, known.transaction_id),
            status = excluded.status,
            platform_status = excluded.platform_status,
            currency = excluded.currency,
            total = excluded.total,
            due_on = coalesce(excluded.due_on, known.due_on),
            version = excluded.version,
            last_receipt = excluded.last_receipt,
            updated_at = now()
        where known.version <= excluded.version and known.deleted_at is null
        returning last_receipt
        "#,
        source.as_str(),
        &ids,
        &column!(row => row.tenant) as &[&str],
        &column!(row => row.invoice.vendor.as_str()) as &[&str],
        &column!(row => row.invoice.invoice_number.as_str()) as &[&str],
        &generations,
        &transactions as &[Option<&str>],
        &column!(row => row.invoice.status.as_str()) as &[&str],
        &column!(row => row.invoice.platform_status.as_str()) as &[&str],
        &column!(row => row.invoice.total.currency.as_str()) as &[&str],
        &column!(row => row.invoice.total.amount),
        &due as &[Option<Date>],
        &column!(row => row.invoice.version),
        &column!(row => row.receipt_id),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}
