//! One `[targets.<name>]` section: a system that hears of documents.

mod http;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, bail, ensure};
use config::Value;
use serde::Deserialize;

use super::SecretLookup;
use crate::{
    domain::{DocumentEvent, SourceName},
    target::{Effort, Target, Way},
};

/// The kinds of target there are.
pub const KINDS: [&str; 2] = ["http", "rabbitmq"];

/// What every kind has: what it hears of, and how hard it is tried.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Common {
    events: Vec<String>,
    #[serde(default)]
    sources: Vec<SourceName>,
    concurrency: Option<usize>,
    #[serde(default = "Common::per_second")]
    per_second: u32,
    #[serde(default = "Common::attempts")]
    attempts: u32,
    #[serde(default = "Common::first_delay_ms")]
    first_delay_ms: u64,
    #[serde(default = "Common::longest_delay_ms")]
    longest_delay_ms: u64,
    #[serde(default = "Common::breaker_failures")]
    breaker_failures: u32,
    #[serde(default = "Common::breaker_open_ms")]
    breaker_open_ms: u64,
    #[serde(default = "Common::timeout_ms")]
    timeout_ms: u64,
}

impl Common {
    /// Its keys. What else stands in a section is its kind's.
    const KEYS: [&str; 10] = [
        "events",
        "sources",
        "concurrency",
        "per_second",
        "attempts",
        "first_delay_ms",
        "longest_delay_ms",
        "breaker_failures",
        "breaker_open_ms",
        "timeout_ms",
    ];

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

    fn check(&self, path: &str) -> anyhow::Result<()> {
        let concurrency = self.concurrency.unwrap_or(1);
        ensure!((1..=1000).contains(&concurrency), "{path}.concurrency must be 1 to 1000");
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
            ensure!(
                range.contains(&value),
                "{path}.{key} must be {} to {}",
                range.start(),
                range.end()
            );
        }
        Ok(())
    }
}

/// The settings of kind `rabbitmq`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Broker {
    #[serde(default = "Broker::exchange")]
    exchange: String,
    routing_key: Option<String>,
}

impl Broker {
    fn exchange() -> String {
        "tallyhook.events".to_owned()
    }
}

/// Reads and checks a target's section. `sources` are those configured.
///
/// # Errors
/// The first thing that is wrong, with the key.
pub(super) fn target(
    name: &str,
    section: Value,
    sources: &[&SourceName],
    secrets: &SecretLookup,
) -> anyhow::Result<Target> {
    let path = &format!("targets.{name}");
    // It stands in URLs, labels and tables, as a source's does.
    name.parse::<SourceName>().ok().with_context(|| {
        format!("{path}: a target's name must be 1 to 64 characters of a-z, 0-9, - and _")
    })?;
    let mut table = section.into_table().with_context(|| format!("{path} must be a section"))?;
    let kind = table
        .remove("kind")
        .with_context(|| format!("{path}.kind is missing; one of {}", KINDS.join(", ")))?
        .into_string()
        .with_context(|| format!("{path}.kind"))?;
    let common = Common::KEYS
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?)))
        .collect::<std::collections::HashMap<_, _>>();
    let common: Common = Value::new(None, config::ValueKind::Table(common))
        .try_deserialize()
        .with_context(|| path.clone())?;
    common.check(path)?;
    let rest = Value::new(None, config::ValueKind::Table(table));
    let events = events(&common.events).with_context(|| format!("{path}.events"))?;
    let (way, concurrency) = match kind.as_str() {
        "rabbitmq" => {
            let Broker { exchange, routing_key } =
                rest.try_deserialize().with_context(|| path.clone())?;
            for (key, text) in
                [("exchange", Some(&exchange)), ("routing_key", routing_key.as_ref())]
            {
                ensure!(
                    text.is_none_or(|text| (1..=255).contains(&text.len())),
                    "{path}.{key} must be 1 to 255 bytes"
                );
            }
            (Way::Broker { exchange, routing_key }, 200)
        }
        "http" => {
            let timeout = Duration::from_millis(common.timeout_ms);
            let target = http::target(rest, &events, timeout, secrets, path)?;
            (Way::Http(Box::new(target)), 4)
        }
        other => bail!("{path}.kind: {other:?} is not one of {}", KINDS.join(", ")),
    };
    if let Some(stranger) = common.sources.iter().find(|name| !sources.contains(name)) {
        bail!("{path}.sources: no source {stranger} is configured");
    }
    let effort = Effort {
        concurrency: common.concurrency.unwrap_or(concurrency),
        per_second: common.per_second,
        attempts: common.attempts,
        first_delay: Duration::from_millis(common.first_delay_ms),
        longest_delay: Duration::from_millis(common.longest_delay_ms),
        breaker_failures: common.breaker_failures,
        breaker_open: Duration::from_millis(common.breaker_open_ms),
        timeout: Duration::from_millis(common.timeout_ms),
    };
    Ok(Target { name: name.to_owned(), events, sources: common.sources, effort, way })
}

fn events(words: &[String]) -> anyhow::Result<Vec<DocumentEvent>> {
    let known = || DocumentEvent::ALL.iter().map(|event| event.as_str()).collect::<Vec<_>>();
    ensure!(!words.is_empty(), "at least one is needed of {}", known().join(", "));
    let event = |word: &String| {
        DocumentEvent::from_word(word)
            .with_context(|| format!("{word:?} is not one of {}", known().join(", ")))
    };
    // Each once: a target hears nothing twice.
    let events: BTreeSet<DocumentEvent> = words.iter().map(event).collect::<anyhow::Result<_>>()?;
    Ok(events.into_iter().collect())
}
