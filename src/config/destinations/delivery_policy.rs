//! How hard deliveries are tried: the keys of targets that are called.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;

use crate::destinations::DeliveryPolicy;

/// The keys as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    #[serde(default = "Raw::concurrency")]
    concurrency: usize,
    #[serde(default = "Raw::per_second")]
    per_second: u32,
    #[serde(default = "Raw::attempts")]
    attempts: u32,
    #[serde(default = "Raw::first_delay_ms")]
    first_delay_ms: u64,
    #[serde(default = "Raw::longest_delay_ms")]
    longest_delay_ms: u64,
    #[serde(default = "Raw::breaker_failures")]
    breaker_failures: u32,
    #[serde(default = "Raw::breaker_open_ms")]
    breaker_open_ms: u64,
    #[serde(default = "Raw::timeout_ms")]
    timeout_ms: u64,
}

impl Raw {
    /// What else stands in a section is its kind's.
    pub(super) const KEYS: [&str; 8] = [
        "concurrency",
        "per_second",
        "attempts",
        "first_delay_ms",
        "longest_delay_ms",
        "breaker_failures",
        "breaker_open_ms",
        "timeout_ms",
    ];

    const fn concurrency() -> usize {
        4
    }

    const fn per_second() -> u32 {
        50
    }

    const fn attempts() -> u32 {
        8
    }

    const fn first_delay_ms() -> u64 {
        1000
    }

    const fn longest_delay_ms() -> u64 {
        300_000
    }

    const fn breaker_failures() -> u32 {
        5
    }

    const fn breaker_open_ms() -> u64 {
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
        ensure!((1..=1000).contains(&self.concurrency), "{path}.concurrency must be 1 to 1000");
        ensure!((1..=100_000).contains(&self.per_second), "{path}.per_second must be 1 to 100000");
        ensure!((1..=100).contains(&self.attempts), "{path}.attempts must be 1 to 100");
        ensure!(
            (1..=1000).contains(&self.breaker_failures),
            "{path}.breaker_failures must be 1 to 1000"
        );
        for (key, value, range) in [
            ("first_delay_ms", self.first_delay_ms, 10..=86_400_000),
            ("longest_delay_ms", self.longest_delay_ms, self.first_delay_ms..=86_400_000),
            ("breaker_open_ms", self.breaker_open_ms, 100..=300_000),
            ("timeout_ms", self.timeout_ms, 100..=600_000),
        ] {
            let (least, most) = (range.start(), range.end());
            ensure!(range.contains(&value), "{path}.{key} must be {least} to {most}");
        }
        Ok(self.trusted())
    }

    fn trusted(&self) -> DeliveryPolicy {
        DeliveryPolicy {
            max_concurrency: self.concurrency,
            rate_limit_per_second: self.per_second,
            max_attempts: self.attempts,
            initial_delay: Duration::from_millis(self.first_delay_ms),
            max_delay: Duration::from_millis(self.longest_delay_ms),
            circuit_breaker_threshold: self.breaker_failures,
            circuit_breaker_open: Duration::from_millis(self.breaker_open_ms),
            timeout: Duration::from_millis(self.timeout_ms),
        }
    }
}

/// How hard an exchange's deliveries are tried, so many at once. None of its
/// attempts counts, so the rest is as good as any.
pub(super) fn policy_for_batches(size: usize) -> DeliveryPolicy {
    let raw = Raw {
        concurrency: size,
        per_second: Raw::per_second(),
        attempts: Raw::attempts(),
        first_delay_ms: Raw::first_delay_ms(),
        longest_delay_ms: Raw::longest_delay_ms(),
        breaker_failures: Raw::breaker_failures(),
        breaker_open_ms: Raw::breaker_open_ms(),
        timeout_ms: Raw::timeout_ms(),
    };
    raw.trusted()
}
