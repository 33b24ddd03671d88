-- The call log: one row for every message that was received, duplicates and
-- rejected requests included, with its outcome.
--
-- Outcomes:
--   applied     changed an order, invoice, refund or resource change
--   duplicate   its event key was processed before; nothing changed
--   stale       a newer state is on record; nothing changed
--   ignored     a topic without a mapping, or a ping; nothing changed
--   retried     failed, and waits in a retry queue
--   dead        failed for good, and has a row in dead_letters
--   rejected    the request was invalid and was answered with an error
-- `retried` and `dead` may still change; the others are final.
--
-- The table is partitioned by receipt id. Our receipt ids are UUIDs of version 7,
-- whose first 48 bits are Unix milliseconds. A range of ids is a range of time,
-- one unique index over the id holds for all partitions, and a search by id reads
-- one partition. Expired partitions are dropped as a whole.
--
-- Ids in no range go to the partition receipts_default, so that no insert fails
-- because a partition is missing: ids of other producers, ids of clocks that are
-- wrong, and receipts that had to stay when their partition was dropped.
-- Retention deletes rows from receipts_default one by one.

create table receipts (
    receipt_id      uuid primary key,
    source          text not null,
    tenant          text not null,
    -- Identifies the event: source, tenant, event id and issue. A rejected request
    -- has no event; a unique text stands here.
    event_key       text not null,
    -- The platform's name of the event type.
    topic           text not null,
    -- The number of the order or invoice, if it could be read.
    business_key    text,
    received_at     timestamptz not null,
    -- The HTTP status of the response: 200 or 202 after a confirmed publish, or
    -- the error of a rejected request. Null for messages of other AMQP producers.
    response_status smallint,
    outcome         text not null check (outcome in (
        'applied', 'duplicate', 'stale', 'ignored', 'retried', 'dead', 'rejected')),
    -- What `applied` did to the order or invoice; null if that is not known.
    write_kind      text check (write_kind in ('created', 'updated')),
    -- How many attempts failed.
    attempts        integer not null check (attempts >= 0),
    -- Why the message failed or the request was rejected.
    error           text,
    -- The raw body. Null for a duplicate of a body that is on record, and for a
    -- request whose body was not read to its end.
    payload         bytea compression lz4,
    -- The import that the message is an item of, and its line, counted from 1.
    import_id       uuid,
    import_line     bigint check (import_line >= 0),
    -- When the outcome was recorded.
    processed_at    timestamptz not null default now(),
    -- True if an earlier outcome was replaced: the message was retried or dead.
    outcome_changed boolean not null default false,
    -- Operators need the error to repair the cause.
    constraint receipts_error check
        (outcome not in ('retried', 'dead', 'rejected') or error is not null),
    constraint receipts_write_kind check (write_kind is null or outcome = 'applied'),
    constraint receipts_import check ((import_id is null) = (import_line is null))
) partition by range (receipt_id);

create index receipts_event_key on receipts (event_key);
create index receipts_business_key on receipts (business_key);
create index receipts_received_at on receipts (received_at);
-- Few receipts wait for a retry, and they are counted often.
create index receipts_retried on receipts (source) where outcome = 'retried';
create index receipts_import on receipts (import_id, import_line) where import_id is not null;

comment on table receipts is 'Call log: one row for every message received, partitioned by time';
comment on column receipts.event_key is 'Source, tenant, event id and issue of the event';
comment on column receipts.business_key is 'Number of the order or invoice';
comment on column receipts.response_status is 'HTTP status of the response';
comment on column receipts.outcome is
    'applied, duplicate, stale, ignored, retried, dead or rejected';
comment on column receipts.write_kind is 'created or updated: what applied did';
comment on column receipts.attempts is 'How many attempts failed';
comment on column receipts.payload is 'Raw body';
comment on column receipts.processed_at is 'When the outcome was recorded';

-- The lowest receipt id of a moment. `where receipt_id >= receipt_id_at(...)`
-- reads only the partitions since that moment.
create function receipt_id_at(moment timestamptz) returns uuid
language sql stable parallel safe as $$
    select (lpad(to_hex(floor(extract(epoch from moment) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid
$$;

-- A range of receipt ids. The upper bound belongs to the next partition.
create type receipt_id_range as range (subtype = uuid);

create table receipts_default partition of receipts default
    -- Retention deletes rows here in batches.
    with (autovacuum_vacuum_scale_factor = 0.05);

-- Partitions for today and the next four weeks. The worker creates all others.
do $$
declare
    today constant timestamptz := date_trunc('day', now(), 'UTC');
    first_day timestamptz;
    next_day  timestamptz := today;
begin
    for week in 0..4 loop
        first_day := next_day;
        next_day := today + interval '24 hours' * (1 + 7 * week);
        execute format(
            'create table %I partition of receipts for values from (%L) to (%L)
             -- Receipts are inserted once and seldom updated. With the defaults,
             -- a table is vacuumed each time it has grown by a fifth, and its
             -- rows are frozen years later, all at once. With these settings,
             -- every 100,000 new rows are vacuumed and frozen, and not visited
             -- again. PostgreSQL does not allow the settings on the parent.
             with (autovacuum_vacuum_insert_scale_factor = 0,
                 autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0)',
            to_char(first_day at time zone 'UTC', '"receipts_"YYYYMMDD'),
            receipt_id_at(first_day), receipt_id_at(next_day));
    end loop;
end $$;

-- The partitions that hold a range of ids; receipts_default is not among them.
create view receipts_partitions as
select
    -- Quoted and with its schema where necessary.
    inhrelid::regclass::text as name,
    receipt_id_range(bounds[1]::uuid, bounds[2]::uuid) as ids,
    bounds[1]::uuid as from_id,
    bounds[2]::uuid as until_id
from pg_inherits
join pg_class as partition on partition.oid = inhrelid
cross join lateral regexp_match(
    pg_get_expr(partition.relpartbound, partition.oid),
    '^FOR VALUES FROM \(''(.+)''\) TO \(''(.+)''\)$') as bounds
where inhparent = 'receipts'::regclass and bounds is not null;

comment on view receipts_partitions is 'Partitions of receipts and the range of ids that each holds';

-- How many receipts retention deleted: one row for each dropped partition, and
-- one row for everything deleted from receipts_default. With it, `tallyhook
-- audit` can tell an expired receipt from a lost one.
create table receipts_dropped_partitions (
    drop_id          bigint generated always as identity primary key,
    -- The partition's name.
    name             text not null,
    -- The ids that it held; null for receipts_default.
    ids              receipt_id_range,
    -- Only for receipts_default: receipts that were processed before this time may
    -- be deleted, whatever their ids.
    processed_before timestamptz,
    -- How many receipts were deleted, by outcome. A receipt that waits for a retry
    -- or an operator is never deleted.
    applied          bigint not null default 0,
    duplicate        bigint not null default 0,
    stale            bigint not null default 0,
    ignored          bigint not null default 0,
    dead             bigint not null default 0,
    rejected         bigint not null default 0,
    dropped_at       timestamptz not null default now(),
    constraint receipts_dropped_partitions_scope check
        ((ids is null) = (processed_before is not null))
);

insert into receipts_dropped_partitions (name, processed_before)
values ('receipts_default', '-infinity');

comment on table receipts_dropped_partitions is 'How many receipts retention deleted, by partition';
