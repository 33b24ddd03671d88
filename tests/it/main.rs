//! The integration tests: one binary, real servers that our own code starts.
//!
//! Each test has a database and a queue prefix of its own on one shared pair
//! of servers, and steps the worker instead of sleeping. What kills or
//! restarts a server has servers of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

mod announcements;
mod bench;
mod call_log;
mod callbacks;
mod clients;
mod commands;
mod conflicts;
mod constraints;
mod deliveries_desk;
mod duplicates;
mod economy;
mod enrichment;
mod failures;
mod fanout;
mod generations;
mod house;
mod import_command;
mod import_notes;
mod imports;
mod imports_broken_off;
mod imports_failures;
mod in_hand;
mod many_workers;
mod mirrors;
mod outages;
mod poison;
mod publisher;
mod quarantine;
mod races;
mod receipts_by_time;
mod receipts_retention;
mod receiver;
mod refunds;
mod replay;
mod retention;
mod rules;
mod samples;
mod servers;
mod support;
mod topology;
mod trace;
mod versions;
