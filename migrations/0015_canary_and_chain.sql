-- Canary mailboxes, which prove the pipeline end to end; and what each transaction says of the one before it.

-- A protected mailbox into which the recovery gateway writes a message at a set pace, to see it come out on the standby.
create table canary (
    mailbox_id bigint primary key references mailbox on delete cascade,
    every_seconds double precision not null constraint canary_every_positive check (every_seconds > 0),
    within_seconds double precision not null constraint canary_within_positive check (within_seconds > 0),
    -- When it is looked after next.
    turn_at timestamptz not null default now(),
    -- No canary any more: its messages are still to be removed from the primary.
    ended_at timestamptz,
    -- Since when nothing can be written to the primary.
    failing_since timestamptz,
    last_seen_at timestamptz,
    -- From its writing until it was seen on the standby: the last one that arrived.
    last_seconds double precision,
    seen_total bigint not null default 0,
    late_total bigint not null default 0,
    -- Where the one on its way stopped, since when: {place, reason, remedy, since}; null while none is late.
    late jsonb,
    created_at timestamptz not null default now()
);

create index canary_turn on canary (turn_at);

-- A message that we wrote, or were about to write, into a canary mailbox, until it is removed there.
create table canary_message (
    canary_message_id bigint generated always as identity primary key,
    mailbox_id bigint not null references canary on delete cascade,
    -- The whole message.
    body bytea not null,
    -- Where it can be on the primary: INBOX's numbers right before it was written.
    primary_uid_validity bigint not null,
    primary_uid_next bigint not null,
    -- The last number received before it was written.
    received_seq bigint not null,
    begun_at timestamptz not null default now(),
    -- Null while nobody knows whether it was written.
    primary_uid bigint,
    written_at timestamptz,
    -- It was seen on the standby, or nobody waits for it any more: it is to be removed.
    ended_at timestamptz
);

create index canary_message_of on canary_message (mailbox_id, canary_message_id);

-- When a second source gateway was last turned away.
alter table link add column turned_away_at timestamptz;

-- Two journals that agree in their numbers may still not be the same one: each transaction names the digest of the one before
-- it. Empty while unknown, as in journals from before.
alter table mailbox add column received_digest bytea not null default ''::bytea;
alter table source_mailbox add column captured_digest bytea not null default ''::bytea;
