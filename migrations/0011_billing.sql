-- What mailboxes used, what that costs, and the months that are closed.
--
-- Usage is metered by triggers: in the SQL transaction that makes it happen, once, whoever makes it. Days are those of UTC.

-- The beginnings and ends of protection, and switchovers. Never changed; outlives the mailbox.
create table usage_event (
    usage_event_id bigint generated always as identity primary key,
    tenant_id bigint not null references tenant,
    mailbox_id bigint not null,
    meter text not null constraint usage_event_meter_known check (meter in ('protected', 'unprotected', 'switchover')),
    run_id uuid,
    at timestamptz not null,
    address text not null,
    primary_name text not null,
    group_name text not null,
    constraint usage_event_once unique nulls not distinct (mailbox_id, meter, run_id)
);

create index usage_event_of_tenant on usage_event (tenant_id, mailbox_id);

-- Bytes of a mailbox on a day: contents of the transactions received, and what was kept when that last changed.
create table usage_day (
    mailbox_id bigint not null,
    day date not null,
    tenant_id bigint not null references tenant,
    carried_bytes bigint not null default 0,
    -- Null when it did not change that day.
    kept_bytes bigint,
    primary key (mailbox_id, day)
);

create function usage_protection() returns trigger language plpgsql as $$
begin
    insert into usage_event (tenant_id, mailbox_id, meter, at, address, primary_name, group_name)
    select new.tenant_id, new.mailbox_id, case when tg_op = 'INSERT' then 'protected' else 'unprotected' end,
           case when tg_op = 'INSERT' then new.created_at else new.unprotected_at end, new.address, p.name, new.group_name
    from server p where p.server_id = new.primary_server_id;
    return null;
end $$;

create trigger usage_protected after insert on mailbox for each row execute function usage_protection();
create trigger usage_unprotected after update of unprotected_at on mailbox for each row
    when (old.unprotected_at is null and new.unprotected_at is not null) execute function usage_protection();

create function usage_switchover() returns trigger language plpgsql as $$
begin
    insert into usage_event (tenant_id, mailbox_id, meter, run_id, at, address, primary_name, group_name)
    select m.tenant_id, m.mailbox_id, 'switchover', new.run_id, new.flipped_at, m.address, p.name, m.group_name
    from mailbox m join server p on p.server_id = m.primary_server_id where m.mailbox_id = new.mailbox_id
    on conflict on constraint usage_event_once do nothing;
    return null;
end $$;

create trigger usage_switched after update of flipped_at on switch for each row
    when (old.flipped_at is null and new.flipped_at is not null and new.target = 'standby')
    execute function usage_switchover();

create function usage_carried() returns trigger language plpgsql as $$
begin
    insert into usage_day (mailbox_id, day, tenant_id, carried_bytes)
    select new.mailbox_id, (new.received_at at time zone 'UTC')::date, m.tenant_id, new.content_bytes
    from mailbox m where m.mailbox_id = new.mailbox_id
    on conflict (mailbox_id, day) do update set carried_bytes = usage_day.carried_bytes + excluded.carried_bytes;
    return null;
end $$;

-- The journal's key lets a transaction in once, so it is counted once.
create trigger usage_carried after insert on transaction for each row
    when (new.content_bytes > 0) execute function usage_carried();

create function usage_kept() returns trigger language plpgsql as $$
begin
    insert into usage_day (mailbox_id, day, tenant_id, kept_bytes)
    values (new.mailbox_id, (now() at time zone 'UTC')::date, new.tenant_id, new.bytes_done)
    on conflict (mailbox_id, day) do update set kept_bytes = excluded.kept_bytes;
    return null;
end $$;

create trigger usage_kept after update of bytes_done on mailbox for each row
    when (new.bytes_done <> old.bytes_done and new.unprotected_at is null) execute function usage_kept();

-- What was there before there were meters.
insert into usage_event (tenant_id, mailbox_id, meter, at, address, primary_name, group_name)
select m.tenant_id, m.mailbox_id, 'protected', m.created_at, m.address, p.name, m.group_name
from mailbox m join server p on p.server_id = m.primary_server_id;

insert into usage_event (tenant_id, mailbox_id, meter, at, address, primary_name, group_name)
select m.tenant_id, m.mailbox_id, 'unprotected', m.unprotected_at, m.address, p.name, m.group_name
from mailbox m join server p on p.server_id = m.primary_server_id where m.unprotected_at is not null;

insert into usage_event (tenant_id, mailbox_id, meter, run_id, at, address, primary_name, group_name)
select m.tenant_id, m.mailbox_id, 'switchover', s.run_id, s.flipped_at, m.address, p.name, m.group_name
from switch s join mailbox m using (mailbox_id) join server p on p.server_id = m.primary_server_id
where s.flipped_at is not null and s.target = 'standby';

insert into usage_day (mailbox_id, day, tenant_id, carried_bytes)
select t.mailbox_id, (t.received_at at time zone 'UTC')::date, m.tenant_id, sum(t.content_bytes)
from transaction t join mailbox m using (mailbox_id) group by 1, 2, 3 having sum(t.content_bytes) > 0;

insert into usage_day (mailbox_id, day, tenant_id, kept_bytes)
select mailbox_id, (now() at time zone 'UTC')::date, tenant_id, bytes_done from mailbox
where bytes_done > 0 and unprotected_at is null
on conflict (mailbox_id, day) do update set kept_bytes = excluded.kept_bytes;

-- Prices, from the first day of a month on.
create table price_plan (
    tenant_id bigint not null references tenant,
    valid_from date not null constraint price_plan_from_first_of_month check (extract(day from valid_from) = 1),
    -- A `billing::Plan`.
    plan jsonb not null,
    set_by text not null,
    set_at timestamptz not null default now(),
    primary key (tenant_id, valid_from)
);

-- A closed month. What it says is said for good: what turns out wrong is corrected in a later one.
create table invoice (
    tenant_id bigint not null references tenant,
    month date not null constraint invoice_month_is_first_of_month check (extract(day from month) = 1),
    plan jsonb not null,
    currency text not null,
    -- A list of `billing::Line`.
    lines jsonb not null,
    -- In smallest units of the currency.
    total bigint not null,
    closed_by text not null,
    closed_at timestamptz not null default now(),
    primary key (tenant_id, month)
);

create table invoice_correction (
    invoice_correction_id bigint generated always as identity primary key,
    tenant_id bigint not null references tenant,
    -- The closed month that it puts right, and the later one on whose invoice it stands.
    month date not null,
    booked_in date not null,
    address text not null default '',
    amount bigint not null constraint invoice_correction_is_something check (amount <> 0),
    currency text not null,
    reason text not null constraint invoice_correction_has_reason check (reason <> ''),
    made_by text not null,
    made_at timestamptz not null default now(),
    constraint invoice_correction_of_closed foreign key (tenant_id, month) references invoice,
    constraint invoice_correction_later check (booked_in > month)
);

create index invoice_correction_booked on invoice_correction (tenant_id, booked_in);

create function billing_is_final() returns trigger language plpgsql as $$
begin
    raise exception '% is never changed', tg_table_name using hint = 'Put it right with a correction.';
end $$;

create trigger usage_event_is_final before update or delete on usage_event
    for each row execute function billing_is_final();
create trigger invoice_is_final before update or delete on invoice for each row execute function billing_is_final();
create trigger invoice_correction_is_final before update or delete on invoice_correction
    for each row execute function billing_is_final();
create trigger usage_event_stays before truncate on usage_event execute function billing_is_final();
create trigger invoice_stays before truncate on invoice execute function billing_is_final();
create trigger invoice_correction_stays before truncate on invoice_correction execute function billing_is_final();

-- Nothing is added to what is closed.
create function billing_month_is_open() returns trigger language plpgsql as $$
declare
    asked date;
begin
    if tg_table_name = 'price_plan' then asked := new.valid_from; else asked := new.booked_in; end if;
    if exists (select from invoice i where i.tenant_id = new.tenant_id and i.month >= asked) then
        raise exception 'the month % is closed', asked using errcode = 'integrity_constraint_violation',
            constraint = 'billing_month_is_open';
    end if;
    return null;
end $$;

create trigger price_plan_in_open_month after insert or update on price_plan
    for each row execute function billing_month_is_open();
create trigger invoice_correction_in_open_month after insert on invoice_correction
    for each row execute function billing_month_is_open();

create trigger audit_price_plan after insert or update on price_plan
    for each row execute function audit_change('prices', 'valid_from', 'valid_from', 'plan');
create trigger audit_invoice after insert on invoice
    for each row execute function audit_change('invoice', 'month', 'month', 'currency', 'total');
create trigger audit_invoice_correction after insert on invoice_correction
    for each row execute function audit_change('invoice correction', 'month', 'month', 'booked_in', 'address', 'amount', 'currency', 'reason');
