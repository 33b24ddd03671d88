-- Dead letters and what people did about them.
--
--            archive                replay               applied, duplicate, stale, ignored
--   (queue) ---------> open ------------------> replayed ------------------> resolved
--                      ^  |                        |
--                      |  | discard                | fails again
--                      |  v                        |
--                      |  discarded                |
--                      +---------------------------+
--
-- A letter leaves `open` only by a person's act.

create table replays (
    replay_id    uuid primary key,
    requested_by text not null check (requested_by <> ''),
    reason       text not null,
    -- The filter as it was given, for the record.
    filter       jsonb not null,
    -- How many letters it was to send again.
    letters      integer not null check (letters >= 0),
    requested_at timestamptz not null default now()
);

create table dead_letters (
    dead_letter_id  uuid primary key,
    -- The message it is: archiving the same message twice makes one row.
    receipt_id      uuid not null unique,
    event_key       text not null,
    source          text not null,
    tenant          text not null,
    topic           text not null,
    business_key    text,
    reason          text not null check (reason ~ '^[a-z_]+$'),
    -- The error and its causes, outermost first.
    error           text not null,
    attempts        integer not null check (attempts >= 0),
    state           text not null default 'open' check (state in (
        'open', 'replayed', 'resolved', 'discarded')),
    received_at     timestamptz not null,
    first_failed_at timestamptz not null,
    last_failed_at  timestamptz not null,
    -- The AMQP properties and headers it carried.
    headers         jsonb not null,
    payload         bytea compression lz4 not null,
    -- The newest replay that sent it again.
    replay_id       uuid references replays,
    -- What the replay came to.
    outcome         text check (outcome in ('applied', 'duplicate', 'stale', 'ignored')),
    closed_at       timestamptz,
    constraint dead_letters_replayed check (state <> 'replayed' or replay_id is not null),
    constraint dead_letters_resolved check ((state = 'resolved') = (outcome is not null)),
    constraint dead_letters_closed check
        ((state in ('resolved', 'discarded')) = (closed_at is not null))
);

create index dead_letters_waiting on dead_letters (reason, state, first_failed_at)
    where state in ('open', 'replayed');
create index dead_letters_event_key on dead_letters (event_key);
create index dead_letters_business_key on dead_letters (business_key);
create index dead_letters_replay on dead_letters (replay_id) where replay_id is not null;

-- Who did what to which letters, when and why. Only ever added to.
create table audit_log (
    audit_id       bigint generated always as identity primary key,
    at             timestamptz not null default now(),
    actor          text not null check (actor <> ''),
    act            text not null,
    reason         text not null,
    dead_letter_id uuid references dead_letters,
    detail         jsonb not null default '{}'
);

create index audit_log_dead_letter on audit_log (dead_letter_id);
