-- Refunds that come as events of their own, references for events that only
-- say that something changed, and what platforms need whose times tell no
-- order.

alter table orders
    -- A number that the platform raises with each state, or the rank of the
    -- status where its times tell no order; compared before the version.
    add column sequence bigint not null default 0,
    -- The platform's id of the payment, where refunds name that.
    add column payment_ref text,
    -- What the refunds on record add up to, in this currency.
    add column refunded_summed numeric not null default 0,
    add column refunded_currency text;

-- Some platforms tell with each order how much was paid back, some send each
-- refund by itself, some do both. Either is the truth as far as it was told,
-- so the larger one is it, and a refund told both ways is not added twice.
alter table orders rename column refunded to refunded_told;
alter table orders
    add column refunded numeric not null generated always as (
        case when currency is null or refunded_currency is null or currency = refunded_currency
            then greatest(refunded_told, refunded_summed)
            else refunded_told end
    ) stored;

-- An order may be known by its deletion or by its refund before its state
-- ever came; once there is a version, there is a state.
alter table orders drop constraint orders_complete;
alter table orders add constraint orders_complete check (
    version is null
    or (number is not null and status is not null and currency is not null
        and total is not null));

create table refunds (
    source          text not null,
    tenant          text not null,
    refund_id       text not null check (refund_id <> ''),
    -- One of the two is told; the order of a payment is found in `payments`.
    order_id        text check (order_id <> ''),
    payment_ref     text check (payment_ref <> ''),
    status          text not null check (status in (
        'pending', 'succeeded', 'failed', 'cancelled', 'other')),
    platform_status text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    amount          numeric not null check (amount >= 0),
    -- All that went back of a payment so far, as the payment tells it: held
    -- against the sum of the others, never added to them.
    cumulative      boolean not null default false,
    version         timestamptz not null,
    first_receipt   uuid not null,
    last_receipt    uuid not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    primary key (refund_id, tenant, source),
    constraint refunds_of_something check (order_id is not null or payment_ref is not null)
);

-- Indexes begin with what tells rows apart. Before a new table is analyzed for
-- the first time, all that begin with source and tenant look the same to the
-- planner, and one that reads the whole of a shop may be taken.
create index refunds_order on refunds (order_id, tenant, source);
create index refunds_payment on refunds (payment_ref, tenant, source);

-- Which order a payment is of. Whoever comes first, order or refund, makes
-- the row and the other waits for it: so that neither misses the other.
create table payments (
    source      text not null,
    tenant      text not null,
    payment_ref text not null check (payment_ref <> ''),
    order_id    text,
    primary key (payment_ref, tenant, source)
);

create index payments_order on payments (order_id, tenant, source);

alter table invoices
    -- The platform's own id of the document: it stays while a draft gets its
    -- number. The invoice's id is derived from it where there is one.
    add column document_id text check (document_id <> ''),
    add column sequence bigint not null default 0;

create index invoices_document on invoices (document_id) where document_id is not null;

-- Two documents of a platform may bear one number: a bill that was deleted and
-- entered anew, two suppliers of one name, two that changed numbers. Where the
-- platform's own id tells documents apart, the number need not.
alter table invoices drop constraint invoices_natural_key;
create unique index invoices_natural_key
    on invoices (source, tenant, vendor, invoice_number, generation)
    where document_id is null;

-- What thin events tell: something changed, and only the platform knows what
-- it is now. One row for each thing, as of its latest event.
create table resource_references (
    source        text not null,
    -- Whose id it is: the kind of source, or its profile.
    platform      text not null check (platform <> ''),
    tenant        text not null,
    kind          text not null check (kind <> ''),
    id            text not null check (id <> ''),
    -- The platform's own count of versions, where it tells one.
    version       bigint,
    changed_at    timestamptz not null,
    action        text not null check (action <> ''),
    first_receipt uuid not null,
    last_receipt  uuid not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    primary key (source, tenant, kind, id)
) with (fillfactor = 85);

create index resource_references_id on resource_references (id);
