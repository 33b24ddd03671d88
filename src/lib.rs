//! Tallyhook: a webhook inbox.
pub mod adapter;
pub mod broker;
pub mod cli;
pub mod config;
pub mod dev;
pub mod domain;
pub mod metrics;
pub mod ops;
pub mod receiver;
pub mod retry;
pub mod review;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod worker;
