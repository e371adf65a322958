-- The books can be computed again from the audit alone: it notes when protection really began, and with each month that is closed its
-- prices; what every mailbox had used in it is noted by whoever closes it.

drop trigger audit_mailbox on mailbox;
create trigger audit_mailbox after insert or delete
    or update of standby_address, policy, group_name, paused, unprotected_at on mailbox
    for each row execute function audit_change('mailbox', 'address', 'address', 'primary_server_id', 'standby_server_id',
        'standby_address', 'policy', 'group_name', 'paused', 'created_at', 'unprotected_at');

drop trigger audit_invoice on invoice;
create trigger audit_invoice after insert on invoice
    for each row execute function audit_change('invoice', 'month', 'month', 'currency', 'total', 'plan');
