-- The inbox: which event keys were processed. A key in this table has had its
-- effect. A second message with the same key changes nothing.
--
-- The inbox is partitioned by time. One partition is active and takes new keys;
-- the others are retained and only read. When every key of a partition is older
-- than the dedupe window, the worker drops the whole partition. A new key
-- therefore goes into an index that fits into memory, and forgetting keys
-- deletes no rows.
--
-- A partition is named by the hour in which it was created, counted since 1970:
-- inbox_p498711. The default of `partition_hour` names the active partition.
-- Changing the default takes an ACCESS EXCLUSIVE lock on the inbox. Of any two
-- claims of one key, either both use the same partition, whose unique index
-- decides, or the later claim sees what the earlier one committed. See
-- src/store/inbox.rs.

create table inbox (
    -- First 16 bytes of the SHA-256 of the event key's text: the index has half
    -- the size of one over the text.
    key            uuid not null,
    -- The receipt of the message that won the key. A redelivery of that message
    -- has the same receipt; a duplicate has another one.
    receipt_id     uuid not null,
    -- First 16 bytes of the SHA-256 of that message's body. Another digest under
    -- the same key is a conflict, not a duplicate.
    body_digest    uuid not null,
    -- The partition of the row, as the hour since 1970. The migration sets the
    -- default below; the worker changes it.
    partition_hour integer not null
-- The table has no primary key: a key over all partitions would have to contain
-- partition_hour in every index entry. Each partition has a primary key of its
-- own.
) partition by list (partition_hour);

comment on table inbox is
    'Event keys that were processed, partitioned by time; one active partition takes new keys';
comment on column inbox.key is 'First 16 bytes of the SHA-256 of the event key';
comment on column inbox.receipt_id is 'Receipt of the message that won the key';
comment on column inbox.body_digest is 'First 16 bytes of the SHA-256 of its body';
comment on column inbox.partition_hour is 'Hour since 1970 in which the partition was created';

-- The first partition, for the current hour.
do $$
declare
    this_hour constant integer := floor(extract(epoch from now()) / 3600);
begin
    execute format('alter table inbox alter column partition_hour set default %s', this_hour);
    execute format(
        -- Rows are never updated, so vacuum may freeze them at once. It must not
        -- truncate the table, because that locks out claims.
        'create table inbox_p%s partition of inbox (primary key (key)) for values in (%s)
         with (autovacuum_freeze_min_age = 0, vacuum_truncate = false)', this_hour, this_hour);
end $$;

-- One row for each dropped partition of the inbox. `tallyhook audit` reads it:
-- keys that were processed before `processed_before` may be missing.
create table inbox_dropped_partitions (
    partition_hour   integer primary key,
    -- Every key of the partition was processed before this time.
    processed_before timestamptz not null,
    dropped_at       timestamptz not null default now()
);

comment on table inbox_dropped_partitions is 'Partitions of the inbox that were dropped after the dedupe window';

-- Finds which of these keys were processed, and by which message. Sequential
-- scans are off: a plan made while the active partition was empty would still
-- scan it when it holds millions of keys.
create function inbox_lookup(keys uuid[])
returns table (key uuid, receipt_id uuid, body_digest uuid)
language plpgsql stable rows 100 set enable_seqscan = off as $$
begin
    return query
        select known.key, known.receipt_id, known.body_digest from inbox as known
        where known.key = any (keys);
end $$;

-- Deletes the claims of these messages: key and receipt must both match.
-- Sequential scans are off for the same reason.
create function inbox_unclaim(keys uuid[], receipts uuid[])
returns void
language sql set enable_seqscan = off as $$
    delete from inbox
    using unnest(keys, receipts) as claim (key, receipt_id)
    where inbox.key = claim.key and inbox.receipt_id = claim.receipt_id
$$;
