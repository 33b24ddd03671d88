//! `[destinations.<name>]`: a system that receives documents.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, bail, ensure};
use config::{Value, ValueKind};
use serde::Deserialize;

use super::sources::parse_list;
use crate::domain::{DocumentEvent, SourceName};

/// The kinds of destination.
pub const DESTINATION_KINDS: [&str; 2] = ["http", "rabbitmq"];

/// One `[destinations.<name>]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationConfig {
    /// The events that are delivered, each once; at least one.
    pub events: Vec<DocumentEvent>,
    /// The sources whose documents are delivered; empty for all.
    pub sources: Vec<SourceName>,
    /// The keys of the kind.
    pub transport: TransportConfig,
}

/// The keys of a destination's kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportConfig {
    /// `kind = "http"`.
    Http(Box<HttpDestinationConfig>),
    /// `kind = "rabbitmq"`.
    Rabbitmq(RabbitmqDestinationConfig),
}

/// How deliveries are attempted, in each process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryPolicyConfig {
    /// The most deliveries at once; 1 to 1000, default 4.
    pub max_concurrency: usize,
    /// The most deliveries in a second; 1 to 100000, default 50.
    pub rate_limit_per_second: u32,
    /// Counted attempts before the delivery is dead-lettered; 1 to 100, default 8.
    pub max_attempts: u32,
    /// The delay after the first failed attempt, which then doubles, in milliseconds;
    /// 10 to 86400000, default 1000.
    pub initial_delay_ms: u64,
    /// The longest delay, in milliseconds; `initial_delay_ms` to 86400000, default 300000.
    pub max_delay_ms: u64,
    /// Consecutive outage-like failures that open the circuit breaker; 1 to 1000, default 5.
    pub circuit_breaker_threshold: u32,
    /// How long the circuit breaker stays open at first, in milliseconds; 100 to 300000,
    /// default 30000.
    pub circuit_breaker_open_ms: u64,
    /// How long one request may take, in milliseconds; 100 to 600000, default 30000.
    pub timeout_ms: u64,
}

impl Default for DeliveryPolicyConfig {
    fn default() -> Self {
        Self {
            max_concurrency: 4,
            rate_limit_per_second: 50,
            max_attempts: 8,
            initial_delay_ms: 1000,
            max_delay_ms: 300_000,
            circuit_breaker_threshold: 5,
            circuit_breaker_open_ms: 30_000,
            timeout_ms: 30_000,
        }
    }
}

/// The keys of kind `http`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpDestinationConfig {
    /// How deliveries are attempted. In the file, these keys are next to the others.
    #[serde(skip)]
    pub policy: DeliveryPolicyConfig,
    /// The URL template that documents are sent to.
    pub url: String,
    /// `POST` or `PUT`; default `POST`.
    #[serde(default = "default_method")]
    pub method: String,
    /// The media type of the body; default `application/json`.
    #[serde(default = "default_content_type")]
    pub content_type: String,
    /// The body template.
    pub body: String,
    /// The header that carries the idempotency key; default `Idempotency-Key`. Empty for a
    /// destination without idempotency keys, which then needs `lookup`.
    #[serde(default = "default_idempotency_header")]
    pub idempotency_header: String,
    /// Whether hosts may resolve to private addresses; default false.
    #[serde(default)]
    pub allow_private_addresses: bool,
    /// Headers of each request: `env:NAME`, `file:PATH`, `Bearer env:NAME` or `const:TEXT`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// How responses are read.
    #[serde(default)]
    pub response: ResponseConfig,
    /// How a document is looked up after a request without a response, if that is possible.
    pub lookup: Option<LookupConfig>,
}

/// `[destinations.<name>.response]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponseConfig {
    /// The JSON pointer of the destination's own id. With this, a success without an id is
    /// uncertain.
    pub id: Option<String>,
    /// A 4xx response with one of these texts means that the document exists; default
    /// `already exists`.
    pub already_exists: Vec<String>,
}

impl Default for ResponseConfig {
    fn default() -> Self {
        Self { id: None, already_exists: vec!["already exists".to_owned()] }
    }
}

/// `[destinations.<name>.lookup]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookupConfig {
    /// The URL template of the request.
    pub url: String,
    /// The JSON pointer of the destination's own id in the response.
    pub id: String,
    /// JSON pointers of the response and the document's fields that they must equal.
    #[serde(default)]
    pub matches: BTreeMap<String, String>,
}

/// The keys of kind `rabbitmq`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RabbitmqDestinationConfig {
    /// A durable topic exchange, declared if missing; default `tallyhook.events`.
    #[serde(default = "default_exchange")]
    pub exchange: String,
    /// The routing key; default the event's name.
    pub routing_key: Option<String>,
    /// The most deliveries in one batch; 1 to 1000, default 200.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
}

fn default_method() -> String {
    "POST".to_owned()
}

fn default_content_type() -> String {
    "application/json".to_owned()
}

fn default_idempotency_header() -> String {
    "Idempotency-Key".to_owned()
}

fn default_exchange() -> String {
    "tallyhook.events".to_owned()
}

const fn default_batch_size() -> usize {
    200
}

impl DestinationConfig {
    /// # Errors
    /// The first invalid key, with its path.
    pub(super) fn parse(name: &str, section: Value) -> anyhow::Result<Self> {
        let path = &format!("destinations.{name}");
        // The name is part of URLs, metric labels and rows, as a source's is.
        name.parse::<SourceName>().ok().with_context(|| {
            format!("{path}: a destination's name must be 1 to 64 characters of a-z, 0-9, - and _")
        })?;
        let mut table =
            section.into_table().with_context(|| format!("{path} must be a section"))?;
        let kind = table
            .remove("kind")
            .with_context(|| {
                format!("{path}.kind is missing; one of {}", DESTINATION_KINDS.join(", "))
            })?
            .into_string()
            .with_context(|| format!("{path}.kind"))?;
        let names = parse_list(table.remove("events"), path, "events")?;
        let events = parse_events(&names).with_context(|| format!("{path}.events"))?;
        let names = parse_list(table.remove("sources"), path, "sources")?;
        let sources = names
            .iter()
            .map(|name| Ok(name.parse()?))
            .collect::<anyhow::Result<_>>()
            .with_context(|| format!("{path}.sources"))?;
        let transport = match kind.as_str() {
            "http" => TransportConfig::Http(Box::new(HttpDestinationConfig::parse(table, path)?)),
            "rabbitmq" => {
                let config: RabbitmqDestinationConfig = deserialize(table, path)?;
                config.check(path)?;
                TransportConfig::Rabbitmq(config)
            }
            other => {
                bail!("{path}.kind: {other:?} is not one of {}", DESTINATION_KINDS.join(", "))
            }
        };
        Ok(Self { events, sources, transport })
    }
}

impl HttpDestinationConfig {
    fn parse(mut table: HashMap<String, Value>, path: &str) -> anyhow::Result<Self> {
        let policy_keys = DeliveryPolicyConfig::KEYS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), table.remove(*key)?)))
            .collect();
        let policy: DeliveryPolicyConfig = deserialize(policy_keys, path)?;
        policy.check(path)?;
        let config: Self = deserialize(table, path)?;
        Ok(Self { policy, ..config })
    }
}

impl DeliveryPolicyConfig {
    /// All other keys of a section belong to its kind.
    const KEYS: [&str; 8] = [
        "max_concurrency",
        "rate_limit_per_second",
        "max_attempts",
        "initial_delay_ms",
        "max_delay_ms",
        "circuit_breaker_threshold",
        "circuit_breaker_open_ms",
        "timeout_ms",
    ];

    fn check(&self, path: &str) -> anyhow::Result<()> {
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
            let (min, max) = (range.start(), range.end());
            ensure!(range.contains(&value), "{path}.{key} must be {min} to {max}");
        }
        Ok(())
    }
}

impl RabbitmqDestinationConfig {
    fn check(&self, path: &str) -> anyhow::Result<()> {
        let texts =
            [("exchange", Some(&self.exchange)), ("routing_key", self.routing_key.as_ref())];
        for (key, text) in texts {
            ensure!(
                text.is_none_or(|text| (1..=255).contains(&text.len())),
                "{path}.{key} must be 1 to 255 bytes"
            );
        }
        ensure!((1..=1000).contains(&self.batch_size), "{path}.batch_size must be 1 to 1000");
        Ok(())
    }
}

fn deserialize<T: serde::de::DeserializeOwned>(
    table: HashMap<String, Value>,
    path: &str,
) -> anyhow::Result<T> {
    let section = Value::new(None, ValueKind::Table(table));
    section.try_deserialize().with_context(|| path.to_owned())
}

fn parse_events(names: &[String]) -> anyhow::Result<Vec<DocumentEvent>> {
    let known = || DocumentEvent::ALL.iter().map(|event| event.as_str()).collect::<Vec<_>>();
    ensure!(!names.is_empty(), "at least one is needed of {}", known().join(", "));
    let parse = |name: &String| {
        name.parse::<DocumentEvent>()
            .ok()
            .with_context(|| format!("{name:?} is not one of {}", known().join(", ")))
    };
    // A set: an event that is listed twice is delivered once.
    let events: BTreeSet<DocumentEvent> = names.iter().map(parse).collect::<anyhow::Result<_>>()?;
    Ok(events.into_iter().collect())
}
