//! `resource_changes`: what changed at a platform that does not say what
//! it is now.

use std::collections::HashSet;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Conn, StoreError};
use crate::domain::{ResourceChange, SourceName};

/// One change of one thing, by the message that tells it.
#[derive(Clone, Copy, Debug)]
pub struct ResourceChangeRow<'a> {
    /// The message.
    pub receipt_id: Uuid,
    /// The company.
    pub tenant: &'a str,
    /// What changed.
    pub reference: &'a ResourceChange,
}

/// Writes references, each to another thing, and gives back the messages that
/// had an effect. The rest are stale: a later change is on record.
///
/// # Errors
/// What the database says.
pub async fn upsert(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[ResourceChangeRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    let versions: Vec<Option<i64>> = column!(row => row.reference.version);
    let changed: Vec<OffsetDateTime> = column!(row => row.reference.changed_at);
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
        ) as told (platform, tenant, kind, id, version, changed_at, action, receipt_id)
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
        &column!(row => row.reference.platform) as &[&str],
        &column!(row => row.tenant) as &[&str],
        &column!(row => row.reference.kind.as_str()) as &[&str],
        &column!(row => row.reference.id.as_str()) as &[&str],
        &versions as &[Option<i64>],
        &changed,
        &column!(row => row.reference.action.as_str()) as &[&str],
        &column!(row => row.receipt_id),
    )
    .fetch_all(conn)
    .await?;
    Ok(applied.into_iter().collect())
}

/// Of these messages, those than which something later is on record already:
/// what they name need not be looked at again, and may be gone.
///
/// # Errors
/// What the database says.
pub async fn superseded(
    conn: &mut Conn,
    source: &SourceName,
    rows: &[ResourceChangeRow<'_>],
) -> Result<HashSet<Uuid>, StoreError> {
    let receipts: Vec<Uuid> = rows.iter().map(|row| row.receipt_id).collect();
    let tenants: Vec<&str> = rows.iter().map(|row| row.tenant).collect();
    let kinds: Vec<&str> = rows.iter().map(|row| row.reference.kind.as_str()).collect();
    let ids: Vec<&str> = rows.iter().map(|row| row.reference.id.as_str()).collect();
    let versions: Vec<Option<i64>> = rows.iter().map(|row| row.reference.version).collect();
    let changed: Vec<OffsetDateTime> = rows.iter().map(|row| row.reference.changed_at).collect();
    let outdated = sqlx::query_scalar!(
        r#"
        select told.receipt_id as "receipt_id!"
        from unnest(
            $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[]
        ) as told (receipt_id, tenant, kind, id, version, changed_at)
        join resource_changes as known
            on known.id = told.id and known.source = $1 and known.tenant = told.tenant
            and known.kind = told.kind
        where case
            when known.version <> told.version then known.version > told.version
            else known.changed_at > told.changed_at end
        "#,
        source.as_str(),
        &receipts,
        &tenants as &[&str],
        &kinds as &[&str],
        &ids as &[&str],
        &versions as &[Option<i64>],
        &changed,
    )
    .fetch_all(conn)
    .await?;
    Ok(outdated.into_iter().collect())
}
