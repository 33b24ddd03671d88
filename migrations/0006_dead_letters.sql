-- Dead letters, and the record of what operators did.
--
--   dead-letter queue --- archived ---> open
--
--   open --------- operator: replay ----> replayed
--   replayed ----- processed -----------> resolved   (outcome says how)
--   replayed ----- failed again --------> open
--   open --------- operator: discard ---> discarded
--
-- A dead letter leaves `open` only by an operator's action.

-- One row for each replay run: one command of an operator, for one or more dead
-- letters or failed deliveries.
create table replays (
    replay_id    uuid primary key,
    requested_by text not null check (requested_by <> ''),
    -- The operator's comment.
    comment      text not null,
    -- The filter that selected the dead letters, as given.
    filter       jsonb not null,
    -- How many dead letters the filter selected.
    letter_count integer not null check (letter_count >= 0),
    requested_at timestamptz not null default now()
);

comment on table replays is 'Replay runs of operators';
comment on column replays.comment is 'The operator''s comment';

create table dead_letters (
    dead_letter_id  uuid primary key,
    -- The receipt of the message. Archiving a message twice inserts one row. For a
    -- failed delivery, the delivery's id, which is no receipt.
    receipt_id      uuid not null unique,
    -- The failed delivery; null for a message that came in.
    delivery_id     uuid unique references deliveries,
    -- The event key; for a delivery, its idempotency key.
    event_key       text not null,
    source          text not null,
    tenant          text not null,
    -- The event type; for a delivery, its event.
    topic           text not null,
    -- The number of the order or invoice, if it could be read.
    business_key    text,
    -- Why it failed, as a stable code: invalid_json, missing_field, ...
    reason          text not null check (reason ~ '^[a-z_]+$'),
    -- The error and its causes, outermost first.
    error           text not null,
    -- How many attempts failed.
    attempts        integer not null check (attempts >= 0),
    state           text not null default 'open' check (state in (
        'open', 'replayed', 'resolved', 'discarded')),
    received_at     timestamptz not null,
    first_failed_at timestamptz not null,
    last_failed_at  timestamptz not null,
    -- The AMQP properties and headers; for a delivery, its destination, issue and
    -- last response.
    headers         jsonb not null,
    -- The raw body; for a delivery, the request.
    payload         bytea compression lz4 not null,
    -- The latest replay run that sent it again.
    replay_id       uuid references replays,
    -- The outcome of that replay.
    outcome         text check (outcome in ('applied', 'duplicate', 'stale', 'ignored')),
    -- When it was resolved or discarded.
    closed_at       timestamptz,
    constraint dead_letters_replayed check (state <> 'replayed' or replay_id is not null),
    constraint dead_letters_resolved check ((state = 'resolved') = (outcome is not null)),
    constraint dead_letters_closed check
        ((state in ('resolved', 'discarded')) = (closed_at is not null))
);

create index dead_letters_unresolved on dead_letters (reason, state, first_failed_at)
    where state in ('open', 'replayed');
create index dead_letters_event_key on dead_letters (event_key);
create index dead_letters_business_key on dead_letters (business_key);
create index dead_letters_replay on dead_letters (replay_id) where replay_id is not null;

comment on table dead_letters is 'Messages and deliveries that failed for good';
comment on column dead_letters.delivery_id is 'The failed delivery; null for a message that came in';
comment on column dead_letters.reason is 'Why it failed, as a stable code';
comment on column dead_letters.error is 'The error and its causes, outermost first';
comment on column dead_letters.state is 'open, replayed, resolved or discarded';
comment on column dead_letters.outcome is 'Outcome of the replay that resolved it';

-- What operators did: who, when and with which comment. Rows are only inserted.
create table audit_log (
    audit_id       bigint generated always as identity primary key,
    at             timestamptz not null default now(),
    actor          text not null check (actor <> ''),
    -- replay, discard, void, reissue or release.
    action         text not null check (action ~ '^[a-z_]+$'),
    -- The operator's comment.
    comment        text not null,
    dead_letter_id uuid references dead_letters,
    delivery_id    uuid references deliveries,
    -- More about the action: the replay run, the new delivery of a re-issue and
    -- the look-up before it, the receipt of a quarantined request.
    detail         jsonb not null default '{}'
);

create index audit_log_dead_letter on audit_log (dead_letter_id);
create index audit_log_delivery on audit_log (delivery_id) where delivery_id is not null;

comment on table audit_log is 'What operators did: who, when and with which comment';
comment on column audit_log.action is 'replay, discard, void, reissue or release';
comment on column audit_log.comment is 'The operator''s comment';
