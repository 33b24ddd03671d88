//! Tallyhook: a webhook inbox.
pub mod adapter;
pub mod broker;
pub mod config;
pub mod dev;
pub mod domain;
pub mod metrics;
pub mod ops;
pub mod receiver;
pub mod retry;
pub mod store;
pub mod worker;
