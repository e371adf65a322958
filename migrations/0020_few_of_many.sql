-- What few of very many mailboxes have, found without reading them all: `status` and the overview ask every few seconds.
-- Nothing here changes while transactions are captured and applied.

create index mailbox_in_trouble on mailbox (tenant_id) where source_trouble is not null or standby_trouble is not null;
create index mailbox_unproven on mailbox (tenant_id) where unproven is not null;
