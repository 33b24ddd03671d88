//! `[retry]`: the retry schedule.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::retry::RetrySchedule;

/// `[retry]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// The delay before the first retry, in milliseconds; 10 or more, default 1000.
    pub initial_delay_ms: u64,
    /// The factor between one delay and the next; 1 to 10, default 2.
    pub multiplier: f64,
    /// The longest delay, in milliseconds; `initial_delay_ms` to 86400000, default 60000.
    pub max_delay_ms: u64,
    /// The most retries after the first failure; at most 20, default 4.
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

    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.initial_delay_ms >= 10, "retry.initial_delay_ms must be 10 or more");
        ensure!((1.0..=10.0).contains(&self.multiplier), "retry.multiplier must be 1 to 10");
        ensure!(
            (self.initial_delay_ms..=86_400_000).contains(&self.max_delay_ms),
            "retry.max_delay_ms must be from retry.initial_delay_ms to 86400000"
        );
        ensure!(self.max_retries <= 20, "retry.max_retries must be at most 20");
        Ok(())
    }
}
