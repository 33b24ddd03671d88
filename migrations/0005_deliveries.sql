-- The outbox: what other systems must receive of a document. A delivery is
-- written in the transaction that changed the document.
--
--   pending ----> sending ----> delivered
--      ^            | | |
--      |            | | +-----> failed: refused (4xx), or attempts exhausted
--      |            | +-------> uncertain: no response, the destination may have it
--      +------------+           -> sending again, after a look-up where possible
--       429, 503: try later
--
--   failed --- operator: retry ---> pending or uncertain
--   pending, uncertain, failed, delivered --- operator: void ---> voided
--
-- `voided` is final. A re-issue inserts another row with a higher issue, and
-- therefore with another idempotency key. Retries and replays never do.

create table deliveries (
    delivery_id      uuid primary key default gen_random_uuid(),
    -- Deliveries of one document to one destination are sent in this order, one
    -- after the other.
    sequence         bigint not null unique generated always as identity,
    -- The destination's name in the configuration.
    destination      text not null check (destination <> ''),
    event            text not null check (event in (
        'order.upserted', 'order.deleted', 'invoice.created', 'invoice.updated',
        'invoice.deleted', 'refund.upserted')),
    -- True if the destination keeps a copy of the invoice. invoices.mirrored_at is
    -- set when all mirrors of an invoice are delivered.
    is_mirror        boolean not null,
    source           text not null,
    tenant           text not null,
    -- Our id of the document, and its number.
    document_id      text not null check (document_id <> ''),
    document_number  text,
    -- The issue number: 0, and one higher for each re-issue.
    issue            integer not null default 0 check (issue >= 0),
    -- The receipt of the message that caused the delivery, as part of its identity.
    -- The nil UUID for events that occur once in a document's life.
    cause_receipt_id uuid not null,
    -- The receipt of the message that caused the delivery.
    receipt_id       uuid not null,
    -- The document at that time.
    document         jsonb not null check (jsonb_typeof(document) = 'object'),
    state            text not null default 'pending' check (state in (
        'pending', 'sending', 'delivered', 'uncertain', 'failed', 'voided')),
    -- Derived from the columns of deliveries_unique. Sent with every attempt.
    idempotency_key  uuid,
    -- The body that is sent, the same with every attempt under one key.
    request          text,
    -- How many attempts failed. A destination that is overloaded does not count.
    attempts         integer not null default 0 check (attempts >= 0),
    next_attempt_at  timestamptz not null default now(),
    -- The worker that is sending has until then. Later, another worker takes over.
    lease_until      timestamptz,
    -- The destination's own id of the document.
    remote_id        text,
    -- The last response.
    response_status  smallint,
    response         text,
    error            text,
    -- What an operator should know although it was delivered.
    warning          text,
    created_at       timestamptz not null default now(),
    first_sent_at    timestamptz,
    delivered_at     timestamptz,
    voided_at        timestamptz,
    voided_by        text,
    void_comment     text,
    updated_at       timestamptz not null default now(),
    constraint deliveries_unique
        unique (document_id, destination, event, source, tenant, issue, cause_receipt_id),
    -- The key is committed before the first call, so that a worker that takes over
    -- after a crash sends the same key.
    constraint deliveries_sent_with_key check
        (first_sent_at is null or idempotency_key is not null),
    constraint deliveries_sent check (
        state in ('pending', 'failed', 'voided')
        or (first_sent_at is not null and request is not null)),
    constraint deliveries_leased check ((state = 'sending') = (lease_until is not null)),
    constraint deliveries_delivered check (state <> 'delivered' or delivered_at is not null),
    constraint deliveries_failed check (state not in ('uncertain', 'failed') or error is not null),
    constraint deliveries_voided check (
        (state = 'voided') = (voided_at is not null)
        -- `is true`: a null comment would pass a bare comparison.
        and (state <> 'voided' or (voided_by <> '' and void_comment <> '') is true))
-- A delivery changes its state at least three times, and each change updates the
-- index deliveries_due, which is read every second.
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- Few deliveries are unsent, and they are read often.
create index deliveries_due on deliveries (destination, next_attempt_at, sequence)
    where state in ('pending', 'sending', 'uncertain');
-- Finds an unfinished delivery that blocks later ones of the same document.
create index deliveries_unfinished on deliveries (document_id, destination, sequence)
    where state in ('pending', 'sending', 'uncertain', 'failed');
create index deliveries_number on deliveries (document_number);
create index deliveries_receipt on deliveries (receipt_id);
-- For operators who search by the destination's id.
create index deliveries_remote on deliveries (remote_id) where remote_id is not null;
create unique index deliveries_idempotency_key on deliveries (idempotency_key)
    where idempotency_key is not null;

comment on table deliveries is 'Outbox: what other systems must receive, and its state';
comment on column deliveries.is_mirror is 'True if the destination keeps a copy of the invoice';
comment on column deliveries.issue is 'Issue number; one higher for each re-issue';
comment on column deliveries.cause_receipt_id is
    'Receipt of the causing message; the nil UUID for events that occur once';
comment on column deliveries.state is
    'pending, sending, delivered, uncertain, failed or voided';
comment on column deliveries.remote_id is 'The destination''s own id of the document';
comment on column deliveries.void_comment is 'Comment of the operator who voided it';
