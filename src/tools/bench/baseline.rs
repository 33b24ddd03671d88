//! The raw limits of the same servers: what can be had of them without this
//! product, by code that does nothing else.
//!
//! These files speak AMQP and SQL themselves, which nothing else of ours
//! outside `broker` and `store` may: a limit that went through the product
//! would not be one.

pub mod books;
pub mod broker;
pub mod consume;
pub mod database;
pub mod gate;
pub mod one_by_one;
pub mod publish;
pub mod receiver;
pub mod set_insert;
