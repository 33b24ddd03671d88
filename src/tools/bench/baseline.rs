//! What the product is compared with, on the same servers.
//!
//! These files use AMQP and SQL directly. Elsewhere only `broker` and `store`
//! may: a limit measured through the product would not be a limit.

pub(super) mod broker;
pub(super) mod database;
pub(super) mod publish;
pub(super) mod receiver;
pub(super) mod row_at_a_time;
pub(super) mod set_insert;
pub(super) mod start_barrier;
pub(super) mod table_stats;
