-- A run that moves very many mailboxes writes some fourteen rows for each of them: steps, and the events that tell of these. Two
-- checks of foreign keys a row cost more than the row. Nobody deletes mailboxes or tenants, so that the keys kept nothing from going.

alter table event drop constraint event_mailbox_id_fkey, drop constraint event_tenant_id_fkey;
alter table run_step drop constraint run_step_mailbox_id_fkey;
