-- The content store: encrypted at rest, cleared of what nobody names any more, looked through for damage.

-- A data key of a tenant, wrapped by a master key that is kept elsewhere. Contents are sealed with the newest one.
create table content_key (
    key_id bigint generated always as identity primary key,
    tenant_id bigint not null references tenant,
    -- Which master key wraps it: a fingerprint, never the key.
    master text not null,
    -- Nonce, sealed key and tag.
    wrapped bytea not null,
    created_at timestamptz not null default now()
);

create index content_key_of_tenant on content_key (tenant_id, key_id);

alter table content
    -- The data key it is sealed with; null where it rests in the clear.
    add column key_id bigint references content_key,
    -- Since when nobody has named it; it is removed after the grace period.
    add column unnamed_since timestamptz,
    -- It was found to be no longer what it was. One that comes again takes its place.
    add column damaged_at timestamptz;

create index content_by_pack on content (pack);
create index content_unnamed on content (unnamed_since) where unnamed_since is not null;
create index content_damaged on content (tenant_id, digest) where damaged_at is not null;

-- When a pack was last looked through.
create table content_pack (
    pack text primary key,
    scrubbed_at timestamptz not null default now()
);

-- Written by the recovery gateway: how the store is, for everybody who asks.
create table content_state (
    state_id int primary key default 1 constraint content_state_single check (state_id = 1),
    -- `file`, or `s3://bucket/prefix`.
    place text not null default '',
    encrypted boolean not null default false,
    -- Since when nothing can be taken in, and why: {kind, reason, remedy}.
    refusing_since timestamptz,
    refusing jsonb,
    swept_at timestamptz,
    removed_bytes bigint not null default 0,
    constraint content_state_refusing check ((refusing is null) = (refusing_since is null))
);

insert into content_state default values;

-- The source gateway -------------------------------------------------------------------------------------------------

-- Part of a first copy: live changes go before.
alter table source_transaction add column seed boolean not null default false;
