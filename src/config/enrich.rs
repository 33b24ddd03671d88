//! `[sources.<name>.enrich]`: how the resources that thin events name are fetched.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use config::{Value, ValueKind};
use serde::Deserialize;

use super::sources::parse_list;

/// The largest `body_limit_bytes`: a fetched body is held in memory.
const MAX_BODY_LIMIT_BYTES: usize = 64 * 1024 * 1024;

/// One `[sources.<name>.enrich]` section.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrichConfig {
    /// A URL template for each kind of resource; at least one.
    pub urls: BTreeMap<String, String>,
    /// The hosts that may be called; empty allows the hosts of `urls`.
    #[serde(skip)]
    pub hosts: Vec<String>,
    /// Headers of each request: `env:NAME`, `file:PATH`, `Bearer env:NAME` or `const:TEXT`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Whether hosts may resolve to private addresses; default false.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// How long one fetch may take, in milliseconds; 100 to 60000, default 5000.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
    /// The largest response body, in bytes; 1 to 64 MiB, default 4 MiB.
    #[serde(default = "default_body_limit_bytes")]
    pub body_limit_bytes: usize,
    /// The most fetches in a second; 1 to 1000, default 5.
    #[serde(default = "default_rate_limit_per_second")]
    pub rate_limit_per_second: u32,
    /// The most fetches at once; 1 to 64, default 4.
    #[serde(default = "default_max_concurrency")]
    pub max_concurrency: usize,
    /// Consecutive outage-like failures that open the circuit breaker; 1 to 1000, default 5.
    #[serde(default = "default_circuit_breaker_threshold")]
    pub circuit_breaker_threshold: u32,
    /// How long the circuit breaker stays open at first, in milliseconds; 100 to 300000,
    /// default 30000.
    #[serde(default = "default_circuit_breaker_open_ms")]
    pub circuit_breaker_open_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    5000
}

const fn default_body_limit_bytes() -> usize {
    4 * 1024 * 1024
}

const fn default_rate_limit_per_second() -> u32 {
    5
}

const fn default_max_concurrency() -> usize {
    4
}

const fn default_circuit_breaker_threshold() -> u32 {
    5
}

const fn default_circuit_breaker_open_ms() -> u64 {
    30_000
}

impl EnrichConfig {
    /// # Errors
    /// The first invalid key, with `path` before it.
    pub(super) fn parse(section: Value, path: &str) -> anyhow::Result<Self> {
        let mut table =
            section.into_table().with_context(|| format!("{path} must be a section"))?;
        let hosts = parse_list(table.remove("hosts"), path, "hosts")?;
        let rest = Value::new(None, ValueKind::Table(table));
        let config: Self = rest.try_deserialize().with_context(|| path.to_owned())?;
        config.check(path)?;
        Ok(Self { hosts, ..config })
    }

    fn check(&self, path: &str) -> anyhow::Result<()> {
        ensure!(
            !self.urls.is_empty(),
            "{path}.urls: at least one kind of resource is needed, such as \
             order = \"https://api.example.com/orders/{{id}}\""
        );
        for (key, value, max) in [
            ("timeout_ms", self.timeout_ms, 60_000),
            ("circuit_breaker_open_ms", self.circuit_breaker_open_ms, 300_000),
        ] {
            ensure!((100..=max).contains(&value), "{path}.{key} must be 100 to {max}");
        }
        ensure!(
            (1..=MAX_BODY_LIMIT_BYTES).contains(&self.body_limit_bytes),
            "{path}.body_limit_bytes must be 1 to {MAX_BODY_LIMIT_BYTES}"
        );
        ensure!(
            (1..=1000).contains(&self.rate_limit_per_second),
            "{path}.rate_limit_per_second must be 1 to 1000"
        );
        ensure!((1..=64).contains(&self.max_concurrency), "{path}.max_concurrency must be 1 to 64");
        ensure!(
            (1..=1000).contains(&self.circuit_breaker_threshold),
            "{path}.circuit_breaker_threshold must be 1 to 1000"
        );
        Ok(())
    }
}
