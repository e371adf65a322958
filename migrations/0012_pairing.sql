-- Paired sites ---------------------------------------------------------------------------------------------------------

-- What people and the admin role know of the recovery gateway's own keys; the keys themselves are in files.
create table link_authority (
    link_id int primary key default 1 constraint link_authority_single check (link_id = 1),
    fingerprint bytea not null,
    expires_at timestamptz not null,
    -- The recovery gateway's own certificate of the moment, signed by that authority.
    served_fingerprint bytea not null,
    served_expires_at timestamptz not null,
    -- Where it listens; false: in clear text, on this machine only.
    listen text not null,
    encrypted boolean not null
);

-- A source gateway that was paired.
create table link_peer (
    peer_id uuid primary key,
    name text not null,
    product_version text not null default '',
    -- From where it was paired, and from where it last came.
    joined_from text not null,
    joined_at timestamptz not null default now(),
    connected_from text,
    connected_at timestamptz,
    revoked_at timestamptz,
    revoked_by text,
    warned_at timestamptz
);

-- A name is free again once its site was revoked.
create unique index link_peer_name_unique on link_peer (name) where revoked_at is null;

-- Every certificate signed for a peer: one that is not here is refused, whoever signed it.
create table link_certificate (
    fingerprint bytea primary key,
    peer_id uuid not null references link_peer,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null
);

create index link_certificate_peer on link_certificate (peer_id, expires_at desc);

-- One-time tokens. Only the digest of the secret is kept.
create table link_invitation (
    invitation_id uuid primary key,
    secret_digest bytea not null constraint link_invitation_secret_unique unique,
    -- What the site will be called; empty: what it calls itself.
    name text not null default '',
    created_by text not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    withdrawn_at timestamptz,
    used_at timestamptz,
    -- Digest of the public key it was used with: the same one may ask again when the answer was lost.
    used_with bytea,
    peer_id uuid references link_peer
);

-- What the link may use of the line, by calendar; empty: no limit.
create table link_limit (
    link_id int primary key default 1 constraint link_limit_single check (link_id = 1),
    wire text not null default '',
    seeding text not null default '',
    changed_at timestamptz not null default now(),
    changed_by text not null default ''
);

insert into link_limit default values;

-- How the source gateway sees its ways here, the best first; replaced as a whole.
create table link_path (
    position int primary key,
    url text not null,
    state text not null,
    reason text,
    since timestamptz not null,
    round_trip_ms double precision
);

-- Bytes on the wire: of the process life that counts now, and of all before it.
create table link_bytes (
    direction text not null,
    kind text not null,
    gateway uuid not null,
    of_life bigint not null default 0,
    before bigint not null default 0,
    primary key (direction, kind)
);

create trigger audit_link_peer after insert or update of revoked_at on link_peer
    for each row execute function audit_change('paired site', 'name', 'name', 'joined_from', 'revoked_at');
create trigger audit_link_invitation after insert or update of withdrawn_at, used_at on link_invitation
    for each row execute function audit_change('invitation', 'invitation_id', 'name', 'expires_at', 'withdrawn_at',
        'used_at');
create trigger audit_link_limit after update on link_limit
    for each row execute function audit_change('link limit', 'link_id', 'wire', 'seeding');
