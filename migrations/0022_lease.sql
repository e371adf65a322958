-- The lease: mail servers may ask at each log-in and delivery whether the user is theirs now. Where nobody answers, nobody is let in.
--
-- A mail server calls, as role `understudy_door`, `lease_login` and `lease_delivery`: a row means no.

-- Who is said to be elsewhere for a moment, to see whether a server asks at all: its canary.
create table lease_trial (
    server_id bigint primary key references server on delete cascade,
    address text not null,
    ends_at timestamptz not null
);

create index mailbox_standby_log_in on mailbox (lower(standby_address)) where unprotected_at is null;

-- Is this user's place elsewhere than on the server of this name? Log-ins are spelled as in `route_find`; where one could mean
-- several mailboxes of the server, each of them must be at home.
create function lease_refuses(here text, login text, client text) returns boolean language plpgsql stable as $$
declare
    typed text := lower(split_part(login, '*', 1));
    spelled text;
    forms text[];
    elsewhere boolean;
begin
    if coalesce(typed, '') = '' then
        -- What Dovecot asks while it has no connection to quote a name with.
        raise exception 'a log-in without a name';
    end if;
    if exists (
        select from lease_trial t join server s using (server_id)
        where s.name = here and lower(t.address) = typed and t.ends_at > clock_timestamp()
    ) then
        return true;
    end if;
    foreach spelled in array array[typed, regexp_replace(typed, '^([^@+]+)\+[^@]*', '\1')] loop
        forms := array[spelled] || array(
            select case when strpos(spelled, '@') = 0 then spelled || '@' || d.domain else split_part(spelled, '@', 1) end
            from mail_domain d where strpos(spelled, '@') = 0 or split_part(spelled, '@', 2) = d.domain
        );
        select bool_or(r.side <> at.side or r.state = 'hold' and r.hold_until > clock_timestamp()) into elsewhere
        from (
            select m.mailbox_id from mailbox m where lower(m.address) = any (forms) and m.unprotected_at is null
            union select m.mailbox_id from mailbox m where lower(m.standby_address) = any (forms) and m.unprotected_at is null
            union select a.mailbox_id from mailbox_alias a where a.alias = spelled
        ) meant
        join mailbox m using (mailbox_id) join route r using (mailbox_id)
        join server s on s.name = here and s.server_id in (m.primary_server_id, m.standby_server_id)
        cross join lateral (select case s.server_id when m.primary_server_id then 'primary' else 'standby' end as side) at
        where not exists (
            select from route_client c
            where c.network >>= nullif(client, '')::inet and (c.treatment = 'bypass' or c.treatment = at.side)
        );
        if elsewhere is not null then return elsewhere; end if;
    end loop;
    return false;
end $$;

-- For a password query on a mail server, before the one that knows its users:
--   select * from lease_login('mail-a', '%u', '%r')
create function lease_login(
    here text, login text, client text,
    out password text, out nopassword text, out nologin text, out reason text
) returns setof record language plpgsql stable security definer set search_path = public, pg_temp as $$
begin
    if not lease_refuses(here, login, client) then return; end if;
    nopassword := 'Y';
    nologin := 'Y';
    reason := 'This mailbox is on another server for the time being; it is reached by the usual address.';
    return next;
end $$;

-- For a user query of deliveries there:
--   select * from lease_delivery('mail-a', '%u')
create function lease_delivery(here text, login text, out tempfail text) returns setof text
language plpgsql stable security definer set search_path = public, pg_temp as $$
begin
    if not lease_refuses(here, login, null) then return; end if;
    tempfail := 'the mailbox is on another server for the time being';
    return next;
end $$;

revoke execute on function lease_login(text, text, text), lease_delivery(text, text) from public;

do $$
begin
    if exists (select from pg_roles where rolname = 'understudy_door') then
        grant execute on function lease_login(text, text, text), lease_delivery(text, text) to understudy_door;
    end if;
end $$;
