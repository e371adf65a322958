-- The source's memory of parts that the recovery site acknowledged is bounded: the oldest are forgotten first.
create index source_part_by_age on source_part (acknowledged_at);
