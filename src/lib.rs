//! Tallyhook: a webhook inbox. Webhooks for orders and invoices in over HTTP,
//! durable in RabbitMQ, applied to PostgreSQL exactly once.
//!
//! The way of a message, and the modules in the order in which it meets them:
//!
//! 1. [`receiver_address`] reads an HTTP call whole and hands it to the source's
//!    [`adapter`], which verifies it and takes its events out.
//! 2. Each event becomes an [`domain::Envelope`] with an [`domain::EventKey`],
//!    and [`broker_findings::Publisher`] makes it durable in the source's queue. Only a
//!    [`broker_findings::Confirmed`] is answered with 200.
//! 3. [`worker::lane`] collects a batch of deliveries and has each mapped by
//!    its adapter to a [`domain::Change`]. What a thin event only names may be
//!    [`fetch`]ed, by [`worker::enrich`] through its [`gate`], before the
//!    transaction begins.
//! 4. [`worker::apply_with_bisection`] claims the keys and writes the changes set by set, in
//!    one transaction of the [`store_batch`]: inbox, orders, invoices, receipts. What
//!    another lane has in hand ([`worker::in_flight`]) follows in a second one.
//! 5. [`worker::settle`] sends what failed on to a retry queue, by the
//!    schedule in [`retry_queue`], or to the dead; then the batch is acknowledged.
//! 6. What other systems must hear was written in that transaction too, and
//!    [`deliver`] takes it to the [`target`]s, each once, whatever is lost.
//! 7. [`worker::archive`] brings the dead into a table, where people
//!    [`review`] them: show, replay, discard.
//! 8. [`worker::housekeeping`] drops what is past retention, whole tables at a
//!    time: generations of the inbox, and partitions of the call log.
//!
//! A file of events ([`import`]) is one call, each item of which goes the same
//! way from 2. on.
//!
//! A call that is refused goes over the broker too, to the worker's call log,
//! which writes it into the receipts, or into the quarantine if it was forged
//! and its source keeps such calls.
//!
//! Around it: [`config`] says what to run, [`service`] runs it over the
//! [`server`] of HTTP, [`ops`], [`health`] and [`metrics`] show it, [`cli`] is
//! how people reach it, [`send`] plays every platform, [`dev`] starts private
//! servers to try it on, [`mod@bench`] tells how fast it is there.
//!
//! Who may import whom is held by a test (`tests/it/architecture.rs`): [`domain`]
//! imports nothing of ours; only [`broker_findings`] speaks AMQP and only [`store_batch`]
//! speaks SQL, and the two never meet.

pub mod domain;

pub mod adapter;
pub mod fetch;
pub mod gate;
pub mod import;
pub mod retry;
pub mod target;
pub mod tls;

pub mod config;
pub mod metrics;

pub mod broker;
pub mod store;

pub mod deliver;
pub mod health;
pub mod receiver;
pub mod review;
pub mod server;
pub mod worker;

pub mod ops;
pub mod send;
pub mod service;
pub mod telemetry;

pub mod bench;
pub mod cli;
pub mod dev;
