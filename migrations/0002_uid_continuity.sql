-- UID continuity, folder by folder: does the standby serve the primary's UIDVALIDITY and UIDs?

alter table mirror_folder
    -- `none`: never tried, since the standby offers no way to set UIDVALIDITY. `kept`: it does. `lost`: it does not, and
    -- why. `swapping`: a rebuilt folder that does is just taking its place.
    add column continuity text not null default 'none' constraint mirror_folder_continuity_known
        check (continuity in ('none', 'kept', 'lost', 'swapping')),
    add column continuity_reason text not null default '',
    -- The standby's HIGHESTMODSEQ is at least this.
    add column standby_mod_seq bigint not null default 0,
    -- The last rebuild: when it began, at which attempt of a person, and how many begun since the last that ended well.
    add column rebuilt_at timestamptz,
    add column rebuilt_attempt int not null default 0,
    add column rebuild_tries int not null default 0;

create index mirror_folder_lost on mirror_folder (mailbox_id) where continuity <> 'kept';
