-- The call log: one row for every message that was received, duplicates
-- included, with what became of it.
create table receipts (
    receipt_id      uuid primary key,
    source          text not null,
    tenant          text not null,
    event_key       text not null,
    topic           text not null,
    -- The number that people know the order or invoice by.
    business_key    text,
    received_at     timestamptz not null,
    -- What a confirmed publish answers; null for messages of other AMQP
    -- producers. (A confirm that came after the time limit was answered 503.)
    response_status smallint,
    outcome         text not null check (outcome in (
        'applied', 'duplicate', 'stale', 'ignored', 'retried', 'dead')),
    attempts        integer not null check (attempts >= 0),
    error           text,
    -- The raw bytes; null for a duplicate of bytes that are on record already.
    payload         bytea compression lz4,
    processed_at    timestamptz not null default now(),
    -- A failure without its cause helps nobody.
    constraint receipts_error check (outcome not in ('retried', 'dead') or error is not null)
);

create index receipts_event_key on receipts (event_key);
create index receipts_business_key on receipts (business_key);
create index receipts_received_at on receipts (received_at);
-- What still waits is few and asked for often.
create index receipts_retried on receipts (source) where outcome = 'retried';
