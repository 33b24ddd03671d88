//! `invoices`: the canonical state of every invoice.

use std::collections::{HashMap, HashSet};

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Conn, StoreError, write_kind};
use crate::domain::{DeletedInvoice, Invoice, InvoiceConflict, SourceName, WriteKind};

/// One update of one invoice, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceRow<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// Which issue of the invoice.
    pub generation: u32,
    /// Its state.
    pub invoice: &'a Invoice,
}

impl InvoiceRow<'_> {
    fn id(&self, source: &SourceName) -> Uuid {
        self.invoice.id(source, self.tenant, self.generation)
    }
}

/// Writes updates, each of another invoice, and gives back the messages that
/// had an effect, each with what it did. The rest are stale: a newer state stands already; or they
/// tell [another transaction](conflicts) where that is no mere update.
///
/// # Errors
/// What the database says.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    rows: &[InvoiceRow<'_>],
) -> Result<HashMap<Uuid, WriteKind>, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let ids = column!(row => row.id(source));
    let documents: Vec<Option<&str>> = column!(row => row.invoice.document_id.as_deref());
    let generations = column!(row => i32::try_from(row.generation).unwrap_or(i32::MAX));
    let transactions: Vec<Option<&str>> = column!(row => row.invoice.transaction_id.as_deref());
    let due: Vec<Option<Date>> = column!(row => row.invoice.due_on);
    let applied = sqlx::query!(
        r#"
        insert into invoices as known (
            invoice_id, source, tenant, vendor, invoice_number, generation, transaction_id,
            status, platform_status, currency, total, due_on, version,
            first_receipt, last_receipt, document_id, sequence)
        select
            invoice_id, $1, tenant, vendor, invoice_number, generation, transaction_id,
            status, platform_status, currency, total, due_on, version,
            receipt_id, receipt_id, document_id, sequence
        from unnest(
            $2::uuid[], $3::text[], $4::text[], $5::text[], $6::int[], $7::text[], $8::text[],
            $9::text[], $10::text[], $11::numeric[], $12::date[], $13::timestamptz[], $14::uuid[],
            $15::text[], $16::bigint[]
        ) as told (
            invoice_id, tenant, vendor, invoice_number, generation, transaction_id, status,
            platform_status, currency, total, due_on, version, receipt_id, document_id, sequence)
        order by invoice_id
        on conflict (invoice_id) do update set
            -- Where a document of the platform's makes the id, these may change.
            vendor = excluded.vendor,
            invoice_number = excluded.invoice_number,
            transaction_id = coalesce(excluded.transaction_id, known.transaction_id),
            status = excluded.status,
            platform_status = excluded.platform_status,
            currency = excluded.currency,
            total = excluded.total,
            due_on = coalesce(excluded.due_on, known.due_on),
            sequence = excluded.sequence,
            version = excluded.version,
            last_receipt = excluded.last_receipt,
            updated_at = now()
        where (known.sequence, known.version) <= (excluded.sequence, excluded.version)
          and known.deleted_at is null
          and (not $17 or known.transaction_id is null or excluded.transaction_id is null
               or known.transaction_id = excluded.transaction_id)
        returning last_receipt, first_receipt = last_receipt as "is_new!"
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
        &documents as &[Option<&str>],
        &column!(row => row.invoice.sequence),
        on_conflict != InvoiceConflict::Update,
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().map(|row| (row.last_receipt, write_kind(row.is_new))).collect())
}

/// That a document was deleted, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceDeletion<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// What is gone.
    pub deleted: &'a DeletedInvoice,
}

/// Sets tombstones on invoices that stand by a document of the platform's,
/// each deletion of another one, and gives back the messages that had an
/// effect. A state that is newer than its deletion stays.
///
/// # Errors
/// What the database says.
pub async fn mark_deleted(
    conn: &mut Conn,
    source: &SourceName,
    deletions: &[InvoiceDeletion<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    let receipts: Vec<Uuid> = deletions.iter().map(|one| one.receipt_id).collect();
    let tenants: Vec<&str> = deletions.iter().map(|one| one.tenant).collect();
    let documents: Vec<&str> =
        deletions.iter().map(|one| one.deleted.document_id.as_str()).collect();
    let moments: Vec<OffsetDateTime> = deletions.iter().map(|one| one.deleted.deleted_at).collect();
    let applied = sqlx::query_scalar!(
        r#"
        update invoices as known
        set deleted_at = told.deleted_at, last_receipt = told.receipt_id, updated_at = now()
        from unnest($2::text[], $3::text[], $4::timestamptz[], $5::uuid[])
            as told (tenant, document_id, deleted_at, receipt_id)
        where known.document_id = told.document_id and known.source = $1
          and known.tenant = told.tenant and known.deleted_at is null
          and known.version <= told.deleted_at
        returning last_receipt
        "#,
        source.as_str(),
        &tenants as &[&str],
        &documents as &[&str],
        &moments,
        &receipts,
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// Of these messages, those whose invoice stands with another transaction,
/// each with what stands, in words.
///
/// # Errors
/// What the database says.
pub async fn transaction_conflicts(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[InvoiceRow<'_>],
) -> Result<HashMap<Uuid, String>, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id(source)).collect();
    let transactions: Vec<Option<&str>> =
        rows.iter().map(|row| row.invoice.transaction_id.as_deref()).collect();
    let receipts: Vec<Uuid> = rows.iter().map(|row| row.receipt_id).collect();
    let standing = sqlx::query!(
        r#"
        select
            told.receipt_id as "receipt_id!", known.transaction_id as "transaction_id!",
            known.total, known.currency, known.first_receipt
        from unnest($1::uuid[], $2::text[], $3::uuid[])
            as told (invoice_id, transaction_id, receipt_id)
        join invoices as known using (invoice_id)
        where known.transaction_id <> told.transaction_id
        "#,
        &ids,
        &transactions as &[Option<&str>],
        &receipts,
    )
    .fetch_all(conn)
    .await?;
    Ok(standing
        .into_iter()
        .map(|known| {
            let told = format!(
                "transaction {} over {} {}, first told by receipt {}",
                known.transaction_id, known.total, known.currency, known.first_receipt
            );
            (known.receipt_id, told)
        })
        .collect())
}

/// What is known of an invoice, as far as an update of it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingInvoice {
    /// The transaction that it is known by.
    pub transaction_id: Option<String>,
    /// Goes before the version, where a platform tells it; else 0.
    pub sequence: i64,
    /// Which state of it stands.
    pub version: OffsetDateTime,
    /// Whether a tombstone stands.
    pub is_deleted: bool,
}

/// Which of these invoices stand, and how.
///
/// # Errors
/// What the database says.
pub async fn load_existing(
    conn: &mut Conn,
    invoice_ids: &[Uuid],
) -> Result<HashMap<Uuid, ExistingInvoice>, StoreError> {
    let rows = sqlx::query!(
        r#"
        select invoice_id, transaction_id, sequence, version, deleted_at is not null as "is_deleted!"
        from invoices
        where invoice_id = any($1)
        "#,
        invoice_ids,
    )
    .fetch_all(conn)
    .await?;
    let standing = rows.into_iter().map(|row| {
        let standing = ExistingInvoice {
            transaction_id: row.transaction_id,
            sequence: row.sequence,
            version: row.version,
            is_deleted: row.is_deleted,
        };
        (row.invoice_id, standing)
    });
    Ok(standing.collect())
}
