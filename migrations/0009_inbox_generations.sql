-- The inbox in generations. One is open and takes the keys that are claimed;
-- the others are closed and only read, until the last key of one is past the
-- horizon and it is dropped whole. A new key so goes into an index that is
-- small enough to stay in memory, and what is forgotten costs no deletion.
--
-- A generation is named by the hour since 1970 in which it was opened, and the
-- open one by the column's default. Who changes that holds the whole inbox
-- locked, so of any two claims either both use the same generation, whose
-- index decides, or the later one sees what the earlier one committed. See
-- src/store/inbox.rs.
--
-- What is there already becomes the first generation as it stands; no row is
-- written anew. If nobody ever opens another one, it grows for ever.
do $$
declare
    -- Its keys are as old as this, which is what the audit asks for.
    opened constant integer := floor(extract(epoch from
        coalesce((select min(settled_at) from inbox), now())) / 3600);
    first constant text := 'inbox_g' || opened;
    allowed record;
begin
    -- The receipt tells it (processed_at), and a key is 8 bytes smaller.
    alter table inbox drop column settled_at;
    execute format('alter table inbox add column generation integer not null default %s', opened);
    execute format('alter table inbox rename to %I', first);
    execute format('alter index inbox_pkey rename to %I', first || '_pkey');
    -- No key of the whole: it would have to hold the generation too, in each
    -- of its entries. Each generation has its own.
    execute format(
        'create table inbox (
            key uuid not null,
            receipt_id uuid not null,
            digest uuid not null,
            generation integer not null default %s
        ) partition by list (generation)', opened);
    execute format('alter table inbox attach partition %I for values in (%s)', first, opened);
    -- Rows are never changed again, so vacuum may freeze them at once. It must
    -- not lock claims out to give the last pages back.
    execute format('alter table %I set (autovacuum_freeze_min_age = 0, vacuum_truncate = false)', first);
    -- Who could use the inbox still can.
    for allowed in
        select granted.privilege_type,
            case granted.grantee when 0 then 'public' else granted.grantee::regrole::text end
                as grantee
        from pg_class, aclexplode(relacl) as granted
        where oid = first::regclass and granted.grantee <> relowner
    loop
        execute format('grant %s on inbox to %s', allowed.privilege_type, allowed.grantee);
    end loop;
end $$;

-- What was forgotten, a row for each generation that was dropped: the audit
-- must not miss its keys.
create table inbox_forgotten (
    generation    integer primary key,
    -- Every key of it was settled before this time.
    settled_until timestamptz not null,
    forgotten_at  timestamptz not null default now()
);

-- Who settled these keys, of those that are settled. Always by the indexes: a
-- plan that was made while the open generation was empty, or held few keys
-- when it was last analyzed, would read the whole of it in one piece, and
-- would still do so when it holds millions.
create function inbox_settled(keys uuid[])
returns table (key uuid, receipt_id uuid, body_digest uuid)
language plpgsql stable rows 100 set enable_seqscan = off as $$
begin
    return query
        select known.key, known.receipt_id, known.digest from inbox as known
        where known.key = any (keys);
end $$;

-- Gives back what these messages claimed, by the indexes too.
create function inbox_release(keys uuid[], receipts uuid[])
returns void
language sql set enable_seqscan = off as $$
    delete from inbox
    using unnest(keys, receipts) as claim (key, receipt_id)
    where inbox.key = claim.key and inbox.receipt_id = claim.receipt_id
$$;
