//! The sums behind promise P3: every message is accounted for.

use super::{Conn, StoreError};

/// Sums over the tables, all taken in one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Receipts by outcome, those past retention included.
    pub applied: i64,
    /// See above.
    pub duplicate: i64,
    /// See above.
    pub stale: i64,
    /// See above.
    pub ignored: i64,
    /// See above.
    pub retried: i64,
    /// See above.
    pub dead: i64,
    /// See above; these were never accepted.
    pub rejected: i64,
    /// Of all these, receipts that are past retention: only counted.
    pub past_retention: i64,
    /// Keys in the inbox.
    pub inbox_keys: i64,
    /// Dead letters in every state, without those of deliveries.
    pub dead_letters: i64,
    /// Of these, resolved by a replay: their receipts say what they came to.
    pub resolved: i64,
    /// Of these, sent again and not settled yet: they wait in a queue.
    pub replayed: i64,
    /// Receipts that say `dead` without a dead letter.
    pub dead_receipts_without_dead_letter: i64,
    /// Open, replayed or discarded letters whose receipt does not say `dead`.
    pub dead_letters_without_dead_receipt: i64,
    /// Keys in the inbox without a settled receipt of the message that holds
    /// them.
    pub keys_without_receipt: i64,
    /// Settled receipts whose key is not in the inbox and should be: not those
    /// whose generation may have been forgotten.
    pub processed_without_key: i64,
    /// Orders and invoices whose last receipt is not on record as applied.
    pub documents_without_receipt: i64,
    /// Invoices ticked off of which a target does not have its mirror.
    pub mirrored_without_delivery: i64,
    /// Invoices not ticked off although every target has its mirror.
    pub delivered_not_marked_mirrored: i64,
    /// Dead letters of deliveries that say another thing than the delivery:
    /// open ones are of failed deliveries, replayed ones of those under way.
    pub dead_letters_contradicting_delivery: i64,
    /// Failed deliveries that no open letter lays before a person.
    pub failed_deliveries_without_dead_letter: i64,
}

/// Takes the sums.
///
/// # Errors
/// What the database says.
#[expect(clippy::too_many_lines, reason = "one statement sees one moment")]
pub async fn totals(conn: &mut Conn) -> Result<Totals, StoreError> {
    Ok(sqlx::query_as!(
        Totals,
        r#"
        with mirrored as (
            select document_id, bool_and(delivered) as everywhere from (
                select document_id, destination, bool_or(state = 'delivered') as delivered
                from deliveries where is_mirror group by document_id, destination
            ) as mirrors
            group by document_id
        ), past as (
            select
                coalesce(sum(applied), 0)::bigint as applied,
                coalesce(sum(duplicate), 0)::bigint as duplicate,
                coalesce(sum(stale), 0)::bigint as stale,
                coalesce(sum(ignored), 0)::bigint as ignored,
                coalesce(sum(dead), 0)::bigint as dead,
                coalesce(sum(rejected), 0)::bigint as rejected,
                -- A receipt that is not there is gone, and not lost, if its id
                -- lay in a partition that was dropped,
                coalesce(range_agg(ids), '{}') as ids,
                -- or lies in none, and it may have been settled before this.
                coalesce(max(processed_before), '-infinity') as before,
                (select coalesce(range_agg(ids), '{}') from receipts_partitions) as spans
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
            live.applied + past.applied as "applied!",
            live.duplicate + past.duplicate as "duplicate!",
            live.stale + past.stale as "stale!",
            live.ignored + past.ignored as "ignored!",
            live.retried as "retried!",
            live.dead + past.dead as "dead!",
            live.rejected + past.rejected as "rejected!",
            past.applied + past.duplicate + past.stale + past.ignored + past.dead
                + past.rejected as "past_retention!",
            (select count(*) from inbox) as "inbox_keys!",
            (select count(*) from dead_letters where delivery_id is null) as "dead_letters!",
            (select count(*) from dead_letters
             where state = 'resolved' and delivery_id is null) as "resolved!",
            (select count(*) from dead_letters
             where state = 'replayed' and delivery_id is null) as "replayed!",
            (select count(*) from receipts as receipt
             where receipt.outcome = 'dead' and not exists (
                select from dead_letters as letter
                where letter.receipt_id = receipt.receipt_id))
                as "dead_receipts_without_dead_letter!",
            (select count(*) from dead_letters as letter
             where letter.state <> 'resolved' and letter.delivery_id is null and not exists (
                select from receipts as receipt
                where receipt.receipt_id = letter.receipt_id and receipt.outcome = 'dead')
             -- What was discarded is settled.
             and not (letter.state = 'discarded' and (letter.receipt_id <@ past.ids
                or letter.first_failed_at < past.before
                    and not letter.receipt_id <@ past.spans)))
                as "dead_letters_without_dead_receipt!",
            -- `duplicate` too: another transaction of an invoice that stands
            -- settles its own key.
            (select count(*) from inbox where not exists (
                select from receipts as receipt
                where receipt.receipt_id = inbox.receipt_id
                  and receipt.outcome in ('applied', 'stale', 'ignored', 'duplicate'))
             -- Settled in the transaction that claimed the key, and not before
             -- its partition was created.
             and not (inbox.receipt_id <@ past.ids
                or to_timestamp(inbox.partition_hour * 3600.0) < past.before
                    and not inbox.receipt_id <@ past.spans))
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
             ) as books
             where not exists (
                select from receipts as receipt
                where receipt.receipt_id = books.last_receipt and receipt.outcome = 'applied')
             and not (books.last_receipt <@ past.ids
                or books.created_at < past.before and not books.last_receipt <@ past.spans))
                as "documents_without_receipt!",
            (select count(*) from invoices as invoice
             left join mirrored on mirrored.document_id = invoice.invoice_id::text
             where invoice.mirrored_at is not null and mirrored.everywhere is not true)
                as "mirrored_without_delivery!",
            (select count(*) from mirrored
             where everywhere and not exists (
                select from invoices as invoice
                where invoice.invoice_id::text = mirrored.document_id
                  and invoice.mirrored_at is not null))
                as "delivered_not_marked_mirrored!",
            (select count(*) from dead_letters as letter
             join deliveries as delivery using (delivery_id)
             where not case letter.state
                when 'open' then delivery.state = 'failed'
                when 'replayed' then delivery.state in ('pending', 'sending', 'uncertain')
                when 'discarded' then delivery.state = 'voided'
                -- What arrived can be taken back later.
                else delivery.state in ('delivered', 'voided') end)
                as "dead_letters_contradicting_delivery!",
            (select count(*) from deliveries as delivery
             where delivery.state = 'failed' and not exists (
                select from dead_letters as letter
                where letter.delivery_id = delivery.delivery_id and letter.state = 'open'))
                as "failed_deliveries_without_dead_letter!"
        from live, past
        "#
    )
    .fetch_one(conn)
    .await?)
}
