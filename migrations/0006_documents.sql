-- Two documents of a platform may bear one number: a bill that was deleted and
-- entered anew, two suppliers of one name, two that changed numbers. Where the
-- platform's own id tells documents apart, the number need not.

alter table invoices drop constraint invoices_natural_key;
create unique index invoices_natural_key
    on invoices (source, tenant, vendor, invoice_number, generation)
    where document_id is null;
