-- The whole call log: what was refused is on record beside what was accepted.
-- Forged calls are not: anybody can make them, as many as they like. A few of
-- them wait in a table of their own for a secret to be mended.

-- `rejected`: an answer said what is wrong with the call, and nothing changed.
-- It has no event key, since no event came of it; a text of its own stands
-- there. Its response_status is the one that was answered, and its payload is
-- null if the body was not read whole.
alter table receipts
    drop constraint receipts_outcome_check,
    add constraint receipts_outcome_check check (outcome in (
        'applied', 'duplicate', 'stale', 'ignored', 'retried', 'dead', 'rejected')),
    drop constraint receipts_error,
    -- A failure without its cause helps nobody.
    add constraint receipts_error check
        (outcome not in ('retried', 'dead', 'rejected') or error is not null);

-- Forged calls of sources that ask for it (`quarantine`), the newest so many
-- of each: enough to verify them again with another secret. A row leaves when
-- a person releases or discards it, or when newer ones push it out.
create table quarantine (
    -- The receipt that the answer named.
    receipt_id  uuid primary key,
    source      text not null,
    received_at timestamptz not null,
    -- What was wrong with the signature.
    error       text not null check (error <> ''),
    -- A list of names and values, credentials included: some signatures are.
    headers     jsonb not null check (jsonb_typeof(headers) = 'array'),
    query       text not null,
    payload     bytea compression lz4 not null
);

-- Finds the oldest of a source, and lists the newest.
create index quarantine_age on quarantine (source, received_at, receipt_id);

-- When each secret last verified a message, so that an old one can be removed
-- once nobody uses it. Written now and then, not for every message.
create table secret_uses (
    source       text not null,
    -- The name of the secret in the configuration, never its value.
    secret       text not null,
    last_used_at timestamptz not null,
    primary key (source, secret)
-- Updated for ever, and never in a column that is indexed (HOT).
) with (fillfactor = 50);
