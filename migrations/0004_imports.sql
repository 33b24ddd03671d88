-- Imports: uploaded files. Each line (or array element) of a file is a message of
-- its own and has a row in receipts, where import_id and import_line name it.
-- This table holds what concerns the file as a whole.

create table imports (
    -- The receipt of the HTTP request that uploaded the file.
    import_id         uuid primary key,
    source            text not null,
    -- The file's name, if the sender gave one.
    name              text,
    -- `receiving` while the file is read; `received` at its end; `interrupted` if
    -- the upload ended early. An import whose receiver crashed stays `receiving`.
    state             text not null check (state in ('receiving', 'received', 'interrupted')),
    -- How many items are durable so far, rejected items included.
    items             bigint not null check (items >= 0),
    -- Why the upload was interrupted.
    error             text,
    -- When the request began.
    started_at        timestamptz not null,
    -- When the last item was read.
    received_at       timestamptz,
    -- When the last item was processed. Written once, when no item waits any more.
    -- A later replay changes the counts and not this time.
    completed_at      timestamptz,
    -- Items whose receipts retention deleted, by outcome. GET /imports/{id} adds them
    -- to the counts of the receipts that are left.
    dropped_created   bigint not null default 0,
    dropped_updated   bigint not null default 0,
    dropped_duplicate bigint not null default 0,
    dropped_stale     bigint not null default 0,
    dropped_ignored   bigint not null default 0,
    dropped_dead      bigint not null default 0,
    dropped_rejected  bigint not null default 0,
    dropped_items     bigint not null generated always as (
        dropped_created + dropped_updated + dropped_duplicate + dropped_stale
        + dropped_ignored + dropped_dead + dropped_rejected) stored,
    -- In how many transactions these items were processed, and when the last was.
    dropped_batches   bigint not null default 0,
    dropped_last_at   timestamptz,
    constraint imports_received check ((state = 'receiving') = (received_at is null)),
    constraint imports_error check ((state = 'interrupted') = (error is not null)),
    -- A file cannot be completed before its end was read.
    constraint imports_completed check (completed_at is null or received_at is not null)
);

-- Few imports are incomplete, and they are read often.
create index imports_incomplete on imports (import_id) where completed_at is null;

comment on table imports is 'Uploaded files; their items are rows of receipts';
comment on column imports.import_id is 'Receipt of the request that uploaded the file';
comment on column imports.items is 'Items that are durable, rejected items included';
comment on column imports.completed_at is 'When the last item was processed; null while one waits';
