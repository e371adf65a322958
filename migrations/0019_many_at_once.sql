-- Very many mailboxes change sides in one run: what is noted of each may not cost a look at all of them.

-- What a run asks for names every mailbox it is about. These two are read for each of them.
alter table run
    add column mode text not null generated always as (coalesce(request ->> 'mode', 'planned')) stored,
    add column tells_users boolean not null
        generated always as (coalesce((request ->> 'notify')::boolean, true)) stored;

-- Which events people are told of.
create or replace function notice_of_event() returns trigger language plpgsql as $$
declare
    asked record;
    state text;
begin
    if new.kind = 'state' then
        if new.run_id is null or new.mailbox_id is null or not new.detail ? 'side' then
            return null;
        end if;
        select r.mode, r.tells_users, r.reason into asked from run r where r.run_id = new.run_id;
        if coalesce(asked.tells_users, true) then
            perform notice_add(new.tenant_id,
                case when new.detail ->> 'side' = 'primary' then 'switchback_done'
                     when asked.mode = 'emergency' then 'switch_emergency' else 'switch_done' end,
                'user', new.event_id, new.mailbox_id, new.run_id, jsonb_build_object('reason', asked.reason));
        end if;
    elsif new.kind = 'run' then
        state := new.detail ->> 'state';
        if new.run_id is null or state not in ('waiting', 'done', 'failed') then
            return null;
        end if;
        select r.kind, r.mode, r.tells_users, r.reason,
               coalesce((r.request ->> 'dry_run')::boolean, false) as is_rehearsal
        into asked from run r where r.run_id = new.run_id and r.kind in ('switchover', 'switchback');
        if not found or asked.is_rehearsal then
            return null;
        end if;
        if state <> 'waiting' then
            perform notice_add(new.tenant_id, 'run_ended', 'administrators', new.event_id, null, new.run_id, new.detail);
        elsif asked.mode = 'planned' and asked.tells_users then
            perform notice_add(new.tenant_id,
                case asked.kind when 'switchover' then 'switch_planned' else 'switchback_planned' end, 'user', new.event_id,
                m.mailbox_id, new.run_id, jsonb_build_object('reason', asked.reason))
            from mailbox m
            where m.unprotected_at is null and m.tenant_id = new.tenant_id
              and (m.mailbox_id = new.mailbox_id or m.mailbox_id in (
                  select asked_id::bigint from run r cross join jsonb_array_elements_text(
                      case jsonb_typeof(r.request -> 'mailbox_ids') when 'array' then r.request -> 'mailbox_ids'
                          else '[]' end) as asked_id
                  where r.run_id = new.run_id));
        end if;
    elsif new.kind <> 'trouble' or coalesce((new.detail -> 'trouble' ->> 'fault')::boolean, false) then
        perform notice_add(new.tenant_id,
            case new.kind when 'unproven' then 'stall' when 'held' then 'brake' when 'trouble' then 'fault'
                when 'canary_lost' then 'stall' when 'disk_full' then 'disk_low'
                when 'link_certificate_ending' then 'certificate_expiring' else new.kind end,
            'administrators', new.event_id, new.mailbox_id, new.run_id,
            case new.kind when 'trouble' then new.detail -> 'trouble' else new.detail end);
    end if;
    return null;
end $$;
