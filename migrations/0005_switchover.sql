-- Changes of side: which mailbox is being moved by which run, and what is still to be brought over from the old side.

create table switch (
    run_id uuid not null references run on delete cascade,
    mailbox_id bigint not null references mailbox on delete cascade,
    target text not null constraint switch_target_known check (target in ('primary', 'standby')),
    mode text not null constraint switch_mode_known check (mode in ('planned', 'emergency')),
    -- The epoch it began with: once the mailbox has another one, the side was changed.
    epoch bigint not null,
    begun_at timestamptz not null default now(),
    flipped_at timestamptz,
    ended_at timestamptz,
    outcome text not null default '' constraint switch_outcome_known
        check (outcome in ('', 'done', 'already', 'failed', 'cancelled')),
    -- What was at stake, what became of it, how long the user was away: as the run's result shows it.
    detail jsonb not null default '{}',
    -- The old side is read for stragglers until a reading that began after this has come through.
    sweep_until timestamptz,
    swept jsonb not null default '{}',
    primary key (run_id, mailbox_id),
    constraint switch_ended_with_outcome check ((ended_at is null) = (outcome = ''))
);

-- One run at a time moves a mailbox.
create unique index switch_one_at_a_time on switch (mailbox_id) where ended_at is null;
create index switch_sweeping on switch (mailbox_id) where sweep_until is not null;

-- Lower is moved earlier.
alter table mailbox add column priority int not null default 100;
