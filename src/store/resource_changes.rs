//! `resource_changes`: the latest change of each resource that a thin event announced.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{ResourceChange, SourceName};

/// A change of a resource.
#[derive(Clone, Copy, Debug)]
pub struct ResourceChangeRow<'a> {
    /// The receipt of the message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// The change.
    pub change: &'a ResourceChange,
}

/// Writes changes, each of another resource, and returns the receipts of the applied messages. The
/// other messages are stale: a later change is on record.
///
/// # Errors
/// A database error.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[ResourceChangeRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    let applied = sqlx::query_scalar!(
        r#"
        insert into resource_changes as known (
            source, platform, tenant, kind, id, version, changed_at, action,
            first_receipt, last_receipt)
        select
            $1, platform, tenant, kind, id, version, changed_at, action, receipt_id, receipt_id
        from unnest(
            $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[],
            $8::text[], $9::uuid[]
        ) as new (platform, tenant, kind, id, version, changed_at, action, receipt_id)
        order by tenant, kind, id
        on conflict (source, tenant, kind, id) do update set
            platform = excluded.platform,
            version = coalesce(excluded.version, known.version),
            changed_at = excluded.changed_at,
            action = excluded.action,
            last_receipt = excluded.last_receipt,
            updated_at = now()
        where case
            when known.version <> excluded.version then known.version < excluded.version
            else known.changed_at <= excluded.changed_at end
        returning last_receipt
        "#,
        source.as_str(),
        &column!(rows, row => row.change.platform) as &[&str],
        &column!(rows, row => row.tenant) as &[&str],
        &column!(rows, row => row.change.kind.as_str()) as &[&str],
        &column!(rows, row => row.change.id.as_str()) as &[&str],
        &column!(rows, row => row.change.version) as &[Option<i64>],
        &column!(rows, row => row.change.changed_at),
        &column!(rows, row => row.change.action.as_str()) as &[&str],
        &column!(rows, row => row.receipt_id),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// Finds the messages whose change is older than the one on record. Their resource need not be
/// fetched again, and may be deleted.
///
/// # Errors
/// A database error.
pub async fn superseded(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[ResourceChangeRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    let superseded = sqlx::query_scalar!(
        r#"
        select new.receipt_id as "receipt_id!"
        from unnest(
            $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[]
        ) as new (receipt_id, tenant, kind, id, version, changed_at)
        join resource_changes as known
            on known.id = new.id and known.source = $1 and known.tenant = new.tenant
            and known.kind = new.kind
        where case
            when known.version <> new.version then known.version > new.version
            else known.changed_at > new.changed_at end
        "#,
        source.as_str(),
        &column!(rows, row => row.receipt_id),
        &column!(rows, row => row.tenant) as &[&str],
        &column!(rows, row => row.change.kind.as_str()) as &[&str],
        &column!(rows, row => row.change.id.as_str()) as &[&str],
        &column!(rows, row => row.change.version) as &[Option<i64>],
        &column!(rows, row => row.change.changed_at) as &[OffsetDateTime],
    )
    .fetch_all(conn)
    .await?;
    Ok(superseded.into_iter().collect())
}
