-- The call log by time. A table of years is slow to vacuum, and its old rows
-- can only be deleted one by one; a table for each week is dropped at once.
--
-- Our receipt ids are UUIDs of version 7, whose first 48 bits are Unix
-- milliseconds. So a range of ids is a range of time, one unique index over
-- the id alone still holds for all partitions, and whoever looks for an id
-- reads one of them.
--
-- What lies in no range goes to the default partition, so that nothing ever
-- fails for want of one: ids of other kinds that other producers gave, ours
-- for receipts that were used twice, those of clocks that are wrong, and what
-- had to stay when its partition went. Retention deletes there row by row.
--
-- Workers of older versions cannot record what they settle after this. Stop
-- them first; one that was forgotten finds a column of the inbox by another
-- name, takes that for a schema it does not know, and its messages wait.

-- Taken before any work is done, and in the order in which workers take them:
-- whoever asks after imports holds both others for a moment.
lock table inbox, imports, receipts in access exclusive mode;

alter table inbox rename column body_digest to digest;

alter table receipts
    -- Whether it had an outcome before this one: it was retried or dead. (Of
    -- those from before this column nobody knows.) A row that goes through a
    -- partitioned table cannot be asked for its xmax, which told it before.
    add column revised boolean not null default false;

-- The lowest receipt id of a moment: `where receipt_id >= receipt_id_at(...)`
-- reads only the partitions since then.
create function receipt_id_at(moment timestamptz) returns uuid
language sql stable parallel safe as $$
    select (lpad(to_hex(floor(extract(epoch from moment) * 1000)::bigint), 12, '0')
        || repeat('0', 20))::uuid
$$;

-- From the first of them up to the second, which belongs to the next.
create type receipt_ids as range (subtype = uuid);

-- What retention let go of: one row for each partition that was dropped, and
-- one for all that was deleted from the default partition. Without it nobody
-- could tell a receipt that is gone from one that was lost.
create table receipts_past (
    past_id          bigint generated always as identity primary key,
    -- The partition.
    name             text not null,
    -- The ids that lay in it; null for the default partition.
    ids              receipt_ids,
    -- What was settled there before this moment is gone, whatever its id.
    processed_before timestamptz,
    -- How many receipts went, by outcome. None that waits is among them.
    applied          bigint not null default 0,
    duplicate        bigint not null default 0,
    stale            bigint not null default 0,
    ignored          bigint not null default 0,
    dead             bigint not null default 0,
    rejected         bigint not null default 0,
    dropped_at       timestamptz not null default now(),
    constraint receipts_past_what check ((ids is null) = (processed_before is not null))
);

insert into receipts_past (name, processed_before) values ('receipts_rest', '-infinity');

-- The table that stands becomes the first partition, as it is: no row of it is
-- written again but those that lie outside of its time. It goes up to tomorrow,
-- and some weeks follow; the worker makes all others.
do $$
declare
    today  constant timestamptz := date_trunc('day', now(), 'UTC');
    since  timestamptz;
    lower  uuid;
    upper  uuid;
    name   text;
    known  text;
    allowed record;
begin
    select date_trunc('day', to_timestamp(millisecond / 1000), 'UTC') into since
    from (
        select ('x' || translate(left(receipt_id::text, 13), '-', ''))::bit(48)::bigint
        from receipts where substr(receipt_id::text, 15, 1) = '7'
        order by receipt_id limit 1
    ) as oldest (millisecond);
    since := least(since, today);
    lower := receipt_id_at(since);
    upper := receipt_id_at(today + interval '24 hours');
    name := to_char(since at time zone 'UTC', '"receipts_"YYYYMMDD');

    alter table receipts rename to receipts_before;
    for known in
        select relname from pg_index join pg_class on pg_class.oid = indexrelid
        where indrelid = 'receipts_before'::regclass
    loop
        execute format('alter index %I rename to %I', known, replace(known, 'receipts', name));
    end loop;
    execute format('alter table receipts_before rename to %I', name);

    execute format(
        'create table receipts (like %I including all excluding indexes)
         partition by range (receipt_id)', name);
    alter table receipts add primary key (receipt_id);
    create index receipts_event_key on receipts (event_key);
    create index receipts_business_key on receipts (business_key);
    create index receipts_received_at on receipts (received_at);
    create index receipts_retried on receipts (source) where outcome = 'retried';
    create index receipts_import on receipts (import_id, import_line)
        where import_id is not null;

    create table receipts_rest (like receipts including all);
    execute format(
        'with stray as (
             delete from %I where receipt_id < %L or receipt_id >= %L returning *
         )
         insert into receipts_rest select * from stray',
        name, lower, upper);
    -- Its indexes are those of the whole: they are found and taken over.
    execute format(
        'alter table receipts attach partition %I for values from (%L) to (%L)',
        name, lower, upper);
    alter table receipts attach partition receipts_rest default;
    -- Who could use the call log still can.
    for allowed in
        select granted.privilege_type,
            case granted.grantee when 0 then 'public' else granted.grantee::regrole::text end
                as grantee
        from pg_class, aclexplode(relacl) as granted
        where oid = name::regclass and granted.grantee <> relowner
    loop
        execute format('grant %s on receipts to %s', allowed.privilege_type, allowed.grantee);
    end loop;

    -- Receipts are written once; few are revised. By the default, a table is
    -- vacuumed each time it has grown by a fifth: ever later, more each time,
    -- and what came last is frozen years later, all at once. So every 100,000
    -- rows are a piece of work of their own, frozen as soon as it is looked at,
    -- and never looked at again. The parent cannot bear these settings: each
    -- partition is made with them.
    execute format(
        'alter table %I set (autovacuum_vacuum_insert_scale_factor = 0,
             autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0)', name);
    for week in 0..3 loop
        lower := upper;
        upper := receipt_id_at(today + interval '24 hours' * (8 + 7 * week));
        name := to_char(
            (today + interval '24 hours' * (1 + 7 * week)) at time zone 'UTC',
            '"receipts_"YYYYMMDD');
        execute format(
            'create table %I partition of receipts for values from (%L) to (%L)
             with (autovacuum_vacuum_insert_scale_factor = 0,
                 autovacuum_vacuum_insert_threshold = 100000, autovacuum_freeze_min_age = 0)',
            name, lower, upper);
    end loop;
end
$$;

-- Rows leave it one by one, a batch at a time.
alter table receipts_rest set (autovacuum_vacuum_scale_factor = 0.05);

-- The partitions that stand for a range of time, as the catalogue has them.
create view receipts_spans as
select
    -- Quoted, and with its schema, where it has to be.
    inhrelid::regclass::text as name,
    receipt_ids(bounds[1]::uuid, bounds[2]::uuid) as ids,
    bounds[1]::uuid as from_id,
    bounds[2]::uuid as until_id
from pg_inherits
join pg_class as partition on partition.oid = inhrelid
cross join lateral regexp_match(
    pg_get_expr(partition.relpartbound, partition.oid),
    '^FOR VALUES FROM \(''(.+)''\) TO \(''(.+)''\)$') as bounds
where inhparent = 'receipts'::regclass and bounds is not null;

alter table imports
    -- What became of items whose receipts are past retention: added to what is
    -- counted from those that are left.
    add column past_created   bigint not null default 0,
    add column past_updated   bigint not null default 0,
    add column past_duplicate bigint not null default 0,
    add column past_stale     bigint not null default 0,
    add column past_ignored   bigint not null default 0,
    add column past_dead      bigint not null default 0,
    add column past_rejected  bigint not null default 0,
    add column past_batches   bigint not null default 0,
    add column past_last_at   timestamptz,
    -- How many they are.
    add column past_items     bigint not null generated always as (
        past_created + past_updated + past_duplicate + past_stale + past_ignored
        + past_dead + past_rejected) stored;

-- Most updates of the books are HOT and clean up behind themselves; the others
-- leave rows and index entries that only vacuum takes away. By the default it
-- comes when a fifth of the table is dead: of ten million orders, two million.
alter table orders set (autovacuum_vacuum_scale_factor = 0.05);
alter table invoices set (autovacuum_vacuum_scale_factor = 0.05);
alter table refunds set (autovacuum_vacuum_scale_factor = 0.05);
-- A delivery changes its state three times and more, each time an index that
-- is asked every second for what is due.
alter table deliveries set (autovacuum_vacuum_scale_factor = 0.02);
