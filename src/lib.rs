//! Tallyhook: a webhook inbox. It receives webhooks for orders and invoices over
//! HTTP, stores them in RabbitMQ and applies them to PostgreSQL exactly once.
//!
//! Message flow, by module:
//!
//! 1. [`receiver`] reads an HTTP request; its source in [`sources`] verifies it
//!    and extracts the events.
//! 2. Each event becomes a [`domain::Envelope`]. [`broker`] publishes it to the
//!    queue of its source; the receiver answers 200 after the publisher confirm.
//! 3. [`worker::source_consumer`] collects a batch, and the source maps each
//!    message to a [`domain::Change`]. [`worker::enrich`] fetches the document
//!    of a thin event through [`net`].
//! 4. [`worker::apply`] claims the event keys and writes the changes in one
//!    transaction of the [`store`]. Then the batch is acknowledged.
//! 5. [`worker`] publishes failed messages to a retry
//!    queue, by the schedule in [`retry`], or to the dead-letter queue.
//! 6. [`delivery`] sends what the transaction wrote to the outbox to the
//!    [`destinations`].
//! 7. [`worker::dead_letter_archiver`] moves dead letters into a table, and
//!    operators [`review`] them: show, replay, discard.
//! 8. [`maintenance`] creates and drops partitions and completes imports.
//!
//! An imported file ([`file_formats`]) is one request; each of its items takes
//! steps 2 to 7. A rejected request reaches the worker through the broker too
//! and is recorded in `receipts`, or in `quarantine` if its signature is wrong.
//!
//! [`config`] is plain data, [`app`] builds and starts everything from it,
//! [`observability`] shows it, [`cli`] is the command line, [`tools`] are for
//! development.
//!
//! `tests/it/architecture.rs` checks which module may import which: only
//! [`broker`] uses AMQP, only [`store`] uses SQL, and [`domain`] imports nothing.

pub mod domain;
pub mod retry;

pub mod config;

pub mod destinations;
pub mod file_formats;
pub mod net;
pub mod sources;

pub mod broker;
pub mod store;

pub mod delivery;
pub mod maintenance;
pub mod observability;
pub mod receiver;
pub mod review;
pub mod worker;

pub mod app;

pub mod cli;
pub mod tools;
