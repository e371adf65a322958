-- What is written once and dropped soon is not worth compressing.
alter table source_transaction alter column contents set storage external;
