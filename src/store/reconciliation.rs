//! The sums behind promise P3: every accepted message is accounted for.

use super::{Conn, StoreError};

/// Sums and contradictions over all tables, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Receipts with this outcome, deleted ones included.
    pub applied: i64,
    /// Receipts with this outcome, deleted ones included.
    pub duplicate: i64,
    /// Receipts with this outcome, deleted ones included.
    pub stale: i64,
    /// Receipts with this outcome, deleted ones included.
    pub ignored: i64,
    /// Receipts with this outcome.
    pub retried: i64,
    /// Receipts with this outcome, deleted ones included.
    pub dead: i64,
    /// Receipts with this outcome, deleted ones included. They were never accepted.
    pub rejected: i64,
    /// How many of all these were deleted by retention.
    pub past_retention: i64,
    /// Keys in the inbox.
    pub inbox_keys: i64,
    /// Dead letters of messages, in any state.
    pub dead_letters: i64,
    /// Those that a replay resolved. Their receipts have the outcome of the replay.
    pub resolved: i64,
    /// Those that were replayed and wait in a queue.
    pub replayed: i64,
    /// Receipts that say `dead` without a dead letter.
    pub dead_receipts_without_dead_letter: i64,
    /// Unresolved dead letters whose receipt does not say `dead`.
    pub dead_letters_without_dead_receipt: i64,
    /// Keys in the inbox whose message has no receipt with a final outcome.
    pub keys_without_receipt: i64,
    /// Receipts with a final outcome whose key is missing from the inbox, except for those whose
    /// partition may have been dropped.
    pub processed_without_key: i64,
    /// Documents whose last receipt does not say `applied`.
    pub documents_without_receipt: i64,
    /// Invoices with `mirrored_at` although a mirror is not delivered.
    pub mirrored_without_delivery: i64,
    /// Invoices without `mirrored_at` although every mirror is delivered.
    pub delivered_not_marked_mirrored: i64,
    /// Dead letters of deliveries whose state contradicts the delivery: open ones belong to failed
    /// deliveries, and replayed ones to deliveries under way.
    pub dead_letters_contradicting_delivery: i64,
    /// Failed deliveries without an open dead letter.
    pub failed_deliveries_without_dead_letter: i64,
}

/// Computes the sums.
///
/// # Errors
/// A database error.
#[expect(clippy::too_many_lines, reason = "one statement sees one moment")]
pub async fn totals(conn: &mut Conn) -> Result<Totals, StoreError> {
    Ok(sqlx::query_as!(
        Totals,
        r#"
        with mirrored as (
            select document_id, bool_and(is_delivered) as is_complete from (
                select document_id, destination, bool_or(state = 'delivered') as is_delivered
                from deliveries where is_mirror group by document_id, destination
            ) as mirrors
            group by document_id
        ), deleted as (
            select
                coalesce(sum(applied), 0)::bigint as applied,
                coalesce(sum(duplicate), 0)::bigint as duplicate,
                coalesce(sum(stale), 0)::bigint as stale,
                coalesce(sum(ignored), 0)::bigint as ignored,
                coalesce(sum(dead), 0)::bigint as dead,
                coalesce(sum(rejected), 0)::bigint as rejected,
                -- A missing receipt was deleted, and is not lost, if its id is in the range of a
                -- dropped partition,
                coalesce(range_agg(ids), '{}') as ids,
                -- or in no range, and it may have been processed before this time.
                coalesce(max(processed_before), '-infinity') as before,
                (select coalesce(range_agg(ids), '{}') from receipts_partitions) as existing_ids
            from receipts_dropped_partitions
        ), live as (
            select
                count(*) filter (where outcome = 'applied') as applied,
                count(*) filter (where outcome = 'duplicate') as duplicate,
                count(*) filter (where outcome = 'stale') as stale,
                count(*) filter (where outcome = 'ignored') as ignored,
                count(*) filter (where outcome = 'retried') as retried,
                count(*) filter (where outcome = 'dead') as dead,
                count(*) filter (where outcome = 'rejected') as rejected
            from receipts
        )
        select
            live.applied + deleted.applied as "applied!",
            live.duplicate + deleted.duplicate as "duplicate!",
            live.stale + deleted.stale as "stale!",
            live.ignored + deleted.ignored as "ignored!",
            live.retried as "retried!",
            live.dead + deleted.dead as "dead!",
            live.rejected + deleted.rejected as "rejected!",
            deleted.applied + deleted.duplicate + deleted.stale + deleted.ignored + deleted.dead
                + deleted.rejected as "past_retention!",
            (select count(*) from inbox) as "inbox_keys!",
            (select count(*) from dead_letters where delivery_id is null) as "dead_letters!",
            (select count(*) from dead_letters
             where state = 'resolved' and delivery_id is null) as "resolved!",
            (select count(*) from dead_letters
             where state = 'replayed' and delivery_id is null) as "replayed!",
            (select count(*) from receipts as receipt
             where receipt.outcome = 'dead' and not exists (
                select from dead_letters as dead_letter
                where dead_letter.receipt_id = receipt.receipt_id))
                as "dead_receipts_without_dead_letter!",
            (select count(*) from dead_letters as dead_letter
             where dead_letter.state <> 'resolved' and dead_letter.delivery_id is null
             and not exists (
                select from receipts as receipt
                where receipt.receipt_id = dead_letter.receipt_id and receipt.outcome = 'dead')
             -- The receipt of a discarded dead letter may be deleted.
             and not (dead_letter.state = 'discarded' and (dead_letter.receipt_id <@ deleted.ids
                or dead_letter.first_failed_at < deleted.before
                    and not dead_letter.receipt_id <@ deleted.existing_ids)))
                as "dead_letters_without_dead_receipt!",
            -- A `duplicate` may hold a key too: an event with another transaction id of a known
            -- invoice claims a key of its own.
            (select count(*) from inbox where not exists (
                select from receipts as receipt
                where receipt.receipt_id = inbox.receipt_id
                  and receipt.outcome in ('applied', 'stale', 'ignored', 'duplicate'))
             -- The message was processed in the transaction that claimed the key, and not before
             -- the partition was created.
             and not (inbox.receipt_id <@ deleted.ids
                or to_timestamp(inbox.partition_hour * 3600.0) < deleted.before
                    and not inbox.receipt_id <@ deleted.existing_ids))
                as "keys_without_receipt!",
            (select count(*) from receipts as receipt
             where receipt.outcome in ('applied', 'stale', 'ignored')
               and receipt.processed_at >= coalesce(
                    (select max(processed_before) from inbox_dropped_partitions), '-infinity')
               and not exists (
                    select from inbox where inbox.receipt_id = receipt.receipt_id))
                as "processed_without_key!",
            (select count(*) from (
                select last_receipt, created_at from orders
                union all select last_receipt, created_at from invoices
                union all select last_receipt, created_at from refunds
                union all select last_receipt, created_at from resource_changes
             ) as document
             where not exists (
                select from receipts as receipt
                where receipt.receipt_id = document.last_receipt
                  and receipt.outcome = 'applied')
             and not (document.last_receipt <@ deleted.ids
                or document.created_at < deleted.before
                    and not document.last_receipt <@ deleted.existing_ids))
                as "documents_without_receipt!",
            (select count(*) from invoices as invoice
             left join mirrored on mirrored.document_id = invoice.invoice_id::text
             where invoice.mirrored_at is not null and mirrored.is_complete is not true)
                as "mirrored_without_delivery!",
            (select count(*) from mirrored
             where is_complete and not exists (
                select from invoices as invoice
                where invoice.invoice_id::text = mirrored.document_id
                  and invoice.mirrored_at is not null))
                as "delivered_not_marked_mirrored!",
            (select count(*) from dead_letters as dead_letter
             join deliveries as delivery using (delivery_id)
             where not case dead_letter.state
                when 'open' then delivery.state = 'failed'
                when 'replayed' then delivery.state in ('pending', 'sending', 'uncertain')
                when 'discarded' then delivery.state = 'voided'
                -- A delivered document can be voided later.
                else delivery.state in ('delivered', 'voided') end)
                as "dead_letters_contradicting_delivery!",
            (select count(*) from deliveries as delivery
             where delivery.state = 'failed' and not exists (
                select from dead_letters as dead_letter
                where dead_letter.delivery_id = delivery.delivery_id
                and dead_letter.state = 'open'))
                as "failed_deliveries_without_dead_letter!"
        from live, deleted
        "#
    )
    .fetch_one(conn)
    .await?)
}
