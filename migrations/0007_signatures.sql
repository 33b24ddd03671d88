-- Signatures: requests that failed verification, and the use of secrets.

-- Requests with an invalid signature, of sources with a `quarantine_limit`: the
-- newest ones of each source. They can be verified again after a secret was
-- corrected. Requests with an invalid signature are not in receipts, because
-- clients without the secret can send any number of them. A row leaves when an operator releases or
-- discards it, or when newer requests exceed the limit.
create table quarantine (
    -- The receipt id in the response.
    receipt_id  uuid primary key,
    source      text not null,
    received_at timestamptz not null,
    -- What was wrong with the signature.
    error       text not null check (error <> ''),
    -- The request's headers as a list of names and values. They contain
    -- credentials where the signature is one.
    headers     jsonb not null check (jsonb_typeof(headers) = 'array'),
    -- The query string.
    query       text not null,
    -- The raw body.
    payload     bytea compression lz4 not null
);

-- Finds the oldest requests of a source, and lists the newest.
create index quarantine_age on quarantine (source, received_at, receipt_id);

comment on table quarantine is 'Requests with an invalid signature that can be verified again';

-- When each secret last verified a message, so that an unused one can be removed.
-- Written at most once a minute for each secret.
create table secret_uses (
    source       text not null,
    -- The secret's name in the configuration, never its value.
    secret       text not null,
    last_used_at timestamptz not null,
    primary key (source, secret)
-- Every update is HOT: no updated column is indexed.
) with (fillfactor = 50);

comment on table secret_uses is 'When each secret last verified a message';
