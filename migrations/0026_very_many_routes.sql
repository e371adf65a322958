-- Very many mailboxes change sides in one run: what is noted of each is noted for all of a statement at once.

-- The body of a function in SQL is planned at every call, one in PL/pgSQL once a session.
create or replace function notice_add(
    tenant bigint, topic text, audience text, event bigint, mailbox bigint, run uuid, detail jsonb
) returns void language plpgsql as $$
begin
    insert into notice (tenant_id, topic, audience, event_id, mailbox_id, run_id, detail)
    values (tenant, topic, audience, event, mailbox, run, detail);
    perform pg_notify('understudy_notice', '');
end $$;

create function audit_routes() returns trigger language plpgsql as $$
declare
    actor text := nullif(current_setting('understudy.actor', true), '');
    program text := current_setting('application_name') || ' as ' || session_user;
    reason text := nullif(current_setting('understudy.reason', true), '');
begin
    insert into audit (tenant_id, who, action, subject, why, before, after)
    select after_row.tenant_id, coalesce(actor, program), 'route changed', coalesce(m.address, ''), coalesce(reason, ''),
           jsonb_build_object('side', before_row.side, 'epoch', before_row.epoch)::text,
           jsonb_build_object('side', after_row.side, 'epoch', after_row.epoch)::text
    from before_rows before_row join after_rows after_row using (mailbox_id) left join mailbox m using (mailbox_id)
    where before_row.side <> after_row.side
    order by mailbox_id;
    return null;
end $$;

drop trigger audit_route on route;
create trigger audit_route after update on route referencing old table as before_rows new table as after_rows
    for each statement execute function audit_routes();

create or replace function usage_switchover() returns trigger language plpgsql as $$
begin
    insert into usage_event (tenant_id, mailbox_id, meter, run_id, at, address, primary_name, group_name)
    select m.tenant_id, m.mailbox_id, 'switchover', after_row.run_id, after_row.flipped_at, m.address, p.name, m.group_name
    from before_rows before_row
    join after_rows after_row using (run_id, mailbox_id)
    join mailbox m using (mailbox_id) join server p on p.server_id = m.primary_server_id
    where before_row.flipped_at is null and after_row.flipped_at is not null and after_row.target = 'standby'
    on conflict on constraint usage_event_once do nothing;
    return null;
end $$;

drop trigger usage_switched on switch;
create trigger usage_switched after update on switch referencing old table as before_rows new table as after_rows
    for each statement execute function usage_switchover();

-- As with steps and events (0025): a mailbox is never deleted.
alter table switch drop constraint switch_mailbox_id_fkey;

-- Rows that change often, and change beside themselves: without room on their page every change is noted in every index.
alter table mailbox set (fillfactor = 60);
alter table route set (fillfactor = 60);
alter table switch set (fillfactor = 60);
