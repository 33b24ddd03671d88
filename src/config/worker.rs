//! `[worker]`: the consumers.

use anyhow::ensure;
use serde::Deserialize;

/// `[worker]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// The most messages in one transaction; 1 to 5000, default 500.
    pub batch_size: usize,
    /// How long to wait for a batch to fill, in milliseconds; at most 1000, default 5.
    pub batch_wait_ms: u64,
    /// Consumers of each source's queue; 1 to 32, default 2.
    pub consumers_per_source: usize,
    /// How long a batch is retried while PostgreSQL is unavailable before its messages go back
    /// to their queue, in milliseconds; at most 600000, default 10000.
    pub database_retry_timeout_ms: u64,
    /// A warning is logged about a source or an import with a larger share of duplicates, in
    /// percent; 1 to 100, default 5. 100 never warns.
    pub duplicate_warning_percent: u8,
}

impl WorkerConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=5000).contains(&self.batch_size), "worker.batch_size must be 1 to 5000");
        ensure!(self.batch_wait_ms <= 1000, "worker.batch_wait_ms must be at most 1000");
        ensure!(
            (1..=32).contains(&self.consumers_per_source),
            "worker.consumers_per_source must be 1 to 32"
        );
        ensure!(
            // RabbitMQ closes a channel whose delivery is unacknowledged for 30 minutes.
            self.database_retry_timeout_ms <= 600_000,
            "worker.database_retry_timeout_ms must be at most 600000"
        );
        ensure!(
            (1..=100).contains(&self.duplicate_warning_percent),
            "worker.duplicate_warning_percent must be 1 to 100"
        );
        Ok(())
    }
}
