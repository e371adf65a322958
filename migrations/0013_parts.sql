-- Messages that rest as a skeleton and parts, and what crossed the link for whom.

-- The key of the digests of this tenant's parts: who does not have it cannot ask for a known file. 244 random bits, hashed.
alter table tenant add column part_key bytea not null
    default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));

alter table content
    -- `whole`: a message as it is. `skeleton`: digest and size are the message's; in the pack lie its recipe and what is in no part.
    -- `part`: what some messages have in common, unwrapped; its digest is keyed.
    add column form text not null default 'whole' constraint content_form_known check (form in ('whole', 'skeleton', 'part')),
    -- Bytes in the pack.
    add column skeleton_size bigint constraint content_skeleton_size check ((skeleton_size is not null) = (form = 'skeleton')),
    add column stored bigint generated always as (coalesce(skeleton_size, size)) stored;

-- Which parts a message is rebuilt from. A part that is named cannot be removed.
create table content_part (
    tenant_id bigint not null,
    digest bytea not null,
    part bytea not null,
    primary key (tenant_id, digest, part),
    constraint content_part_message foreign key (tenant_id, digest) references content (tenant_id, digest) on delete cascade,
    constraint content_part_part foreign key (tenant_id, part) references content (tenant_id, digest)
);
create index content_part_named on content_part (tenant_id, part);

-- A message that came whole in place of a damaged skeleton needs its parts no more.
create function content_came_whole() returns trigger language plpgsql as $$
begin
    delete from content_part where tenant_id = new.tenant_id and digest = new.digest;
    return null;
end $$;
create trigger content_came_whole after update of form on content
    for each row when (old.form = 'skeleton' and new.form = 'whole') execute function content_came_whole();

-- What additions named since protection began, in bytes of the messages as servers hold them, and what became of it on the link.
create table mailbox_traffic (
    mailbox_id bigint primary key references mailbox on delete cascade,
    message_bytes bigint not null default 0,
    -- Crossed the link.
    new_bytes bigint not null default 0,
    -- Needed no crossing: it had been here.
    deduplicated_bytes bigint not null default 0,
    -- Saved by unwrapping and compression.
    compressed_bytes bigint not null default 0
);

-- At the source: parts that the recovery site acknowledged.
create table source_part (
    tenant_id bigint not null,
    digest bytea not null,
    acknowledged_at timestamptz not null default now(),
    primary key (tenant_id, digest)
);
