//! The integration tests: one binary, real servers that our own code starts.
//!
//! Each test has a database and a queue prefix of its own on one shared pair of servers, and steps
//! the worker instead of sleeping. A test that kills or restarts a server leases a pair
//! (`support::servers`). Random tests print their seed (`support::random`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod alert_rules;
mod apply_concurrency;
mod architecture;
mod bench;
mod callbacks;
mod cli;
mod constraints;
mod delivery_amqp;
mod delivery_http;
mod delivery_operations;
mod documents;
mod duplicates;
mod enrichment;
mod failures;
mod import_command;
mod import_failures;
mod import_interruptions;
mod import_progress;
mod import_uploads;
mod in_flight;
mod inbox_partitions;
mod inbox_retention;
mod invoice_conflicts;
mod metrics;
mod mock_accounting;
mod multi_event_webhooks;
mod operator_commands;
mod outages;
mod poison;
mod private_servers;
mod publisher;
mod quarantine;
mod receipts_partitions;
mod receipts_retention;
mod receiver;
mod refunds;
mod rejected_requests;
mod replay;
mod stale_events;
mod support;
mod topology;
mod trace;
mod vendor_clients;
mod vendor_samples;
mod worker_processes;
