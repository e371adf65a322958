-- What people are told by mail and programs by hook: noted in the SQL transaction of what happened, sent later.

-- A tenant's wishes. Without a row: users are told, administrators are those the configuration names.
create table notice_settings (
    tenant_id bigint primary key references tenant,
    administrators text[] not null default '{}',
    notify_users boolean not null default true,
    language text not null default 'en',
    -- Nothing that can wait is sent between these times of day; null for never quiet.
    quiet_from time,
    quiet_to time,
    utc_offset_minutes int not null default 0
        constraint notice_settings_offset check (utc_offset_minutes between -840 and 840),
    -- After a mail about something, the next about the same collects for so long.
    group_minutes int not null default 15 constraint notice_settings_group check (group_minutes between 0 and 1440),
    -- No address gets more mails an hour; the rest waits.
    per_hour int not null default 20 constraint notice_settings_per_hour check (per_hour between 1 and 1000),
    muted text[] not null default '{}',
    constraint notice_settings_quiet check ((quiet_from is null) = (quiet_to is null))
);

-- Where else a mailbox's user is told, and in which language.
create table mailbox_contact (
    mailbox_id bigint primary key references mailbox on delete cascade,
    alternate text,
    language text
);

-- A tenant's own words; without a row, those built in.
create table notice_template (
    tenant_id bigint not null references tenant,
    topic text not null,
    language text not null,
    subject text not null,
    text text not null,
    html text not null,
    changed_at timestamptz not null default now(),
    primary key (tenant_id, topic, language)
);

-- Something people are to be told, once.
create table notice (
    notice_id bigint generated always as identity primary key,
    tenant_id bigint not null references tenant,
    topic text not null,
    audience text not null constraint notice_audience_known check (audience in ('user', 'administrators')),
    event_id bigint,
    mailbox_id bigint references mailbox on delete cascade,
    run_id uuid,
    detail jsonb not null default '{}',
    created_at timestamptz not null default now(),
    -- Mails and hooks have been written for it, or there was nobody to tell.
    taken_at timestamptz,
    constraint notice_once unique (event_id, mailbox_id)
);

create index notice_waiting on notice (tenant_id, topic, created_at) where taken_at is null;

-- The outbox: one row for each recipient. Everything about it is fixed when it is written, the Message-ID too, so that sending
-- it again after a crash is the same mail again.
create table message (
    message_id uuid primary key,
    tenant_id bigint not null references tenant,
    topic text not null,
    channel text not null constraint message_channel_known check (channel in ('mail', 'hook')),
    -- An address, or the name of a hook.
    recipient text not null,
    subject text not null default '',
    text text not null default '',
    html text not null default '',
    -- Of a hook: the whole JSON.
    body text not null default '',
    mailbox_id bigint references mailbox on delete set null,
    run_id uuid,
    created_at timestamptz not null default now(),
    not_before timestamptz not null default now(),
    attempts int not null default 0,
    -- Whoever sends it has until then.
    leased_until timestamptz,
    sent_at timestamptz,
    failed_at timestamptz
);

create index message_due on message (not_before) where sent_at is null and failed_at is null;
create index message_newest on message (tenant_id, created_at desc, message_id);
create index message_to on message (recipient, created_at);

-- Each attempt and what came of it.
create table delivery (
    message_id uuid not null references message on delete cascade,
    attempt int not null,
    at timestamptz not null default clock_timestamp(),
    -- Host and port of the relay, or the host of the hook.
    via text not null,
    outcome text not null constraint delivery_outcome_known check (outcome in ('sent', 'deferred', 'refused')),
    answer text not null default '',
    primary key (message_id, attempt, at, via)
);

create function notice_add(
    tenant bigint, topic text, audience text, event bigint, mailbox bigint, run uuid, detail jsonb
) returns void language sql as $$
    insert into notice (tenant_id, topic, audience, event_id, mailbox_id, run_id, detail)
    values (tenant, topic, audience, event, mailbox, run, detail);
    select pg_notify('understudy_notice', '');
$$;

-- Which events people are told of.
create function notice_of_event() returns trigger language plpgsql as $$
declare
    asked record;
    state text := new.detail ->> 'state';
begin
    if new.kind in ('unproven', 'held', 'differences', 'canary_lost', 'verdict', 'certificate_expiring', 'link_certificate_ending', 'disk_low', 'disk_full')
        or new.kind = 'trouble' and coalesce((new.detail -> 'trouble' ->> 'fault')::boolean, false) then
        perform notice_add(new.tenant_id,
            case new.kind when 'unproven' then 'stall' when 'held' then 'brake' when 'trouble' then 'fault'
                when 'canary_lost' then 'stall' when 'disk_full' then 'disk_low'
                when 'link_certificate_ending' then 'certificate_expiring' else new.kind end,
            'administrators', new.event_id, new.mailbox_id, new.run_id,
            case new.kind when 'trouble' then new.detail -> 'trouble' else new.detail end);
    elsif new.run_id is null then
        return null;
    elsif new.kind = 'run' and state in ('waiting', 'done', 'failed') then
        select r.kind, r.request, r.result, r.reason into asked from run r where r.run_id = new.run_id;
        if asked.kind not in ('switchover', 'switchback') or coalesce((asked.request ->> 'dry_run')::boolean, false) then
            return null;
        end if;
        if state <> 'waiting' then
            perform notice_add(new.tenant_id, 'run_ended', 'administrators', new.event_id, null, new.run_id, new.detail);
        elsif coalesce(asked.request ->> 'mode', 'planned') = 'planned'
            and coalesce((asked.request ->> 'notify')::boolean, true) then
            perform notice_add(new.tenant_id,
                case asked.kind when 'switchover' then 'switch_planned' else 'switchback_planned' end, 'user', new.event_id,
                m.mailbox_id, new.run_id, jsonb_build_object('reason', asked.reason))
            from mailbox m
            where m.unprotected_at is null and m.tenant_id = new.tenant_id
              and (m.mailbox_id = new.mailbox_id or m.mailbox_id in (
                  select asked_id::bigint from jsonb_array_elements_text(
                      case jsonb_typeof(asked.request -> 'mailbox_ids') when 'array' then asked.request -> 'mailbox_ids'
                          else '[]' end) as asked_id));
        end if;
    elsif new.kind = 'state' and new.mailbox_id is not null and new.detail ? 'side' then
        select r.kind, r.request, r.reason into asked from run r where r.run_id = new.run_id;
        if coalesce((asked.request ->> 'notify')::boolean, true) then
            perform notice_add(new.tenant_id,
                case when new.detail ->> 'side' = 'primary' then 'switchback_done'
                     when asked.request ->> 'mode' = 'emergency' then 'switch_emergency' else 'switch_done' end,
                'user', new.event_id, new.mailbox_id, new.run_id, jsonb_build_object('reason', asked.reason));
        end if;
    end if;
    return null;
end $$;

create trigger notice_of_event after insert on event for each row
    when (new.kind in ('unproven', 'held', 'differences', 'canary_lost', 'verdict', 'certificate_expiring', 'disk_low',
                       'disk_full', 'link_certificate_ending', 'trouble', 'run', 'state'))
    execute function notice_of_event();

create trigger audit_notice_settings after insert or update on notice_settings
    for each row execute function audit_change('notification settings', 'tenant_id', 'administrators', 'notify_users',
        'language', 'quiet_from', 'quiet_to', 'utc_offset_minutes', 'group_minutes', 'per_hour', 'muted');
create trigger audit_notice_template after insert or delete or update on notice_template
    for each row execute function audit_change('notification template', 'topic', 'topic', 'language', 'subject', 'text', 'html');
create trigger audit_mailbox_contact after insert or delete or update on mailbox_contact
    for each row execute function audit_change('contact', 'mailbox_id', 'alternate', 'language');
