-- Routes: on which side a mailbox's user works, and how front doors ask.
--
-- Front doors call `route_lookup` (Dovecot) or reach `route_resolve` through the API (nginx); both spell log-ins in
-- `route_find`, so that every form of one user reaches the same side.

create table route (
    mailbox_id bigint primary key references mailbox on delete cascade,
    tenant_id bigint not null references tenant,
    side text not null default 'primary' constraint route_side_known check (side in ('primary', 'standby')),
    -- `hold`: new log-ins and deliveries wait. A front door that takes part in SQL waits for the row's lock; one that
    -- does not goes by this and `hold_until`, after which nobody changes sides any more.
    state text not null default 'active' constraint route_state_known check (state in ('active', 'hold')),
    hold_until timestamptz,
    -- Rises with every change of side; `mailbox.epoch` is the same number.
    epoch bigint not null default 1,
    changed_at timestamptz not null default clock_timestamp(),
    constraint route_hold_ends check ((state = 'hold') = (hold_until is not null))
);

create index route_of_tenant on route (tenant_id, mailbox_id);
create index route_on_standby on route (mailbox_id) where side = 'standby';

insert into route (mailbox_id, tenant_id, side, epoch)
select mailbox_id, tenant_id, case when phase in ('on_standby', 'switching_back') then 'standby' else 'primary' end, epoch
from mailbox where unprotected_at is null;

-- A protected mailbox has a route, from the first moment to the last.
create function route_follows_mailbox() returns trigger language plpgsql as $$
begin
    if new.unprotected_at is null then
        insert into route (mailbox_id, tenant_id, epoch) values (new.mailbox_id, new.tenant_id, new.epoch)
        on conflict (mailbox_id) do nothing;
    else
        delete from route where mailbox_id = new.mailbox_id;
    end if;
    return null;
end $$;

create trigger route_follows_mailbox after insert or update of unprotected_at on mailbox
for each row execute function route_follows_mailbox();

-- Who keeps routes elsewhere (a routes file, waiting log-ins) hears of each change.
create function route_is_announced() returns trigger language plpgsql as $$
begin
    perform pg_notify('understudy_route', coalesce(new.mailbox_id, old.mailbox_id)::text);
    return null;
end $$;

create trigger route_is_announced after insert or update or delete on route
for each row execute function route_is_announced();

-- More names by which a user logs in or gets mail; lower case.
create table mailbox_alias (
    tenant_id bigint not null references tenant,
    alias text not null constraint mailbox_alias_lower_case check (alias = lower(alias) and alias <> ''),
    mailbox_id bigint not null references mailbox on delete cascade,
    primary key (tenant_id, alias)
);

create index mailbox_alias_by_name on mailbox_alias (alias);
create index mailbox_alias_of_mailbox on mailbox_alias (mailbox_id);
create index mailbox_log_in on mailbox (lower(address)) where unprotected_at is null;

-- A mail domain: `ana@example.org` and `ana` are the same user of its primary (of any, where none is named).
create table mail_domain (
    domain text primary key constraint mail_domain_lower_case check (domain = lower(domain) and domain <> ''),
    tenant_id bigint not null default 1 references tenant,
    server_id bigint references server on delete cascade
);

-- Clients that are treated in their own way: `primary` always sees the primary, whatever the route says; `bypass` may
-- log in as `ana!primary` or `ana!standby`.
create table route_client (
    network cidr not null,
    treatment text not null constraint route_client_treatment_known check (treatment in ('primary', 'bypass')),
    primary key (network, treatment)
);

create table front_door (
    front_door_id bigint generated always as identity primary key,
    tenant_id bigint not null default 1 references tenant,
    name text not null,
    kind text not null constraint front_door_kind_known check (kind in ('dovecot', 'nginx')),
    -- A Dovecot proxy's management interface, through which single users are cut.
    doveadm text,
    key_file text,
    ca_file text,
    -- The address from which an nginx door reaches the mail servers: its sessions are ended there.
    source text,
    -- Where users reach it, for checks: a URL of IMAP.
    imap text,
    configured boolean not null default false,
    constraint front_door_name_unique unique (tenant_id, name),
    constraint front_door_key check ((doveadm is null) = (key_file is null))
);

-- What a log-in says: which mailbox, which side it asks for by `!primary` or `!standby`, which master user it names.
-- Upper case, a plus-address, an alias, the bare name and the whole address all mean the same mailbox.
create function route_find(login text, out mailbox_id bigint, out name text, out asked text, out master text)
language plpgsql stable as $$
declare
    typed text := regexp_replace(split_part(login, '*', 1), '!(primary|standby)$', '');
    spelled text;
    found_ids bigint[];
begin
    name := lower(split_part(login, '*', 1));
    master := nullif(substr(login, length(split_part(login, '*', 1)) + 2), '');
    asked := substring(name from '!(primary|standby)$');
    name := regexp_replace(name, '!(primary|standby)$', '');
    -- As it stands first: a name may have a plus in it.
    foreach spelled in array array[name, regexp_replace(name, '^([^@+]+)\+[^@]*', '\1')] loop
        select array_agg(distinct same.id) into found_ids from (
            select m.mailbox_id as id from mailbox m where lower(m.address) = spelled and m.unprotected_at is null
            union all
            select a.mailbox_id from mailbox_alias a join mailbox m using (mailbox_id)
            where a.alias = spelled and m.unprotected_at is null
        ) same;
        if found_ids is null then
            select array_agg(distinct same.id) into found_ids from (
                select m.mailbox_id as id from mail_domain d join mailbox m on m.tenant_id = d.tenant_id
                where d.domain = split_part(spelled, '@', 2) and lower(m.address) = split_part(spelled, '@', 1)
                  and m.unprotected_at is null and m.primary_server_id = coalesce(d.server_id, m.primary_server_id)
                union all
                select m.mailbox_id from mail_domain d join mailbox m on m.tenant_id = d.tenant_id
                where strpos(spelled, '@') = 0 and lower(m.address) = spelled || '@' || d.domain
                  and m.unprotected_at is null and m.primary_server_id = coalesce(d.server_id, m.primary_server_id)
            ) same;
        end if;
        if cardinality(found_ids) > 1 then
            -- Two that differ only in case.
            select coalesce(array_agg(m.mailbox_id), found_ids) into found_ids from mailbox m
            where m.mailbox_id = any (found_ids) and m.address = typed;
        end if;
        if cardinality(found_ids) > 1 then
            raise exception 'the log-in means % mailboxes', cardinality(found_ids)
                using errcode = 'UD001', hint = 'Name the primary of each domain in a [[domain]].';
        end if;
        exit when found_ids is not null;
    end loop;
    mailbox_id := found_ids[1];
end $$;

-- The primary of somebody who is not protected: that of the domain, or the only one there is.
create function route_home(name text) returns bigint language sql stable as $$
    select coalesce(
        (select d.server_id from mail_domain d where d.domain = split_part(name, '@', 2)),
        (select min(s.server_id) from server s where s.role = 'primary' having count(*) = 1)
    )
$$;

-- Where a server takes a service: from `imap`, `lmtp` and `submission` of its definition. Without a port the service's
-- own is meant.
create function route_address(server bigint, service text, out host text, out port int, out tls text)
language plpgsql stable as $$
declare
    url text;
    parts text[];
begin
    select case service when 'lmtp' then s.definition ->> 'lmtp'
                        when 'smtp' then s.definition ->> 'submission'
                        when 'submission' then coalesce(s.definition ->> 'submission', s.definition ->> 'imap')
                        else s.definition ->> 'imap' end
    into url from server s where s.server_id = server;
    parts := regexp_match(url, '^([a-z+]+)://(?:\[([0-9a-fA-F:.]+)\]|([^/:\[\]]+))(?::([0-9]+))?/?$');
    if parts is null then
        raise exception 'the server has no address for %', service
            using hint = 'Add it: understudy server change NAME, or [[server]] in the configuration.';
    end if;
    host := coalesce(parts[2], parts[3]);
    port := parts[4]::int;
    tls := case when parts[1] in ('imaps', 'lmtps', 'smtps') then 'ssl' when parts[1] = 'imap' then 'starttls' end;
    if service not in ('lmtp', 'smtp') and not (service = 'submission' and url ~ '^smtp') then
        if service = 'imap' then
            port := coalesce(port, case parts[1] when 'imaps' then 993 else 143 end);
        else
            port := null;
        end if;
    elsif service = 'lmtp' then
        port := coalesce(port, 24);
    else
        port := coalesce(port, case parts[1] when 'smtps' then 465 else 587 end);
    end if;
end $$;

-- Where a log-in goes; no row when nobody is meant or it asks for what its client may not. Waits for nothing; `held`
-- is null for whom no hold concerns.
create function route_resolve(
    login text, service text, client text,
    out mailbox_id bigint, out side text, out held boolean, out epoch bigint, out login_name text, out canonical text,
    out host text, out port int, out tls text
) returns setof record language plpgsql stable as $$
declare
    who record;
    treatment text;
    server bigint;
begin
    select * into who from route_find(login);
    if service <> 'lmtp' and client is not null then
        select case when bool_or(c.treatment = 'bypass' and who.asked is not null) then 'bypass'
                    when bool_or(c.treatment = 'primary') then 'primary' end
        into treatment from route_client c where c.network >>= client::inet;
    end if;
    if who.asked is not null and treatment is distinct from 'bypass' then return; end if;
    mailbox_id := who.mailbox_id;
    if mailbox_id is null then
        server := route_home(who.name);
        if server is null or who.asked = 'standby' then return; end if;
        side := 'primary';
        held := false;
        canonical := who.name;
        -- As it was typed: whether case matters is for the server to say.
        login_name := case when who.asked is null then login else who.name || coalesce('*' || who.master, '') end;
    else
        select case treatment when 'bypass' then who.asked when 'primary' then 'primary' else r.side end,
               case when treatment is null then r.state = 'hold' and r.hold_until > clock_timestamp() end, r.epoch
        into side, held, epoch from route r where r.mailbox_id = who.mailbox_id;
        if side is null then return; end if;
        select m.address, case side when 'primary' then m.address else m.standby_address end,
               case side when 'primary' then m.primary_server_id else m.standby_server_id end
        into canonical, login_name, server from mailbox m where m.mailbox_id = who.mailbox_id;
        login_name := login_name || coalesce('*' || who.master, '');
    end if;
    select a.host, a.port, a.tls into host, port, tls from route_address(server, service) a;
    return next;
end $$;

-- For the password query of a Dovecot proxy, as role `understudy_door`:
--   select * from route_lookup('%u', '%s', '%r')
-- Waits while a switchover holds the mailbox's route.
create function route_lookup(
    login text, service text, client text default null,
    out password text, out nopassword text, out proxy text, out proxy_timeout text,
    out host text, out port text, out ssl text, out starttls text, out "user" text, out destuser text
) returns setof record language plpgsql security definer set search_path = public, pg_temp as $$
declare
    target record;
begin
    select * into target from route_resolve(login, service, client);
    if not found then return; end if;
    if target.mailbox_id is not null and target.held is not null and not pg_is_in_recovery() then
        -- Waits here; the side is read afterwards.
        perform from route r where r.mailbox_id = target.mailbox_id for share;
        select * into target from route_resolve(login, service, client);
        if not found then return; end if;
    end if;
    nopassword := 'Y';
    proxy := 'Y';
    proxy_timeout := '10';
    host := target.host;
    port := target.port::text;
    ssl := case target.tls when 'ssl' then 'yes' end;
    starttls := case target.tls when 'starttls' then 'yes' end;
    "user" := target.canonical;
    destuser := target.login_name;
    return next;
end $$;

-- Every log-in, spelled in full, that means exactly one protected mailbox: for doors that keep a copy of the routes.
create function route_forms() returns table (form text, mailbox_id bigint) language sql stable as $$
    with spelled as (
        select lower(m.address) as form, m.mailbox_id, 0 as rank from mailbox m where m.unprotected_at is null
        union all
        select a.alias, a.mailbox_id, 0 from mailbox_alias a join mailbox m using (mailbox_id)
        where m.unprotected_at is null
        union all
        select case when strpos(m.address, '@') = 0 then lower(m.address) || '@' || d.domain
                    else split_part(lower(m.address), '@', 1) end, m.mailbox_id, 1
        from mailbox m
        join mail_domain d on d.tenant_id = m.tenant_id and coalesce(d.server_id, m.primary_server_id) = m.primary_server_id
        where m.unprotected_at is null and (strpos(m.address, '@') = 0 or split_part(lower(m.address), '@', 2) = d.domain)
    ),
    nearest as (select s.*, min(s.rank) over (partition by s.form) as least from spelled s)
    select n.form, min(n.mailbox_id) from nearest n where n.rank = n.least
    group by n.form having count(distinct n.mailbox_id) = 1
$$;

revoke execute on function route_lookup(text, text, text) from public;

-- The role of front doors may ask where log-ins go, and nothing else. It belongs to the whole cluster.
do $$
begin
    if not exists (select from pg_roles where rolname = 'understudy_door') then
        create role understudy_door nologin;
    end if;
exception
    when insufficient_privilege then
        raise notice 'The role understudy_door is missing and may not be made by this user.';
    when duplicate_object or unique_violation then null;
end $$;

do $$
begin
    if exists (select from pg_roles where rolname = 'understudy_door') then
        grant usage on schema public to understudy_door;
        grant execute on function route_lookup(text, text, text) to understudy_door;
    end if;
end $$;
