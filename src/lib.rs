//! Tallyhook: a webhook inbox.
pub mod adapter;
pub mod config;
pub mod domain;
pub mod retry;
