-- The schema both gateways and the admin API work on. Rules that must hold are constraints.
--
-- `source_*` tables belong to the source gateway and live in its own database where it runs alone; everything else
-- belongs to the recovery site, which holds the truth about mailboxes, sides, runs and people.

create table tenant (
    tenant_id bigint generated always as identity primary key,
    name text not null constraint tenant_name_unique unique,
    created_at timestamptz not null default now()
);

insert into tenant (name) values ('default');

-- People and programs -------------------------------------------------------------------------------------------------

-- An API token; only its BLAKE3 digest is kept.
create table token (
    token_id bigint generated always as identity primary key,
    tenant_id bigint not null default 1 references tenant,
    name text not null,
    role text not null constraint token_role_known
        check (role in ('viewer', 'operator', 'administrator', 'billing', 'auditor', 'user')),
    digest bytea not null constraint token_digest_unique unique,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    constraint token_name_unique unique (tenant_id, name)
);

-- The answer to a POST already carried out, for `Idempotency-Key`.
create table idempotency (
    tenant_id bigint not null references tenant,
    key text not null,
    request_digest bytea not null,
    status int not null,
    response jsonb not null,
    location text,
    created_at timestamptz not null default now(),
    primary key (tenant_id, key)
);

-- Mail servers --------------------------------------------------------------------------------------------------------

create table server (
    server_id bigint generated always as identity primary key,
    tenant_id bigint not null default 1 references tenant,
    name text not null,
    role text not null constraint server_role_known check (role in ('primary', 'standby')),
    -- The whole `protocol::server::Server`; it names files with secrets, never secrets.
    definition jsonb not null,
    -- Comes from the configuration file, which is then the only place to change it.
    configured boolean not null default false,
    last_check jsonb,
    last_checked_at timestamptz,
    created_at timestamptz not null default now(),
    constraint server_name_unique unique (tenant_id, name)
);

-- Mailboxes -----------------------------------------------------------------------------------------------------------

create table mailbox (
    mailbox_id bigint generated always as identity primary key,
    tenant_id bigint not null default 1 references tenant,
    address text not null,
    primary_server_id bigint not null references server,
    standby_server_id bigint not null references server,
    -- The log-in on the standby; the same as `address` unless said otherwise.
    standby_address text not null,
    policy text not null default 'default',
    group_name text not null default '',
    phase text not null default 'seeding' constraint mailbox_phase_known
        check (phase in ('seeding', 'mirroring', 'switching_over', 'on_standby', 'switching_back')),
    paused boolean not null default false,
    held boolean not null default false,
    -- Rises when a person asks to try again at once.
    attempt int not null default 1,
    epoch bigint not null default 1,
    -- What stands in the way on each leg: {kind, reason, remedy, fault}; null when nothing does.
    source_trouble jsonb,
    standby_trouble jsonb,
    -- As every interface shows it: the first of these that applies.
    state text not null generated always as (
        case
            when phase in ('switching_over', 'on_standby', 'switching_back') then phase
            when paused then 'paused'
            when held then 'held'
            when coalesce((source_trouble ->> 'fault')::boolean, false)
                or coalesce((standby_trouble ->> 'fault')::boolean, false) then 'faulted'
            else phase
        end
    ) stored,
    capability text not null default '',
    uid_continuity boolean not null default false,
    -- The journal of the direction in use, as numbers.
    captured_seq bigint not null default 0,
    received_seq bigint not null default 0,
    applied_seq bigint not null default 0,
    messages_done bigint not null default 0,
    messages_total bigint not null default 0,
    bytes_done bigint not null default 0,
    bytes_total bigint not null default 0,
    -- The seq with which the first full copy ended at the source; the mailbox is mirroring once it is applied.
    seeded_seq bigint,
    swept_at timestamptz,
    last_transaction_at timestamptz,
    last_verified_at timestamptz,
    -- Unprotected: nothing more is done, rows wait to be cleaned away.
    unprotected_at timestamptz,
    created_at timestamptz not null default now(),
    constraint mailbox_journal_in_order check (applied_seq <= received_seq)
);

create unique index mailbox_address_unique on mailbox (tenant_id, primary_server_id, address) where unprotected_at is null;
create index mailbox_address_any_case on mailbox (tenant_id, lower(address)) where unprotected_at is null;
create unique index mailbox_standby_unique on mailbox (standby_server_id, standby_address) where unprotected_at is null;
create index mailbox_behind on mailbox (mailbox_id) where applied_seq < received_seq;

-- The journal at the recovery site. Rows are kept as long as history is.
create table transaction (
    mailbox_id bigint not null references mailbox,
    direction text not null constraint transaction_direction_known check (direction in ('outbound', 'return')),
    seq bigint not null constraint transaction_seq_from_one check (seq > 0),
    epoch bigint not null,
    seed boolean not null,
    -- `protocol::Transaction` by `protocol::codec`.
    body bytea not null,
    changes int not null,
    -- Content bytes named by its additions.
    content_bytes bigint not null default 0,
    captured_at timestamptz not null,
    received_at timestamptz not null default now(),
    applied_at timestamptz,
    -- What "exactly once" rests on.
    constraint transaction_once primary key (mailbox_id, direction, seq)
);

create index transaction_waiting on transaction (mailbox_id, direction, seq) where applied_at is null;

-- What was noted on the standby before the effects of the transaction at hand began; at most one a mailbox.
create table intent (
    mailbox_id bigint primary key references mailbox,
    direction text not null,
    seq bigint not null,
    -- Per folder that gets messages: its standby UIDVALIDITY and the UIDNEXT from which new ones are ours.
    folders jsonb not null,
    begun_at timestamptz not null default now()
);

-- The mirror as applied: folders, messages (the UID map) and subscriptions.
create table mirror_folder (
    mailbox_id bigint not null references mailbox,
    folder_id int not null,
    path jsonb not null,
    uid_validity bigint not null,
    special_use text[] not null default '{}',
    selectable boolean not null default true,
    -- Position of the primary's server journal as of the applied transaction.
    position_mod_seq bigint not null default 0,
    position_uid_next bigint not null default 1,
    -- The standby's own name and numbers for it.
    standby_name text not null,
    standby_uid_validity bigint not null default 0,
    standby_uid_next bigint not null default 1,
    primary key (mailbox_id, folder_id)
);

create table mirror_message (
    mailbox_id bigint not null,
    folder_id int not null,
    uid bigint not null,
    -- Null while set aside: the standby refused it.
    standby_uid bigint,
    digest bytea not null,
    size bigint not null,
    flags text[] not null default '{}',
    internal_date text not null,
    -- Why the standby does not hold it as it is: `refused` or `altered`, and the reason; null when it does.
    set_aside text constraint mirror_message_set_aside_known check (set_aside in ('refused', 'altered')),
    set_aside_reason text not null default '',
    primary key (mailbox_id, folder_id, uid),
    constraint mirror_message_folder foreign key (mailbox_id, folder_id) references mirror_folder on delete cascade
);

create index mirror_message_set_aside on mirror_message (mailbox_id) where set_aside is not null;

-- A message found on the standby that no transaction put there: from before protection, or appended right before a
-- crash. An addition with the same content takes it over instead of appending it again.
create table mirror_stray (
    mailbox_id bigint not null,
    folder_id int not null,
    standby_uid bigint not null,
    digest bytea not null,
    -- The digest without CR and LF and with NUL as 0x80, as some servers store what they are given.
    loose_digest bytea not null,
    primary key (mailbox_id, folder_id, standby_uid),
    constraint mirror_stray_folder foreign key (mailbox_id, folder_id) references mirror_folder on delete cascade
);

create table mirror_subscription (
    mailbox_id bigint not null references mailbox,
    path jsonb not null,
    primary key (mailbox_id, path)
);

-- Content -------------------------------------------------------------------------------------------------------------

-- Many contents rest in one pack file; a row is written only after the file is synced.
create table content (
    tenant_id bigint not null references tenant,
    digest bytea not null,
    size bigint not null,
    pack text not null,
    pack_offset bigint not null,
    stored_at timestamptz not null default now(),
    primary key (tenant_id, digest)
);

-- Work somebody asked for ---------------------------------------------------------------------------------------------

create table run (
    run_id uuid primary key,
    tenant_id bigint not null default 1 references tenant,
    kind text not null,
    mailbox_id bigint references mailbox,
    server_id bigint references server on delete set null,
    request jsonb not null default '{}',
    reason text not null default '',
    state text not null default 'waiting' constraint run_state_known
        check (state in ('waiting', 'running', 'done', 'failed', 'cancelled')),
    -- What came of it; for a failed run {reason, remedy}.
    result jsonb,
    cancel_requested boolean not null default false,
    created_at timestamptz not null default now(),
    started_at timestamptz,
    ended_at timestamptz,
    requested_by text not null default ''
);

create index run_open on run (created_at) where state in ('waiting', 'running');
create index run_newest on run (tenant_id, created_at desc);

create table run_step (
    run_id uuid not null references run on delete cascade,
    position int not null,
    name text not null,
    mailbox_id bigint references mailbox,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    outcome text not null default '',
    primary key (run_id, position)
);

-- What people see happening: state changes, troubles, run steps. Fine-grained lag is not stored, it is derived.
create table event (
    event_id bigint generated always as identity primary key,
    tenant_id bigint not null default 1 references tenant,
    kind text not null,
    mailbox_id bigint references mailbox,
    run_id uuid,
    detail jsonb not null default '{}',
    created_at timestamptz not null default now()
);

create index event_of_mailbox on event (mailbox_id, event_id desc);

-- Written by the recovery gateway: when a source gateway was last heard of, and the version of its directives.
create table link (
    link_id int primary key default 1 constraint link_single check (link_id = 1),
    gateway uuid,
    product_version text not null default '',
    hello_at timestamptz,
    heard_at timestamptz
);

insert into link default values;

-- Rises with anything a source gateway must learn of: mailboxes, servers, requests.
create sequence directive_version;

-- The source gateway --------------------------------------------------------------------------------------------------

create table source_mailbox (
    mailbox_id bigint primary key,
    tenant_id bigint not null,
    epoch bigint not null,
    -- Last number given out; and what the recovery site acknowledged.
    captured_seq bigint not null default 0,
    received_seq bigint not null default 0,
    next_folder_id int not null default 1,
    seeded boolean not null default false,
    constraint source_mailbox_in_order check (received_seq <= captured_seq)
);

create table source_folder (
    mailbox_id bigint not null references source_mailbox on delete cascade,
    folder_id int not null,
    path jsonb not null,
    identity text,
    uid_validity bigint not null,
    mod_seq bigint not null default 0,
    uid_next bigint not null default 1,
    special_use text[] not null default '{}',
    selectable boolean not null default true,
    -- How many rows of `source_message` it has: to be compared with what the server counts.
    messages bigint not null default 0,
    bytes bigint not null default 0,
    -- Everything that was there when the folder was first seen has been captured.
    seeded boolean not null default false,
    primary key (mailbox_id, folder_id)
);

create table source_message (
    mailbox_id bigint not null,
    folder_id int not null,
    uid bigint not null,
    identity text,
    digest bytea not null,
    size bigint not null,
    flags text[] not null default '{}',
    primary key (mailbox_id, folder_id, uid),
    constraint source_message_folder foreign key (mailbox_id, folder_id) references source_folder on delete cascade
);

create index source_message_identity on source_message (mailbox_id, identity) where identity is not null;
-- Only where the server names no identities are contents recognised by their digest.
create index source_message_digest on source_message (mailbox_id, digest) where identity is null;

create table source_subscription (
    mailbox_id bigint not null references source_mailbox on delete cascade,
    path jsonb not null,
    primary key (mailbox_id, path)
);

-- The journal at the source: captured, not yet received.
create table source_transaction (
    mailbox_id bigint not null references source_mailbox on delete cascade,
    seq bigint not null constraint source_transaction_seq_from_one check (seq > 0),
    body bytea not null,
    -- Small contents lie here one after the other; larger ones in the spool file of that name. Never both.
    content bytea,
    spool text,
    -- What lies there and where it begins: a list of (`protocol::ContentRef`, offset) by `protocol::codec`.
    contents bytea not null default ''::bytea,
    content_bytes bigint not null default 0,
    captured_at timestamptz not null default now(),
    constraint source_transaction_once primary key (mailbox_id, seq)
);

-- Mail compresses badly and slowly by row; contents are kept as they come.
alter table source_transaction alter column content set storage external;
alter table source_transaction alter column body set storage external;
alter table transaction alter column body set storage external;
