-- Imports: files of invoices, each line of which is a message of its own.
--
-- What became of the lines stands in the call log, as for every message; here
-- stands what only the file as a whole can tell.

create table imports (
    -- The receipt of the call that brought it.
    import_id  uuid primary key,
    source     text not null,
    -- What the sender calls the file.
    name       text,
    -- `receiving` for ever, if its receiver died in the middle.
    state      text not null check (state in ('receiving', 'received', 'broken_off')),
    -- How many items are durable so far, the rejected among them.
    items      bigint not null check (items >= 0),
    -- Why it broke off.
    error      text,
    begun_at   timestamptz not null,
    -- When the last of it was read.
    read_at    timestamptz,
    -- When the last of it was settled, written once nothing of it waited.
    settled_at timestamptz,
    constraint imports_read check ((state = 'receiving') = (read_at is null)),
    constraint imports_error check ((state = 'broken_off') = (error is not null)),
    constraint imports_settled check (settled_at is null or read_at is not null)
);

-- What is not settled yet is few and asked for often.
create index imports_unsettled on imports (import_id) where settled_at is null;

alter table receipts
    -- The file in which the message stood, and the line, counted from 1.
    add column import_id   uuid,
    add column import_line bigint check (import_line >= 0),
    -- What `applied` did to the order or invoice, where that can be told.
    add column effect      text check (effect in ('created', 'updated')),
    add constraint receipts_import check ((import_id is null) = (import_line is null)),
    add constraint receipts_effect check (effect is null or outcome = 'applied');

create index receipts_import on receipts (import_id, import_line) where import_id is not null;
