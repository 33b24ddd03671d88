//! `invoices`: the current state of every invoice.

use std::collections::{HashMap, HashSet};

use time::{Date, OffsetDateTime};
use uuid::Uuid;

use super::{Conn, StoreError, write_kind};
use crate::domain::{DeletedInvoice, Invoice, InvoiceConflict, SourceName, WriteKind};

/// An update of an invoice.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceRow<'a> {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// The issue number, from 0.
    pub generation: u32,
    /// The new state.
    pub invoice: &'a Invoice,
}

impl InvoiceRow<'_> {
    fn id(&self, source: &SourceName) -> Uuid {
        self.invoice.id(source, self.tenant, self.generation)
    }
}

/// Writes updates, each of another invoice, and returns what each applied message did, by receipt.
/// The other messages are stale, or they [contradict](transaction_conflicts) the invoice on record.
///
/// # Errors
/// A database error.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    on_conflict: InvoiceConflict,
    rows: &[InvoiceRow<'_>],
) -> Result<HashMap<Uuid, WriteKind>, StoreError> {
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
        ) as new (
            invoice_id, tenant, vendor, invoice_number, generation, transaction_id, status,
            platform_status, currency, total, due_on, version, receipt_id, document_id, sequence)
        order by invoice_id
        on conflict (invoice_id) do update set
            -- If the id is derived from the platform's document id, vendor and number may change.
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
        &column!(rows, row => row.id(source)),
        &column!(rows, row => row.tenant) as &[&str],
        &column!(rows, row => row.invoice.vendor.as_str()) as &[&str],
        &column!(rows, row => row.invoice.invoice_number.as_str()) as &[&str],
        &column!(rows, row => i32::try_from(row.generation).unwrap_or(i32::MAX)),
        &column!(rows, row => row.invoice.transaction_id.as_deref()) as &[Option<&str>],
        &column!(rows, row => row.invoice.status.as_str()) as &[&str],
        &column!(rows, row => row.invoice.platform_status.as_str()) as &[&str],
        &column!(rows, row => row.invoice.total.currency.as_str()) as &[&str],
        &column!(rows, row => row.invoice.total.amount),
        &column!(rows, row => row.invoice.due_on) as &[Option<Date>],
        &column!(rows, row => row.invoice.version),
        &column!(rows, row => row.receipt_id),
        &column!(rows, row => row.invoice.document_id.as_deref()) as &[Option<&str>],
        &column!(rows, row => row.invoice.sequence),
        on_conflict != InvoiceConflict::Update,
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().map(|row| (row.last_receipt, write_kind(row.is_new))).collect())
}

/// A deletion of an invoice.
#[derive(Clone, Copy, Debug)]
pub struct InvoiceDeletion<'a> {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// The deleted document.
    pub deleted: &'a DeletedInvoice,
}

/// Marks invoices as deleted that the platform's document id identifies, each deletion of another
/// document, and returns the receipts of the applied messages. An invoice with a newer state stays.
///
/// # Errors
/// A database error.
pub async fn mark_deleted(
    conn: &mut Conn,
    source: &SourceName,
    deletions: &[InvoiceDeletion<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    let applied = sqlx::query_scalar!(
        r#"
        update invoices as known
        set deleted_at = deletion.deleted_at, last_receipt = deletion.receipt_id,
            updated_at = now()
        from unnest($2::text[], $3::text[], $4::timestamptz[], $5::uuid[])
            as deletion (tenant, document_id, deleted_at, receipt_id)
        where known.document_id = deletion.document_id and known.source = $1
          and known.tenant = deletion.tenant and known.deleted_at is null
          and known.version <= deletion.deleted_at
        returning last_receipt
        "#,
        source.as_str(),
        &column!(deletions, row => row.tenant) as &[&str],
        &column!(deletions, row => row.deleted.document_id.as_str()) as &[&str],
        &column!(deletions, row => row.deleted.deleted_at),
        &column!(deletions, row => row.receipt_id),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// Finds the messages whose invoice is on record with another transaction id, each with a
/// description of that invoice.
///
/// # Errors
/// A database error.
pub async fn transaction_conflicts(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[InvoiceRow<'_>],
) -> Result<HashMap<Uuid, String>, StoreError> {
    let conflicts = sqlx::query!(
        r#"
        select
            new.receipt_id as "receipt_id!", known.transaction_id as "transaction_id!",
            known.total, known.currency, known.first_receipt
        from unnest($1::uuid[], $2::text[], $3::uuid[])
            as new (invoice_id, transaction_id, receipt_id)
        join invoices as known using (invoice_id)
        where known.transaction_id <> new.transaction_id
        "#,
        &column!(rows, row => row.id(source)),
        &column!(rows, row => row.invoice.transaction_id.as_deref()) as &[Option<&str>],
        &column!(rows, row => row.receipt_id),
    )
    .fetch_all(conn)
    .await?;
    Ok(conflicts
        .into_iter()
        .map(|known| {
            let description = format!(
                "transaction {} over {} {}, first received with receipt {}",
                known.transaction_id, known.total, known.currency, known.first_receipt
            );
            (known.receipt_id, description)
        })
        .collect())
}

/// What decides whether an update of an invoice is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingInvoice {
    /// The sender's id of the transaction.
    pub transaction_id: Option<String>,
    /// Compared before the version; 0 if the platform sends none.
    pub sequence: i64,
    /// The platform's time of the state.
    pub version: OffsetDateTime,
    /// Whether the platform deleted the invoice.
    pub is_deleted: bool,
}

/// Reads the invoices with these ids that are on record.
///
/// # Errors
/// A database error.
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
    let invoices = rows.into_iter().map(|row| {
        let invoice = ExistingInvoice {
            transaction_id: row.transaction_id,
            sequence: row.sequence,
            version: row.version,
            is_deleted: row.is_deleted,
        };
        (row.invoice_id, invoice)
    });
    Ok(invoices.collect())
}
