-- The books: what the events add up to. Rows are found by the platforms' own
-- ids; constraints are the second line of defence behind the inbox.

-- Every settled event key. A key that is here has had its effect; a second
-- message with it changes nothing.
create table inbox (
    -- First 16 bytes of the SHA-256 of the key's text: half the index of the text.
    key         uuid primary key,
    -- Whose message settled it: our own redelivery is told from a duplicate.
    receipt_id  uuid not null,
    -- SHA-256 of the body, first 16 bytes: tells a duplicate from a conflict.
    body_digest uuid not null,
    settled_at  timestamptz not null default now()
) with (fillfactor = 100);

create table orders (
    source          text not null,
    tenant          text not null,
    order_id        text not null check (order_id <> ''),
    number          text,
    status          text check (status in (
        'pending', 'authorized', 'partially_paid', 'paid', 'partially_refunded',
        'refunded', 'cancelled', 'failed', 'other')),
    platform_status text,
    currency        text check (currency ~ '^[A-Z]{3}$'),
    total           numeric,
    refunded        numeric not null default 0 check (refunded >= 0),
    customer_ref    text,
    placed_at       timestamptz,
    -- The platform's version of this state: an older one never overwrites it.
    version         timestamptz,
    lines           jsonb not null default '[]' check (jsonb_typeof(lines) = 'array'),
    -- A tombstone: the platform deleted the order at this time.
    deleted_at      timestamptz,
    -- When the platform last took it back from its bin.
    restored_at     timestamptz,
    first_receipt   uuid not null,
    last_receipt    uuid not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    primary key (source, tenant, order_id),
    -- Only an order that was deleted before we ever saw it may be empty.
    constraint orders_complete check (
        deleted_at is not null
        or (number is not null and status is not null and currency is not null
            and total is not null and version is not null))
-- Room on the page, so that an update need not touch the indexes (HOT).
) with (fillfactor = 85);

create index orders_number on orders (number);

create table invoices (
    -- UUID v5 of source, tenant, vendor, number and generation.
    invoice_id      uuid primary key,
    source          text not null,
    tenant          text not null,
    vendor          text not null,
    invoice_number  text not null check (invoice_number <> ''),
    -- Raised by a re-issue, which makes another invoice of the same number.
    generation      integer not null default 0 check (generation >= 0),
    transaction_id  text,
    status          text not null check (status in (
        'draft', 'open', 'paid', 'void', 'uncollectible', 'other')),
    platform_status text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    total           numeric not null,
    due_on          date,
    version         timestamptz not null,
    deleted_at      timestamptz,
    first_receipt   uuid not null,
    last_receipt    uuid not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    constraint invoices_natural_key unique (source, tenant, vendor, invoice_number, generation)
) with (fillfactor = 85);

create index invoices_number on invoices (invoice_number);
