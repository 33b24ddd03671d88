-- Documents: the current state of every order, refund and invoice, as the events
-- add up to it. Rows are identified by the platforms' own ids. The constraints
-- are the second line of defence behind the inbox.
--
-- Columns that all documents share:
--   source, tenant    the source's name in the configuration, and the shop or
--                     company within it ('' if the source has only one)
--   version           the platform's time of this state; an older version never
--                     overwrites a newer one
--   sequence          compared before the version; see orders.sequence
--   first_receipt     receipt of the message that created the row
--   last_receipt      receipt of the message that changed the row last
--   status            our word for the state, the same for all platforms
--   platform_status   the platform's own word for the state
--
-- Most updates are HOT (they touch no index), because a fill factor below 100
-- leaves room on the page. The remaining dead rows are vacuumed when they make
-- up 5 % of a table instead of 20 %: of ten million orders, 500,000 instead of
-- two million.

create table orders (
    source            text not null,
    tenant            text not null,
    -- The platform's id of the order.
    order_id          text not null check (order_id <> ''),
    -- The number that customers and staff use.
    number            text,
    status            text check (status in (
        'pending', 'authorized', 'partially_paid', 'paid', 'partially_refunded',
        'refunded', 'cancelled', 'failed', 'other')),
    platform_status   text,
    currency          text check (currency ~ '^[A-Z]{3}$'),
    total             numeric,
    -- The refunded amount. Some platforms report it with each order, some send
    -- each refund as an event of its own, and some do both. The larger amount is
    -- taken, so that a refund reported both ways is not added twice. The sum of
    -- refunds in another currency does not count.
    refunded          numeric not null generated always as (
        case when currency is null or refunded_currency is null or currency = refunded_currency
            then greatest(refunded_reported, refunded_computed)
            else refunded_reported end
    ) stored,
    -- The refunded amount that the platform reported with the order.
    refunded_reported numeric not null default 0 check (refunded_reported >= 0),
    -- The sum of the order's rows in `refunds`, and their currency.
    refunded_computed numeric not null default 0,
    refunded_currency text,
    -- The platform's id or name of the customer.
    customer_ref      text,
    -- The platform's id of the payment, if its refunds name the payment.
    payment_ref       text,
    placed_at         timestamptz,
    version           timestamptz,
    -- A number that the platform raises with each state, or the rank of the
    -- status, where the version does not order the states. 0 where it does.
    sequence          bigint not null default 0,
    -- The line items.
    lines             jsonb not null default '[]' check (jsonb_typeof(lines) = 'array'),
    -- When the platform deleted the order; null while it exists. The last state
    -- stays readable.
    deleted_at        timestamptz,
    -- When the platform last restored the order after a deletion.
    restored_at       timestamptz,
    first_receipt     uuid not null,
    last_receipt      uuid not null,
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    primary key (source, tenant, order_id),
    -- A deletion or a refund may arrive before the first state of the order. Once
    -- there is a version, there is a complete state.
    constraint orders_complete check (
        version is null
        or (number is not null and status is not null and currency is not null
            and total is not null))
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

create index orders_number on orders (number);

comment on table orders is 'Current state of every order';
comment on column orders.order_id is 'The platform''s id of the order';
comment on column orders.number is 'The number that customers and staff use';
comment on column orders.refunded is 'The larger of refunded_reported and refunded_computed';
comment on column orders.version is 'The platform''s time of this state';
comment on column orders.lines is 'Line items as a JSON array';
comment on column orders.deleted_at is 'When the platform deleted the order; null while it exists';

create table refunds (
    source          text not null,
    tenant          text not null,
    -- The platform's id of the refund.
    refund_id       text not null check (refund_id <> ''),
    -- A refund names its order or its payment. The order of a payment stands in
    -- `payments`.
    order_id        text check (order_id <> ''),
    payment_ref     text check (payment_ref <> ''),
    status          text not null check (status in (
        'pending', 'succeeded', 'failed', 'cancelled', 'other')),
    platform_status text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    amount          numeric not null check (amount >= 0),
    -- True if `amount` is the total refunded of a payment so far, as the payment
    -- reports it. It is compared with the sum of the other refunds and never
    -- added to them.
    cumulative      boolean not null default false,
    version         timestamptz not null,
    first_receipt   uuid not null,
    last_receipt    uuid not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    -- The most selective column comes first in all keys of this table and of
    -- `payments`. Before a new table is analyzed, all indexes that begin with
    -- source and tenant look alike to the planner, and it may read a whole shop.
    primary key (refund_id, tenant, source),
    constraint refunds_order_or_payment check (order_id is not null or payment_ref is not null)
) with (autovacuum_vacuum_scale_factor = 0.05);

create index refunds_order on refunds (order_id, tenant, source);
create index refunds_payment on refunds (payment_ref, tenant, source);

comment on table refunds is 'Current state of every refund that came as an event of its own';

-- The order of each payment. The first message that names a payment, from an
-- order or from a refund, inserts the row; a concurrent second one waits for that
-- row lock. An order and its refund therefore always see each other.
create table payments (
    source      text not null,
    tenant      text not null,
    payment_ref text not null check (payment_ref <> ''),
    -- Null until an order with this payment arrives.
    order_id    text,
    primary key (payment_ref, tenant, source)
);

create index payments_order on payments (order_id, tenant, source);

comment on table payments is 'Order of each payment, for refunds that name the payment';

create table invoices (
    -- Our id, a UUID v5: of the platform's document id if there is one, otherwise
    -- of source, tenant, vendor, number and generation.
    invoice_id      uuid primary key,
    source          text not null,
    tenant          text not null,
    vendor          text not null,
    invoice_number  text not null check (invoice_number <> ''),
    -- The issue number: 0, or higher if a sender issued another invoice under the
    -- same number on purpose (header x-tallyhook-generation).
    generation      integer not null default 0 check (generation >= 0),
    -- The platform's own id of the document. It stays when a draft gets a number.
    document_id     text check (document_id <> ''),
    -- The sender's id of the transaction that the invoice belongs to.
    transaction_id  text,
    status          text not null check (status in (
        'draft', 'open', 'paid', 'void', 'uncollectible', 'other')),
    platform_status text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    total           numeric not null,
    due_on          date,
    version         timestamptz not null,
    sequence        bigint not null default 0,
    -- When the platform deleted the invoice; null while it exists.
    deleted_at      timestamptz,
    -- When every destination that mirrors invoices had confirmed its copy; null
    -- while a copy is missing, and if no destination mirrors invoices.
    mirrored_at     timestamptz,
    first_receipt   uuid not null,
    last_receipt    uuid not null,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

-- Without a document id, the number identifies the invoice. With one, two
-- documents may have the same number: a bill that was deleted and entered again,
-- two vendors of one name, two documents that swapped numbers.
create unique index invoices_natural_key
    on invoices (source, tenant, vendor, invoice_number, generation)
    where document_id is null;
create index invoices_number on invoices (invoice_number);
create index invoices_document on invoices (document_id) where document_id is not null;

comment on table invoices is 'Current state of every invoice';
comment on column invoices.invoice_id is 'Our id of the invoice, a UUID v5';
comment on column invoices.generation is 'Issue number; higher than 0 if the sender issued the number again';
comment on column invoices.document_id is 'The platform''s own id of the document';
comment on column invoices.version is 'The platform''s time of this state';
comment on column invoices.deleted_at is 'When the platform deleted the invoice; null while it exists';
comment on column invoices.mirrored_at is
    'When every mirroring destination had confirmed its copy; null while one is missing';

-- Changes that thin events announce. A thin event says that a resource changed,
-- not what it is now. One row for each resource, with its latest change.
create table resource_changes (
    source        text not null,
    -- Whose id it is: the kind of the source, or its profile.
    platform      text not null check (platform <> ''),
    tenant        text not null,
    -- The kind of resource: 'invoice', 'order', 'customer', ...
    kind          text not null check (kind <> ''),
    -- The platform's id of the resource.
    id            text not null check (id <> ''),
    -- The platform's version count of the resource, if it sends one.
    version       bigint,
    changed_at    timestamptz not null,
    -- What happened: 'created', 'updated', 'deleted', ...
    action        text not null check (action <> ''),
    first_receipt uuid not null,
    last_receipt  uuid not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now(),
    primary key (source, tenant, kind, id)
) with (fillfactor = 85);

create index resource_changes_id on resource_changes (id);

comment on table resource_changes is 'Latest change of each resource that a thin event announced';

-- The documents as JSON objects, as destinations receive them. Amounts are
-- strings: many JSON parsers turn numbers into floats.
create function invoice_document(invoice invoices) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'invoice_id', invoice.invoice_id, 'source', invoice.source, 'tenant', invoice.tenant,
        'vendor', invoice.vendor, 'number', invoice.invoice_number,
        'document_id', invoice.document_id, 'transaction_id', invoice.transaction_id,
        'status', invoice.status, 'platform_status', invoice.platform_status,
        'currency', invoice.currency, 'total', invoice.total::text, 'due_on', invoice.due_on,
        'version', invoice.version, 'deleted_at', invoice.deleted_at)
$$;

create function order_document(shop_order orders) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'order_id', shop_order.order_id, 'source', shop_order.source,
        'tenant', shop_order.tenant, 'number', shop_order.number,
        'status', shop_order.status, 'platform_status', shop_order.platform_status,
        'currency', shop_order.currency, 'total', shop_order.total::text,
        'refunded', shop_order.refunded::text, 'customer_ref', shop_order.customer_ref,
        'payment_ref', shop_order.payment_ref, 'placed_at', shop_order.placed_at,
        'version', shop_order.version, 'lines', shop_order.lines,
        'deleted_at', shop_order.deleted_at)
$$;

create function refund_document(refund refunds) returns jsonb language sql stable as $$
    select jsonb_build_object(
        'refund_id', refund.refund_id, 'source', refund.source, 'tenant', refund.tenant,
        'order_id', refund.order_id, 'payment_ref', refund.payment_ref,
        'status', refund.status, 'platform_status', refund.platform_status,
        'currency', refund.currency, 'amount', refund.amount::text, 'version', refund.version)
$$;
