//! `imports`: uploaded files. The outcomes of their items are counted from the receipts.

use std::collections::BTreeMap;

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::{ImportProgress, ImportState};

/// An import and the outcomes of its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The receipt of the request that uploaded the file.
    pub import_id: Uuid,
    /// The source that received it.
    pub source: String,
    /// The file's name, if the sender gave one.
    pub name: Option<String>,
    /// A word of [`ImportState`].
    pub state: String,
    /// Why the upload was interrupted.
    pub error: Option<String>,
    /// Items that are durable, rejected ones included. If the receiver crashed, more items may have
    /// receipts than its last progress message said; then those.
    pub total: i64,
    /// Items that created an invoice.
    pub created: i64,
    /// Items that updated an invoice, or confirmed its state.
    pub updated: i64,
    /// Items that were processed before.
    pub duplicate: i64,
    /// Items that are older than the state on record.
    pub stale: i64,
    /// Items that change nothing.
    pub ignored: i64,
    /// Items that were rejected when the file was read.
    pub rejected: i64,
    /// Items that are dead letters.
    pub dead: i64,
    /// How many of all these are known by their number only: retention deleted their receipts.
    pub past_retention: i64,
    /// Transactions that processed items.
    pub batches: i64,
    /// When the request began.
    pub started_at: OffsetDateTime,
    /// When the last item was read.
    pub received_at: Option<OffsetDateTime>,
    /// When the last item was processed. A later replay changes the counts and not this time.
    pub completed_at: Option<OffsetDateTime>,
    /// When an outcome was last recorded.
    pub last_at: Option<OffsetDateTime>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

impl Import {
    /// Items without a final outcome.
    pub fn waiting(&self) -> i64 {
        let Self { created, updated, duplicate, stale, ignored, rejected, dead, .. } = self;
        let processed = [created, updated, duplicate, stale, ignored, rejected, dead];
        (self.total - processed.into_iter().sum::<i64>()).max(0)
    }

    /// Items that could have been duplicates: all but the rejected ones.
    pub fn candidates(&self) -> i64 {
        (self.total - self.rejected).max(0)
    }

    /// The share of duplicates among the candidates, from 0 to 1.
    pub fn duplicate_rate(&self) -> f64 {
        let [duplicate, candidates] = [self.duplicate, self.candidates()]
            .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        #[expect(clippy::float_arithmetic, reason = "a displayed ratio, not money")]
        let rate = duplicate / candidates.max(1.0);
        rate
    }

    /// Milliseconds from the start of the request to its completion. While items wait or are being
    /// received, to the database's current time.
    pub fn elapsed_ms(&self) -> i64 {
        let is_active = self.waiting() > 0 || self.state == ImportState::Receiving.as_str();
        let last_event = if is_active { None } else { self.last_at.max(self.received_at) };
        let end = self.completed_at.or(last_event).unwrap_or(self.now);
        let elapsed = end - self.started_at;
        i64::try_from(elapsed.whole_milliseconds()).unwrap_or(i64::MAX).max(0)
    }

    /// Average milliseconds for each transaction that processed items; `None` before the first.
    pub fn average_batch_ms(&self) -> Option<i64> {
        self.elapsed_ms().checked_div(self.batches)
    }
}

/// Records progress messages. They may arrive twice and out of order; an older one never undoes a
/// newer one.
///
/// # Errors
/// A database error.
pub async fn upsert_progress(
    conn: &mut Conn,
    messages: &[&ImportProgress],
) -> Result<(), StoreError> {
    // A single statement cannot update one row twice.
    let mut newest: BTreeMap<Uuid, &ImportProgress> = BTreeMap::new();
    for progress in messages.iter().copied() {
        let known = newest.entry(progress.import_id).or_insert(progress);
        let is_receiving = |progress: &ImportProgress| progress.state == ImportState::Receiving;
        if is_receiving(known) && (!is_receiving(progress) || progress.items > known.items) {
            *known = progress;
        }
    }
    let newest: Vec<&ImportProgress> = newest.into_values().collect();
    sqlx::query!(
        r#"
        insert into imports as known (
            import_id, source, name, state, items, error, started_at, received_at)
        select * from unnest(
            $1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
            $7::timestamptz[], $8::timestamptz[])
        order by 1
        on conflict (import_id) do update set
            state = excluded.state,
            items = greatest(known.items, excluded.items),
            error = excluded.error,
            received_at = excluded.received_at
        where known.state = 'receiving'
          and (excluded.state <> 'receiving' or excluded.items > known.items)
        "#,
        &column!(newest, progress => progress.import_id),
        &column!(newest, progress => progress.source.as_str()) as &[&str],
        &column!(newest, progress => progress.name.as_deref()) as &[Option<&str>],
        &column!(newest, progress => progress.state.as_str()) as &[&str],
        &column!(newest, progress => i64::try_from(progress.items).unwrap_or(i64::MAX)),
        &column!(newest, progress => progress.error.as_deref()) as &[Option<&str>],
        &column!(newest, progress => progress.started_at),
        &column!(newest, progress => progress.received_at) as &[Option<OffsetDateTime>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Finds an import.
///
/// # Errors
/// A database error.
pub async fn find(conn: &mut Conn, import_id: Uuid) -> Result<Option<Import>, StoreError> {
    Ok(find_all(conn, &[import_id]).await?.pop())
}

/// Finds several imports, sorted by id. Unknown ids are left out.
///
/// # Errors
/// A database error.
pub async fn find_all(conn: &mut Conn, import_ids: &[Uuid]) -> Result<Vec<Import>, StoreError> {
    Ok(sqlx::query_as!(
        Import,
        r#"
        select import_id, source, name, state, error,
            greatest(items, on_record + dropped_items) as "total!",
            created + dropped_created as "created!", updated + dropped_updated as "updated!",
            duplicate + dropped_duplicate as "duplicate!", stale + dropped_stale as "stale!",
            ignored + dropped_ignored as "ignored!", rejected + dropped_rejected as "rejected!",
            dead + dropped_dead as "dead!", dropped_items as "past_retention!",
            batches + dropped_batches as "batches!", started_at, received_at, completed_at,
            greatest(last_at, dropped_last_at) as last_at, now() as "now!"
        from imports as import, lateral (
            select
                count(*) as on_record,
                count(*) filter (where outcome = 'applied' and write_kind = 'created') as created,
                count(*) filter (
                    where outcome = 'applied' and write_kind is distinct from 'created')
                    as updated,
                count(*) filter (where outcome = 'duplicate') as duplicate,
                count(*) filter (where outcome = 'stale') as stale,
                count(*) filter (where outcome = 'ignored') as ignored,
                count(*) filter (where outcome = 'rejected') as rejected,
                count(*) filter (where outcome = 'dead') as dead,
                -- All rows of one transaction have the same now().
                count(distinct processed_at)
                    filter (where outcome in ('applied', 'duplicate', 'stale', 'ignored'))
                    as batches,
                max(processed_at) as last_at
            from receipts as receipt
            where receipt.import_id = import.import_id
        ) as counted
        where import_id = any($1)
        order by import_id
        "#,
        import_ids,
    )
    .fetch_all(conn)
    .await?)
}

/// Marks imports as completed whose file has ended and of which no item waits, and returns them. Of
/// concurrent callers, one gets each import.
///
/// # Errors
/// A database error.
pub async fn mark_completed(conn: &mut Conn) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        update imports set completed_at = completed.at
        from (
            select import.import_id,
                greatest(
                    import.received_at, import.dropped_last_at, max(receipt.processed_at)) as at
            from imports as import left join receipts as receipt using (import_id)
            where import.completed_at is null and import.received_at is not null
            group by import.import_id
            having count(*) filter (where receipt.outcome <> 'retried') + import.dropped_items
                    >= import.items
               and count(*) filter (where receipt.outcome = 'retried') = 0
        ) as completed
        -- Checked again on the locked row: another worker may have updated it first.
        where imports.import_id = completed.import_id and imports.completed_at is null
        returning imports.import_id
        "#,
    )
    .fetch_all(conn)
    .await?)
}

/// The import of each source that was completed last.
///
/// # Errors
/// A database error.
pub async fn latest_completed(conn: &mut Conn) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        "select distinct on (source) import_id from imports where completed_at is not null
         order by source, completed_at desc, import_id desc"
    )
    .fetch_all(conn)
    .await?)
}

/// An item of an import that has a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportItemRow {
    /// The line on which it begins, from 1.
    pub line: i64,
    /// The item's receipt.
    pub receipt_id: Uuid,
    /// A word of [`Outcome`](crate::domain::Outcome).
    pub outcome: String,
    /// `created` or `updated`: what `applied` did to the invoice, if that is known.
    pub write_kind: Option<String>,
    /// The invoice number.
    pub business_key: Option<String>,
    /// How many attempts failed.
    pub attempts: i32,
    /// Why it failed or was rejected.
    pub error: Option<String>,
}

/// Selects a page of items.
#[derive(Clone, Debug)]
pub struct ItemPage {
    /// Only items with this outcome; `created` and `updated` select among the applied ones.
    pub outcome: Option<String>,
    /// Only items after this line and receipt: several items may begin on one line.
    pub after: (i64, Uuid),
    /// The maximum number of items.
    pub limit: i64,
}

/// Lists items of an import that have receipts, by line.
///
/// # Errors
/// A database error.
pub async fn list_items(
    conn: &mut Conn,
    import_id: Uuid,
    page: &ItemPage,
) -> Result<Vec<ImportItemRow>, StoreError> {
    let (line, receipt_id) = page.after;
    Ok(sqlx::query_as!(
        ImportItemRow,
        r#"
        select import_line as "line!", receipt_id, outcome, write_kind, business_key, attempts,
            error
        from receipts
        where import_id = $1 and (import_line, receipt_id) > ($2, $3)
          and case $4::text
                when 'created' then outcome = 'applied' and write_kind = 'created'
                when 'updated' then
                    outcome = 'applied' and write_kind is distinct from 'created'
                else outcome = coalesce($4, outcome)
              end
        order by import_line, receipt_id
        limit $5
        "#,
        import_id,
        line,
        receipt_id,
        page.outcome,
        page.limit,
    )
    .fetch_all(conn)
    .await?)
}
