-- The outbox: what other systems must hear of a document, written in the
-- transaction that changed it, and what became of telling them.
--
--                                  answer: it has it
--   pending ------> sending ----------------------------> delivered
--     ^  ^            |  |  \                                |
--     |  |  429, 503  |  |   \ 4xx, attempts exhausted       | a person: it was
--     |  +------------+  |    \                              | deleted there
--     |        no answer |     +-------> failed              v
--     |                  v                | |  a person    voided
--     |              uncertain            | +------------->  ^
--     |                  | looked up, then sent again        |
--     |                  +--> sending     |                  |
--     +-----------------------------------+                  |
--              a person: try it again                        |
--                                          pending, uncertain: a person
--
-- `voided` is for ever. A re-issue is another row of another generation, and
-- so with another key; no retry and no replay makes one.

create table deliveries (
    delivery_id     uuid primary key default gen_random_uuid(),
    -- A document's deliveries to a target go out in this order, one by one.
    position        bigint not null unique generated always as identity,
    target          text not null check (target <> ''),
    event           text not null check (event in (
        'order.upserted', 'order.deleted', 'invoice.created', 'invoice.updated',
        'invoice.deleted', 'refund.upserted')),
    -- Whether this is the mirror that an invoice is ticked off by.
    mirror          boolean not null,
    source          text not null,
    tenant          text not null,
    -- Our id of the document, and the number that people know it by.
    document_id     text not null check (document_id <> ''),
    document_number text,
    generation      integer not null default 0 check (generation >= 0),
    -- The receipt of the message that made it; nil for what is told once.
    revision        uuid not null,
    receipt_id      uuid not null,
    -- The document as it was then.
    document        jsonb not null check (jsonb_typeof(document) = 'object'),
    state           text not null default 'pending' check (state in (
        'pending', 'sending', 'delivered', 'uncertain', 'failed', 'voided')),
    -- Derived from what names the delivery. Sent with every attempt.
    idempotency_key uuid,
    -- The bytes that are sent: the same with every attempt under a key.
    request         text,
    -- How many attempts failed that count.
    attempts        integer not null default 0 check (attempts >= 0),
    next_attempt_at timestamptz not null default now(),
    -- A call that is under way may take until then; later, its worker is dead.
    lease_until     timestamptz,
    -- The target's own id of what it made.
    remote_id       text,
    response_status smallint,
    response        text,
    error           text,
    -- Delivered, but not as it should be.
    warning         text,
    created_at      timestamptz not null default now(),
    first_sent_at   timestamptz,
    delivered_at    timestamptz,
    voided_at       timestamptz,
    voided_by       text,
    void_reason     text,
    updated_at      timestamptz not null default now(),
    constraint deliveries_once
        unique (document_id, target, event, source, tenant, generation, revision),
    -- Committed before the first call: whoever comes after a crash knows it.
    constraint deliveries_keyed check (first_sent_at is null or idempotency_key is not null),
    constraint deliveries_sent check (
        state in ('pending', 'failed', 'voided')
        or (first_sent_at is not null and request is not null)),
    constraint deliveries_leased check ((state = 'sending') = (lease_until is not null)),
    constraint deliveries_delivered check (state <> 'delivered' or delivered_at is not null),
    constraint deliveries_failed check (state not in ('uncertain', 'failed') or error is not null),
    constraint deliveries_voided check (
        (state = 'voided') = (voided_at is not null)
        -- Null would pass a bare comparison.
        and (state <> 'voided' or (voided_by <> '' and void_reason <> '') is true))
) with (fillfactor = 70);

-- What still has to go out is few and asked for often.
create index deliveries_due on deliveries (target, next_attempt_at, position)
    where state in ('pending', 'sending', 'uncertain');
-- What stands in the way of a document's later deliveries.
create index deliveries_unfinished on deliveries (document_id, target, position)
    where state in ('pending', 'sending', 'uncertain', 'failed');
create index deliveries_number on deliveries (document_number);
create index deliveries_receipt on deliveries (receipt_id);
-- What a person reads at the target.
create index deliveries_remote on deliveries (remote_id) where remote_id is not null;
create unique index deliveries_key on deliveries (idempotency_key)
    where idempotency_key is not null;

-- A document as other systems hear of it. Amounts are texts: a JSON number
-- would become a float somewhere.
create function invoice_document(invoice invoices) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'invoice_id', invoice.invoice_id, 'source', invoice.source, 'tenant', invoice.tenant,
        'vendor', invoice.vendor, 'number', invoice.invoice_number,
        'document_id', invoice.document_id, 'transaction_id', invoice.transaction_id,
        'status', invoice.status, 'platform_status', invoice.platform_status,
        'currency', invoice.currency, 'total', invoice.total::text, 'due_on', invoice.due_on,
        'version', invoice.version, 'deleted_at', invoice.deleted_at)
$$;

create function order_document(told orders) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'order_id', told.order_id, 'source', told.source, 'tenant', told.tenant,
        'number', told.number, 'status', told.status, 'platform_status', told.platform_status,
        'currency', told.currency, 'total', told.total::text, 'refunded', told.refunded::text,
        'customer_ref', told.customer_ref, 'payment_ref', told.payment_ref,
        'placed_at', told.placed_at, 'version', told.version, 'lines', told.lines,
        'deleted_at', told.deleted_at)
$$;

create function refund_document(refund refunds) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'refund_id', refund.refund_id, 'source', refund.source, 'tenant', refund.tenant,
        'order_id', refund.order_id, 'payment_ref', refund.payment_ref,
        'status', refund.status, 'platform_status', refund.platform_status,
        'currency', refund.currency, 'amount', refund.amount::text, 'version', refund.version)
$$;

alter table invoices
    -- When every target that mirrors it had confirmed its mirror; null while
    -- one has not, and where none does.
    add column ticked_off_at timestamptz;

alter table dead_letters
    -- The delivery that failed, where it is no message that came in: then
    -- `receipt_id` is the delivery's id, and no receipt's.
    add column delivery_id uuid unique references deliveries;

alter table audit_log
    add column delivery_id uuid references deliveries;
create index audit_log_delivery on audit_log (delivery_id) where delivery_id is not null;
