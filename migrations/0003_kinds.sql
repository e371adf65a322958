-- Messages a primary cannot give, and which source gateway is which.

-- At the source: passed over, tried again now and then.
create table source_unreadable (
    mailbox_id bigint not null references source_mailbox on delete cascade,
    folder_id int not null,
    uid bigint not null,
    size bigint not null default 0,
    -- In the server's words where it had any.
    reason text not null,
    since timestamptz not null default now(),
    primary key (mailbox_id, folder_id, uid)
);

-- The same at the recovery site, as last reported: there is no content and no transaction of them.
create table mailbox_unreadable (
    mailbox_id bigint not null references mailbox,
    folder_id int not null,
    path jsonb not null,
    uid bigint not null,
    size bigint not null,
    reason text not null,
    primary key (mailbox_id, folder_id, uid)
);

-- The one source gateway that is listened to, and another that was turned away.
alter table link
    add column installation uuid,
    add column refused_installation uuid,
    add column refused_at timestamptz;
