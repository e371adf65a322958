-- The mass-change brake, verifications by themselves, and the alarm that nothing is happening.

alter table mailbox
    -- Why it is held: {kind, reason, remedy}; null when it is not.
    add column held_detail jsonb,
    add column held_at timestamptz,
    -- A person let the parked removals go on; they are carried out with the mailbox's next turn.
    add column release_asked boolean not null default false,
    -- When a verification was last begun by itself, and what the last one of any kind found.
    add column verify_begun_at timestamptz,
    add column differences bigint,
    -- Since when and where the pipeline has not proven itself: {place, reason, remedy, since}; null while it has.
    add column unproven jsonb;

create index mailbox_release_asked on mailbox (mailbox_id) where release_asked;

-- What was removed lately, for the brake to add up. Rows older than its window go away.
create table brake_removal (
    mailbox_id bigint not null references mailbox,
    captured_at timestamptz not null,
    digest bytea not null
);

create index brake_removal_lately on brake_removal (mailbox_id, captured_at);

-- A standby folder in which something is parked: taken from the mirror because the primary removed it, left on the standby until a
-- person says whether that was meant.
create table parked_folder (
    parked_folder_id bigint generated always as identity primary key,
    mailbox_id bigint not null references mailbox,
    path jsonb not null,
    standby_name text not null,
    standby_uid_validity bigint not null,
    -- The primary deleted the folder itself too.
    deletion text constraint parked_folder_deletion_known check (deletion in ('waiting', 'released', 'kept')),
    constraint parked_folder_once unique (mailbox_id, standby_name)
);

create table parked_message (
    parked_folder_id bigint not null references parked_folder on delete cascade,
    standby_uid bigint not null,
    -- On the primary, where it was.
    uid bigint not null,
    digest bytea not null,
    size bigint not null,
    internal_date text not null,
    -- The transaction that removed it.
    seq bigint not null,
    -- Of some of each folder, for people.
    subject text,
    fate text not null default 'waiting' constraint parked_message_fate_known check (fate in ('waiting', 'released', 'kept')),
    primary key (parked_folder_id, standby_uid)
);

create table parked_subscription (
    mailbox_id bigint not null references mailbox,
    path jsonb not null,
    fate text not null default 'waiting'
        constraint parked_subscription_fate_known check (fate in ('waiting', 'released', 'kept')),
    primary key (mailbox_id, path)
);

alter table link
    -- When the recovery gateway last looked after the mailboxes, and whether anyone is connected to it.
    add column watched_at timestamptz,
    add column connections int not null default 0;
