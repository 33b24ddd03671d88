//! How hard deliveries are tried: the keys of targets that are called.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::destinations::DeliveryPolicy;

/// The keys as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default = "Raw::max_concurrency")]
    max_concurrency: usize,
    #[serde(default = "Raw::rate_limit_per_second")]
    rate_limit_per_second: u32,
    #[serde(default = "Raw::max_attempts")]
    max_attempts: u32,
    #[serde(default = "Raw::initial_delay_ms")]
    initial_delay_ms: u64,
    #[serde(default = "Raw::max_delay_ms")]
    max_delay_ms: u64,
    #[serde(default = "Raw::circuit_breaker_threshold")]
    circuit_breaker_threshold: u32,
    #[serde(default = "Raw::circuit_breaker_open_ms")]
    circuit_breaker_open_ms: u64,
    #[serde(default = "Raw::timeout_ms")]
    timeout_ms: u64,
}

impl Raw {
    /// What else stands in a section is its kind's.
    pub(super) const KEYS: [&str; 8] = [
        "max_concurrency",
        "rate_limit_per_second",
        "max_attempts",
        "initial_delay_ms",
        "max_delay_ms",
        "circuit_breaker_threshold",
        "circuit_breaker_open_ms",
        "timeout_ms",
    ];

    const fn max_concurrency() -> usize {
        4
    }

    const fn rate_limit_per_second() -> u32 {
        50
    }

    const fn max_attempts() -> u32 {
        8
    }

    const fn initial_delay_ms() -> u64 {
        1000
    }

    const fn max_delay_ms() -> u64 {
        300_000
    }

    const fn circuit_breaker_threshold() -> u32 {
        5
    }

    const fn circuit_breaker_open_ms() -> u64 {
        30_000
    }

    const fn timeout_ms() -> u64 {
        30_000
    }

    /// Checks the keys of the section at `path`.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub(super) fn policy(&self, path: &str) -> anyhow::Result<DeliveryPolicy> {
        ensure!(
            (1..=1000).contains(&self.max_concurrency),
            "{path}.max_concurrency must be 1 to 1000"
        );
        ensure!(
            (1..=100_000).contains(&self.rate_limit_per_second),
            "{path}.rate_limit_per_second must be 1 to 100000"
        );
        ensure!((1..=100).contains(&self.max_attempts), "{path}.max_attempts must be 1 to 100");
        ensure!(
            (1..=1000).contains(&self.circuit_breaker_threshold),
            "{path}.circuit_breaker_threshold must be 1 to 1000"
        );
        for (key, value, range) in [
            ("initial_delay_ms", self.initial_delay_ms, 10..=86_400_000),
            ("max_delay_ms", self.max_delay_ms, self.initial_delay_ms..=86_400_000),
            ("circuit_breaker_open_ms", self.circuit_breaker_open_ms, 100..=300_000),
            ("timeout_ms", self.timeout_ms, 100..=600_000),
        ] {
            let (least, most) = (range.start(), range.end());
            ensure!(range.contains(&value), "{path}.{key} must be {least} to {most}");
        }
        Ok(self.trusted())
    }

    fn trusted(&self) -> DeliveryPolicy {
        DeliveryPolicy {
            max_concurrency: self.max_concurrency,
            rate_limit_per_second: self.rate_limit_per_second,
            max_attempts: self.max_attempts,
            initial_delay: Duration::from_millis(self.initial_delay_ms),
            max_delay: Duration::from_millis(self.max_delay_ms),
            circuit_breaker_threshold: self.circuit_breaker_threshold,
            circuit_breaker_open: Duration::from_millis(self.circuit_breaker_open_ms),
            timeout: Duration::from_millis(self.timeout_ms),
        }
    }
}

/// How hard an exchange's deliveries are tried, so many at once. None of its
/// max_attempts counts, so the rest is as good as any.
pub(super) fn policy_for_batches(size: usize) -> DeliveryPolicy {
    let raw = Raw {
        max_concurrency: size,
        rate_limit_per_second: Raw::rate_limit_per_second(),
        max_attempts: Raw::max_attempts(),
        initial_delay_ms: Raw::initial_delay_ms(),
        max_delay_ms: Raw::max_delay_ms(),
        circuit_breaker_threshold: Raw::circuit_breaker_threshold(),
        circuit_breaker_open_ms: Raw::circuit_breaker_open_ms(),
        timeout_ms: Raw::timeout_ms(),
    };
    raw.trusted()
}
