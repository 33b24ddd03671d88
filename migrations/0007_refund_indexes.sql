-- Indexes that begin with what tells rows apart. Before a new table is
-- analyzed for the first time, all that begin with source and tenant look the
-- same to the planner, and one that reads the whole of a shop may be taken.

alter table refunds
    drop constraint refunds_pkey,
    add primary key (refund_id, tenant, source);
drop index refunds_order;
create index refunds_order on refunds (order_id, tenant, source);
drop index refunds_payment;
create index refunds_payment on refunds (payment_ref, tenant, source);

alter table payments
    drop constraint payments_pkey,
    add primary key (payment_ref, tenant, source);
drop index payments_order;
create index payments_order on payments (order_id, tenant, source);
