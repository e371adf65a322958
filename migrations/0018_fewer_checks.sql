-- A foreign key is checked row by row, which costs more than the insert (docs/decisions/no-foreign-keys-on-messages.md).
-- The rows that come by the million do without. What a cascade did for them, a statement does once.

alter table source_message drop constraint source_message_folder;
alter table mirror_message drop constraint mirror_message_folder;
alter table content drop constraint content_tenant_id_fkey;

create function forget_source_messages() returns trigger language plpgsql as $$
begin
    delete from source_message m using gone g where m.mailbox_id = g.mailbox_id and m.folder_id = g.folder_id;
    return null;
end $$;

create trigger forget_source_messages after delete on source_folder
    referencing old table as gone for each statement execute function forget_source_messages();

create function forget_mirror_messages() returns trigger language plpgsql as $$
begin
    delete from mirror_message m using gone g where m.mailbox_id = g.mailbox_id and m.folder_id = g.folder_id;
    return null;
end $$;

create trigger forget_mirror_messages after delete on mirror_folder
    referencing old table as gone for each statement execute function forget_mirror_messages();
