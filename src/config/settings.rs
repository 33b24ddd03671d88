//! The sections that are plain values, with their units and ranges.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::ensure;
use config::Value;
use serde::Deserialize;

use super::retention;
use crate::retry::RetrySchedule;

/// The whole configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) receiver: ReceiverConfig,
    pub(super) operations: OperationsConfig,
    pub(super) broker: BrokerConfig,
    pub(super) database: DatabaseConfig,
    pub(super) worker: WorkerConfig,
    pub(super) retry: RetryConfig,
    pub(super) retention: retention::RetentionConfig,
    pub(super) log: LogConfig,
    #[serde(default)]
    pub(super) sources: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) destinations: BTreeMap<String, Value>,
}

/// `[receiver]`: the HTTP receiver.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The largest body, in bytes; 1 to 15 MiB.
    pub body_limit_bytes: usize,
    /// How long a client may take over its headers, in milliseconds.
    pub header_timeout_ms: u64,
    /// How long a client may take over its body, in milliseconds.
    pub body_timeout_ms: u64,
    /// How many requests may be under way at once.
    pub max_concurrent_requests: usize,
    /// What a 503 tells the sender to wait, in seconds.
    pub retry_after_s: u64,
    /// `tallyhook check` warns of a secret that verified nothing for so many
    /// days while others of its source did; 1 to 3650.
    pub unused_secret_days: u16,
}

/// `[operations]`: metrics and probes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationsConfig {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// `[broker]`: RabbitMQ.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// An `amqp://` or `amqps://` URL.
    pub url: String,
    /// The first part of every exchange's and queue's name.
    pub prefix: String,
    /// Channels that publish at the same time; 1 to 64.
    pub publish_channels: usize,
    /// Messages that may wait for their confirm on each channel; 1 to 4096.
    pub max_unconfirmed: usize,
    /// How long a publish may wait for its confirm, in milliseconds.
    pub confirm_timeout_ms: u64,
    /// Deliveries after which the broker buries a message that nobody
    /// settled; 10 or more. Never -1: RabbitMQ 3.10 takes that for 0.
    pub delivery_limit: u32,
}

/// `[database]`: PostgreSQL.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// A `postgres://` URL.
    pub url: String,
    /// The most connections of this process.
    pub max_connections: u32,
    /// How long a connection may take to come, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a statement may take, in milliseconds.
    pub statement_timeout_ms: u64,
}

/// `[worker]`: the consumer workers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The most messages in one transaction; 1 to 5000.
    pub batch_size: usize,
    /// How long a batch may wait to fill, in milliseconds; at most 1000.
    pub batch_wait_ms: u64,
    /// Consumers for each source; 1 to 32.
    pub consumers_per_source: usize,
    /// With the database away, how long a batch is held before it is handed
    /// back to its queue, in milliseconds.
    pub database_retry_timeout_ms: u64,
    /// A source or an import with more duplicates than this is warned of, in
    /// percent; 1 to 100, and 100 never warns.
    pub duplicate_warning_percent: u8,
}

/// `[retry]`: the retry schedule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// The first delay, in milliseconds; 10 or more.
    pub initial_delay_ms: u64,
    /// What each delay is multiplied by; 1 to 10.
    pub multiplier: f64,
    /// The longest delay, in milliseconds; at most a day.
    pub max_delay_ms: u64,
    /// How many retries follow a first failure; at most 20.
    pub max_retries: u32,
}

impl RetryConfig {
    /// The schedule that these settings describe.
    pub fn schedule(&self) -> RetrySchedule {
        RetrySchedule::exponential(
            Duration::from_millis(self.initial_delay_ms),
            self.multiplier,
            Duration::from_millis(self.max_delay_ms),
            self.max_retries,
        )
    }
}

/// `[log]`: logging.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// A filter of `tracing-subscriber`, such as `info` or `tallyhook=debug`.
    pub filter: String,
    /// How lines are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl RawConfig {
    /// Checks what the types cannot say.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        const MIB: usize = 1024 * 1024;
        let Self { receiver, broker, database, worker, retry, .. } = self;
        ensure!(
            (1..=15 * MIB).contains(&receiver.body_limit_bytes),
            "receiver.body_limit_bytes must be 1 to {} (RabbitMQ takes no message above 16 MiB)",
            15 * MIB
        );
        ensure!(
            receiver.max_concurrent_requests >= 1,
            "receiver.max_concurrent_requests must be 1 or more"
        );
        ensure!(
            (1..=3650).contains(&receiver.unused_secret_days),
            "receiver.unused_secret_days must be 1 to 3650"
        );
        for (key, value) in [
            ("receiver.header_timeout_ms", receiver.header_timeout_ms),
            ("receiver.body_timeout_ms", receiver.body_timeout_ms),
            ("broker.confirm_timeout_ms", broker.confirm_timeout_ms),
            ("database.connect_timeout_ms", database.connect_timeout_ms),
            ("database.statement_timeout_ms", database.statement_timeout_ms),
        ] {
            ensure!((100..=600_000).contains(&value), "{key} must be 100 to 600000");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        ensure!(
            (1..=100).contains(&broker.prefix.len()) && broker.prefix.chars().all(legal),
            "broker.prefix must be 1 to 100 characters of a-z, A-Z, 0-9, '-', '_' and '.'"
        );
        ensure!(
            (1..=64).contains(&broker.publish_channels),
            "broker.publish_channels must be 1 to 64"
        );
        ensure!(
            (1..=4096).contains(&broker.max_unconfirmed),
            "broker.max_unconfirmed must be 1 to 4096"
        );
        ensure!(broker.delivery_limit >= 10, "broker.delivery_limit must be 10 or more");
        ensure!(database.max_connections >= 2, "database.max_connections must be 2 or more");
        ensure!((1..=5000).contains(&worker.batch_size), "worker.batch_size must be 1 to 5000");
        ensure!(worker.batch_wait_ms <= 1000, "worker.batch_wait_ms must be at most 1000");
        ensure!(
            (1..=32).contains(&worker.consumers_per_source),
            "worker.consumers_per_source must be 1 to 32"
        );
        ensure!(
            // RabbitMQ closes a channel whose delivery waits 30 minutes.
            worker.database_retry_timeout_ms <= 600_000,
            "worker.database_retry_timeout_ms must be at most 600000"
        );
        ensure!(
            (1..=100).contains(&worker.duplicate_warning_percent),
            "worker.duplicate_warning_percent must be 1 to 100"
        );
        ensure!(retry.initial_delay_ms >= 10, "retry.initial_delay_ms must be 10 or more");
        ensure!((1.0..=10.0).contains(&retry.multiplier), "retry.multiplier must be 1 to 10");
        ensure!(
            (retry.initial_delay_ms..=86_400_000).contains(&retry.max_delay_ms),
            "retry.max_delay_ms must be from retry.initial_delay_ms to 86400000"
        );
        ensure!(retry.max_retries <= 20, "retry.max_retries must be at most 20");
        Ok(())
    }
}
