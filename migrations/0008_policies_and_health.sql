-- How mailboxes are treated, what watching their servers found, and votes of further witnesses.

create table policy (
    tenant_id bigint not null references tenant,
    name text not null,
    -- A `protocol::policy::Policy`; what lacks is as in the built-in one.
    document jsonb not null default '{}' constraint policy_object check (jsonb_typeof(document) = 'object'),
    changed_at timestamptz not null default now(),
    primary key (tenant_id, name)
);

-- Names that mailboxes have already go on meaning something.
insert into policy (tenant_id, name)
select tenant_id, 'default' from tenant union select tenant_id, policy from mailbox where unprotected_at is null;

-- Lower is moved earlier: a mailbox has the priority that its policy says.
create function policy_priority(tenant bigint, policy text) returns int language sql stable as $$
    select coalesce((select (p.document ->> 'priority')::int from policy p
                     where p.tenant_id = tenant and p.name = policy_priority.policy), 100)
$$;

create function mailbox_takes_priority() returns trigger language plpgsql as $$
begin
    new.priority := policy_priority(new.tenant_id, new.policy);
    return new;
end $$;

create trigger mailbox_priority before insert or update of policy on mailbox
    for each row execute function mailbox_takes_priority();

create function policy_gives_priority() returns trigger language plpgsql as $$
begin
    update mailbox set priority = policy_priority(new.tenant_id, new.name)
    where tenant_id = new.tenant_id and policy = new.name
      and priority <> policy_priority(new.tenant_id, new.name);
    return null;
end $$;

create trigger policy_priority after insert or update of document on policy
    for each row execute function policy_gives_priority();

-- What checks of a server found, minute by minute.
create table health_minute (
    server_id bigint not null references server on delete cascade,
    -- `recovery`, `source`, or the name a witness gave itself.
    observer text not null,
    -- `quick` or `deep`.
    kind text not null,
    minute timestamptz not null,
    good int not null default 0,
    bad int not null default 0,
    seconds_sum float8 not null default 0,
    seconds_max float8 not null default 0,
    -- Why the last bad one failed.
    reason text not null default '',
    primary key (server_id, observer, kind, minute)
);

create index health_minute_old on health_minute (minute);

-- What a further witness says of a server. Read by the recovery gateway as they come, and dropped after an hour.
create table vote (
    vote_id bigint generated always as identity primary key,
    server_id bigint not null references server on delete cascade,
    observer text not null,
    is_up boolean not null,
    seconds float8 not null,
    reason text not null default '',
    received_at timestamptz not null default clock_timestamp()
);

-- What the watch over each server says now, for people: {verdict, since, observers, fence, decisions}.
alter table server add column health jsonb;
