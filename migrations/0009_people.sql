-- People: tenants' servers, accounts, sessions, narrower tokens; and the audit, a chain of every write.

-- A provider's server that a customer's mailboxes may use. The provider is tenant 1.
create table server_share (
    server_id bigint not null references server on delete cascade,
    tenant_id bigint not null references tenant,
    created_at timestamptz not null default now(),
    primary key (server_id, tenant_id)
);

-- Accounts ------------------------------------------------------------------------------------------------------------

create table account (
    account_id bigint generated always as identity primary key,
    tenant_id bigint not null references tenant,
    -- What a person logs in with; one namespace for all tenants.
    name text not null,
    role text not null constraint account_role_known
        check (role in ('viewer', 'operator', 'administrator', 'billing', 'auditor', 'user')),
    -- Sees and does only what concerns the mailboxes of this group.
    group_name text constraint account_group_where_it_narrows check (group_name is null or role in ('viewer', 'operator')),
    -- The one mailbox of a `user`.
    mailbox_address text,
    -- Argon2id in PHC form; null for somebody who logs in elsewhere.
    password text,
    password_changed_at timestamptz not null default now(),
    -- The TOTP secret, sealed; in force once confirmed.
    second_factor bytea,
    second_factor_at timestamptz,
    -- The last time step a code was taken for: no code works twice.
    second_factor_step bigint not null default 0,
    disabled_at timestamptz,
    last_login_at timestamptz,
    created_at timestamptz not null default now(),
    constraint account_user_has_a_mailbox check ((role = 'user') = (mailbox_address is not null))
);

create unique index account_name_unique on account (lower(name));

-- Each opens the account once where the second factor is lost; only BLAKE3 digests are kept.
create table recovery_code (
    account_id bigint not null references account on delete cascade,
    digest bytea not null,
    used_at timestamptz,
    primary key (account_id, digest)
);

-- Somebody logged in. The cookie holds the secret, this table its BLAKE3 digest.
create table session (
    session_id uuid primary key,
    account_id bigint not null references account on delete cascade,
    digest bytea not null constraint session_digest_unique unique,
    address text not null default '',
    agent text not null default '',
    created_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    expires_at timestamptz not null,
    ended_at timestamptz
);

create index session_of_account on session (account_id);

alter table token
    add column group_name text constraint token_group_where_it_narrows
        check (group_name is null or role in ('viewer', 'operator')),
    add column mailbox_address text;

-- The audit -----------------------------------------------------------------------------------------------------------

-- Every write: who, what, why, before and after. Rows come with the write they tell of, in its SQL transaction, by
-- triggers; they are sealed into the chain (position, hash) right after, in the same transaction where the API writes.
create table audit (
    audit_id bigint generated always as identity primary key,
    tenant_id bigint not null,
    at timestamptz not null default clock_timestamp(),
    who text not null,
    action text not null,
    subject text not null default '',
    why text not null default '',
    -- JSON as text: the hash is over these bytes.
    before text,
    after text,
    position bigint constraint audit_position_unique unique,
    -- BLAKE3 over the hash of the row before and this one.
    hash bytea,
    constraint audit_sealed_whole check ((position is null) = (hash is null))
);

create index audit_unsealed on audit (audit_id) where position is null;
create index audit_newest on audit (tenant_id, audit_id desc);

create function audit_stays() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and old.position is null and new.position is not null
        and (old.audit_id, old.tenant_id, old.at, old.who, old.action, old.subject, old.why, old.before, old.after)
            is not distinct from
            (new.audit_id, new.tenant_id, new.at, new.who, new.action, new.subject, new.why, new.before, new.after) then
        return new;
    end if;
    raise exception 'the audit is written once' using errcode = 'insufficient_privilege';
end $$;

create trigger audit_stays before update or delete on audit for each row execute function audit_stays();
create trigger audit_stays_whole before truncate on audit for each statement execute function audit_stays();

-- audit_change(noun, column with the name, columns shown…): notes a change of a row. Only the columns named are ever
-- shown, so a secret gets in only where somebody names its column. `understudy.actor` and `understudy.reason` say who
-- and why; without them the program that is connected is named.
create function audit_change() returns trigger language plpgsql as $$
declare
    subject_row jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
    before_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    after_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    shown text[] := tg_argv[2:];
    subject text;
    tenant bigint := (subject_row ->> 'tenant_id')::bigint;
    actor text := nullif(current_setting('understudy.actor', true), '');
    program text := current_setting('application_name') || ' as ' || session_user;
    reason text := nullif(current_setting('understudy.reason', true), '');
begin
    if tg_op = 'UPDATE' then
        shown := array(select name from unnest(shown) as name
                       where before_row -> name is distinct from after_row -> name);
        if cardinality(shown) = 0 then
            return null;
        end if;
    end if;
    select jsonb_object_agg(key, value) into before_row from jsonb_each(before_row)
        where key = any(shown) and value <> 'null';
    select jsonb_object_agg(key, value) into after_row from jsonb_each(after_row)
        where key = any(shown) and value <> 'null';
    subject := subject_row ->> tg_argv[1];
    if tg_argv[1] = 'mailbox_id' then
        select m.address into subject from mailbox m where m.mailbox_id = (subject_row ->> 'mailbox_id')::bigint;
    end if;
    if tenant is null and subject_row ? 'mailbox_id' then
        select m.tenant_id into tenant from mailbox m where m.mailbox_id = (subject_row ->> 'mailbox_id')::bigint;
    end if;
    if tg_table_name = 'run' and tg_op = 'INSERT' then
        actor := coalesce(actor, nullif(subject_row ->> 'requested_by', ''));
        reason := coalesce(reason, nullif(subject_row ->> 'reason', ''));
    end if;
    insert into audit (tenant_id, who, action, subject, why, before, after)
    values (coalesce(tenant, nullif(current_setting('understudy.tenant', true), '')::bigint, 1), coalesce(actor, program),
            tg_argv[0] || case tg_op when 'INSERT' then ' added' when 'UPDATE' then ' changed' else ' removed' end,
            coalesce(subject, ''), coalesce(reason, ''), before_row::text, after_row::text);
    return null;
end $$;

create trigger audit_tenant after insert or update or delete on tenant
    for each row execute function audit_change('tenant', 'name', 'name');
create trigger audit_server after insert or delete or update of name, role, definition, configured on server
    for each row execute function audit_change('server', 'name', 'name', 'role', 'definition', 'configured');
create trigger audit_server_share after insert or delete on server_share
    for each row execute function audit_change('server share', 'server_id', 'server_id', 'tenant_id');
create trigger audit_mailbox after insert or delete
    or update of standby_address, policy, group_name, paused, unprotected_at on mailbox
    for each row execute function audit_change('mailbox', 'address', 'address', 'primary_server_id', 'standby_server_id',
        'standby_address', 'policy', 'group_name', 'paused', 'unprotected_at');
create trigger audit_alias after insert or update or delete on mailbox_alias
    for each row execute function audit_change('alias', 'alias', 'alias', 'mailbox_id');
create trigger audit_policy after insert or delete or update of name, document on policy
    for each row execute function audit_change('policy', 'name', 'name', 'document');
create trigger audit_route after update of side on route
    for each row execute function audit_change('route', 'mailbox_id', 'side', 'epoch');
create trigger audit_token after insert or delete or update of role, expires_at, revoked_at, group_name on token
    for each row execute function audit_change('token', 'name', 'name', 'role', 'group_name', 'mailbox_address',
        'expires_at', 'revoked_at');
create trigger audit_account after insert or delete or update of name, role, group_name, mailbox_address, password,
    password_changed_at, second_factor_at, disabled_at on account
    for each row execute function audit_change('account', 'name', 'name', 'role', 'group_name', 'mailbox_address',
        'password_changed_at', 'second_factor_at', 'disabled_at');
create trigger audit_run after insert on run
    for each row execute function audit_change('run', 'run_id', 'kind', 'request', 'state');
create trigger audit_run_end after update on run
    for each row when (old.state is distinct from new.state and new.ended_at is not null
        or old.cancel_requested is distinct from new.cancel_requested)
    execute function audit_change('run', 'run_id', 'state', 'cancel_requested');

-- A page of mailboxes by address reads no more than the page.
create index mailbox_by_address on mailbox (tenant_id, address) where unprotected_at is null;
