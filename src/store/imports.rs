//! `imports`: files of invoices. What became of the lines is counted from the
//! receipts; here stands what only the file as a whole can tell.

use std::collections::BTreeMap;

use sqlx::types::Uuid;
use time::OffsetDateTime;

use super::{Conn, StoreError};
use crate::domain::{ImportProgress, ImportState};

/// An import as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Names it: the receipt of the call that brought it.
    pub import_id: Uuid,
    /// Where it came in.
    pub source: String,
    /// What the sender calls the file.
    pub name: Option<String>,
    /// How far it was read: a word of [`ImportState`].
    pub state: String,
    /// Why it broke off.
    pub error: Option<String>,
    /// Items that are durable, the rejected among them. A file whose receiver
    /// died may have more on record than its last note told: then those.
    pub total: i64,
    /// Items that are new in the books.
    pub created: i64,
    /// Items that changed what stood in the books, or confirmed it.
    pub updated: i64,
    /// Items that had been settled before.
    pub duplicate: i64,
    /// Items that a newer state stood against.
    pub stale: i64,
    /// Items that change nothing.
    pub ignored: i64,
    /// Lines that were refused with a word why.
    pub rejected: i64,
    /// Items that wait for a person.
    pub dead: i64,
    /// How many of all these are only counted: their receipts are past
    /// retention.
    pub past_retention: i64,
    /// Transactions that settled items.
    pub batches: i64,
    /// When the call began.
    pub started_at: OffsetDateTime,
    /// When the last of the file was read.
    pub received_at: Option<OffsetDateTime>,
    /// When the last of it was settled; what is replayed later changes the
    /// figures, and not this.
    pub completed_at: Option<OffsetDateTime>,
    /// When anything of it was settled last.
    pub last_at: Option<OffsetDateTime>,
    /// The database's clock.
    pub now: OffsetDateTime,
}

impl Import {
    /// Items without a final outcome yet.
    pub fn waiting(&self) -> i64 {
        let Self { created, updated, duplicate, stale, ignored, rejected, dead, .. } = self;
        let settled = [created, updated, duplicate, stale, ignored, rejected, dead];
        (self.total - settled.into_iter().sum::<i64>()).max(0)
    }

    /// Items that could have been duplicates.
    pub fn candidates(&self) -> i64 {
        (self.total - self.rejected).max(0)
    }

    /// The share of duplicates among these.
    pub fn duplicate_rate(&self) -> f64 {
        let [duplicate, candidates] = [self.duplicate, self.candidates()]
            .map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        #[expect(clippy::float_arithmetic, reason = "a ratio for people, not money")]
        let rate = duplicate / candidates.max(1.0);
        rate
    }

    /// From the beginning of the call to the last that happened, in
    /// milliseconds; to this moment, while items wait or come in.
    pub fn elapsed_ms(&self) -> i64 {
        let goes_on = self.waiting() > 0 || self.state == ImportState::Receiving.as_str();
        let end =
            self.completed_at.or(if goes_on { None } else { self.last_at.max(self.received_at) });
        let elapsed = end.unwrap_or(self.now) - self.started_at;
        i64::try_from(elapsed.whole_milliseconds()).unwrap_or(i64::MAX).max(0)
    }

    /// Milliseconds for each batch that settled items; none, if none did.
    pub fn average_batch_ms(&self) -> Option<i64> {
        self.elapsed_ms().checked_div(self.batches)
    }
}

/// Writes notes down. A note never takes an import backwards: it may come
/// twice, and a late one of the middle after that of the end.
///
/// # Errors
/// What the database says.
pub async fn upsert_progress(conn: &mut Conn, notes: &[&ImportProgress]) -> Result<(), StoreError> {
    // One statement writes no row twice.
    let mut newest: BTreeMap<Uuid, &ImportProgress> = BTreeMap::new();
    for note in notes.iter().copied() {
        let known = newest.entry(note.import_id).or_insert(note);
        let goes_on = |note: &ImportProgress| note.state == ImportState::Receiving;
        if goes_on(known) && (!goes_on(note) || note.items > known.items) {
            *known = note;
        }
    }
    let notes: Vec<&ImportProgress> = newest.into_values().collect();
    macro_rules! column {
        ($note:ident => $value:expr) => {
            notes.iter().map(|$note| $value).collect::<Vec<_>>()
        };
    }
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
        &column!(note => note.import_id),
        &column!(note => note.source.as_str()) as &[&str],
        &column!(note => note.name.as_deref()) as &[Option<&str>],
        &column!(note => note.state.as_str()) as &[&str],
        &column!(note => i64::try_from(note.items).unwrap_or(i64::MAX)),
        &column!(note => note.error.as_deref()) as &[Option<&str>],
        &column!(note => note.started_at),
        &column!(note => note.received_at) as &[Option<OffsetDateTime>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The import of this id.
///
/// # Errors
/// What the database says.
pub async fn find(conn: &mut Conn, import_id: Uuid) -> Result<Option<Import>, StoreError> {
    Ok(find_all(conn, &[import_id]).await?.pop())
}

/// These imports as they stand, as far as there are any, by id.
///
/// # Errors
/// What the database says.
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
                count(*) filter (where outcome = 'applied' and write_kind is distinct from 'created')
                    as updated,
                count(*) filter (where outcome = 'duplicate') as duplicate,
                count(*) filter (where outcome = 'stale') as stale,
                count(*) filter (where outcome = 'ignored') as ignored,
                count(*) filter (where outcome = 'rejected') as rejected,
                count(*) filter (where outcome = 'dead') as dead,
                -- One transaction has one now().
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

/// Marks the imports whose file ended and of which nothing waits any more.
/// Each is given back once, to one caller only.
///
/// # Errors
/// What the database says.
pub async fn mark_completed(conn: &mut Conn) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"
        update imports set completed_at = ended.at
        from (
            select import.import_id,
                greatest(import.received_at, import.dropped_last_at, max(receipt.processed_at)) as at
            from imports as import left join receipts as receipt using (import_id)
            where import.completed_at is null and import.received_at is not null
            group by import.import_id
            having count(*) filter (where receipt.outcome <> 'retried') + import.dropped_items
                    >= import.items
               and count(*) filter (where receipt.outcome = 'retried') = 0
        ) as ended
        -- Asked again of the row itself: another worker may have been first.
        where imports.import_id = ended.import_id and imports.completed_at is null
        returning imports.import_id
        "#,
    )
    .fetch_all(conn)
    .await?)
}

/// Of each source, the import that was settled last.
///
/// # Errors
/// What the database says.
pub async fn latest_completed(conn: &mut Conn) -> Result<Vec<Uuid>, StoreError> {
    Ok(sqlx::query_scalar!(
        "select distinct on (source) import_id from imports where completed_at is not null
         order by source, completed_at desc, import_id desc"
    )
    .fetch_all(conn)
    .await?)
}

/// An item of an import that is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportItemRow {
    /// The line on which it begins.
    pub line: i64,
    /// Its receipt.
    pub receipt_id: Uuid,
    /// What became of it.
    pub outcome: String,
    /// What `applied` did to the invoice, where that can be told.
    pub write_kind: Option<String>,
    /// The number that people know the invoice by.
    pub business_key: Option<String>,
    /// How many attempts failed.
    pub attempts: i32,
    /// Why, if it failed or was rejected.
    pub error: Option<String>,
}

/// Which items to show.
#[derive(Clone, Debug)]
pub struct ItemPage {
    /// Only those with this outcome; also `created` and `updated`.
    pub outcome: Option<String>,
    /// Only those after this line and receipt: several may begin on one line.
    pub after: (i64, Uuid),
    /// At most so many.
    pub limit: i64,
}

/// Items of an import that are on record, by line.
///
/// # Errors
/// What the database says.
pub async fn list_items(
    conn: &mut Conn,
    import_id: Uuid,
    page: &ItemPage,
) -> Result<Vec<ImportItemRow>, StoreError> {
    let (line, receipt_id) = page.after;
    Ok(sqlx::query_as!(
        ImportItemRow,
        r#"
        select import_line as "line!", receipt_id, outcome, write_kind, business_key, attempts, error
        from receipts
        where import_id = $1 and (import_line, receipt_id) > ($2, $3)
          and case $4::text
                when 'created' then outcome = 'applied' and write_kind = 'created'
                when 'updated' then outcome = 'applied' and write_kind is distinct from 'created'
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
