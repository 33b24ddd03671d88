//! The configuration as plain data: `config/default.toml`, then a file, then the environment.
//!
//! [`Config`] is parsed and its ranges are checked here. The sources and destinations that it
//! describes are built in [`crate::app`], which checks the rest. Every error names the key.

mod broker;
mod database;
mod destinations;
mod enrich;
mod log;
mod operations;
mod receiver;
pub mod retention;
mod retry;
mod secret;
mod sources;
mod worker;

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail, ensure};
use config::Value;
use serde::Deserialize;

use crate::domain::SourceName;
pub use broker::BrokerConfig;
pub use database::DatabaseConfig;
pub use destinations::{
    DESTINATION_KINDS, DeliveryPolicyConfig, DestinationConfig, HttpDestinationConfig,
    LookupConfig, RabbitmqDestinationConfig, ResponseConfig, TransportConfig,
};
pub use enrich::EnrichConfig;
pub use log::{LogConfig, LogFormat};
pub use operations::OperationsConfig;
pub use receiver::ReceiverConfig;
pub use retention::{Retention, RetentionConfig};
pub use retry::RetryConfig;
pub use secret::SecretLookup;
pub use sources::{SOURCE_KINDS, SourceConfig};
pub use worker::WorkerConfig;

const DEFAULTS: &str = include_str!("../config/default.toml");
const DEVELOPMENT: &str = include_str!("../config/development.toml");
const MOCK_ACCOUNTING: &str = include_str!("../config/mock_accounting.toml");

/// The address that [`MOCK_ACCOUNTING`] has in place of the real one.
const MOCK_ACCOUNTING_PLACEHOLDER: &str = "http://accounting.example";

/// All settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The HTTP receiver.
    pub receiver: ReceiverConfig,
    /// Metrics and health checks.
    pub operations: OperationsConfig,
    /// RabbitMQ. The URL is resolved.
    pub broker: BrokerConfig,
    /// PostgreSQL. The URL is resolved.
    pub database: DatabaseConfig,
    /// The consumers.
    pub worker: WorkerConfig,
    /// The retry schedule.
    pub retry: RetryConfig,
    /// How long keys and the call log are kept.
    pub retention: RetentionConfig,
    /// Logging.
    pub log: LogConfig,
    /// The platforms that send webhooks; at least one.
    pub sources: BTreeMap<SourceName, SourceConfig>,
    /// The systems that receive documents.
    pub destinations: BTreeMap<String, DestinationConfig>,
    /// Resolves the references to secrets in `sources` and `destinations`.
    pub secrets: SecretLookup,
}

/// Where [`Config::load`] reads settings from, besides the defaults and the environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// A TOML file.
    pub file: Option<&'a Path>,
    /// Adds the built-in development sources and their secrets.
    pub development: bool,
    /// The URL of the mock accounting server. Adds the built-in destination that mirrors imported
    /// invoices to it, unless the file defines a destination of that name.
    pub mock_accounting: Option<&'a str>,
}

/// The file's structure.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    receiver: ReceiverConfig,
    operations: OperationsConfig,
    broker: BrokerConfig,
    database: DatabaseConfig,
    worker: WorkerConfig,
    retry: RetryConfig,
    retention: RetentionConfig,
    log: LogConfig,
    #[serde(default)]
    sources: BTreeMap<String, Value>,
    #[serde(default)]
    destinations: BTreeMap<String, Value>,
}

impl Config {
    /// Reads and checks all settings. Secrets come from the process's environment and from files.
    ///
    /// # Errors
    /// The first invalid setting, with its key.
    pub fn load(options: LoadOptions<'_>) -> anyhow::Result<Self> {
        let environment =
            config::Environment::with_prefix("TALLYHOOK").prefix_separator("__").separator("__");
        Self::load_with(options, environment, SecretLookup::from_environment(options.development))
    }

    /// Reads a TOML text over the defaults. Secrets come from `variables` only.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let merged = config::Config::builder()
            .add_source(toml_source(DEFAULTS))
            .add_source(toml_source(text))
            .build()?;
        Self::parse(merged, SecretLookup::from_variables(variables.clone()))
    }

    /// [`Config::load`] with another environment and other secrets.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_with(
        options: LoadOptions<'_>,
        environment: config::Environment,
        secrets: SecretLookup,
    ) -> anyhow::Result<Self> {
        let mut builder = config::Config::builder().add_source(toml_source(DEFAULTS));
        if options.development {
            builder = builder.add_source(toml_source(DEVELOPMENT));
        }
        let mut mock_accounting = options.mock_accounting;
        let mut file_source = None;
        if let Some(path) = options.file {
            // Parsed as TOML whatever the file's extension.
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            let source = toml_source(&text);
            // Syntax errors quote the line, which may hold a password. Building the file alone
            // finds them before the merge does.
            let file = config::Config::builder().add_source(source.clone()).build();
            let file = file.map_err(|error| {
                anyhow::anyhow!("{}: {}", path.display(), without_quoted_lines(&error.to_string()))
            })?;
            // Never merge the built-in destination with a user-defined one.
            mock_accounting =
                mock_accounting.filter(|_| file.get_table("destinations.accounting").is_err());
            file_source = Some(source);
        }
        if let Some(url) = mock_accounting {
            let text = MOCK_ACCOUNTING.replace(MOCK_ACCOUNTING_PLACEHOLDER, url);
            builder = builder.add_source(toml_source(&text));
        }
        if let Some(source) = file_source {
            builder = builder.add_source(source);
        }
        let merged =
            builder.add_source(environment).build().context("the configuration cannot be read")?;
        Self::parse(merged, secrets).context("the configuration is invalid")
    }

    fn parse(merged: config::Config, secrets: SecretLookup) -> anyhow::Result<Self> {
        let raw: RawConfig = merged.try_deserialize()?;
        let mut sources = BTreeMap::new();
        for (name, section) in raw.sources {
            let path = format!("sources.{name}");
            let source: SourceName = name.parse().with_context(|| path.clone())?;
            if source == SourceName::unknown() {
                bail!("{path}: this name is reserved for messages without a known source");
            }
            sources.insert(source, SourceConfig::parse(section, &path)?);
        }
        let mut destinations = BTreeMap::new();
        for (name, section) in raw.destinations {
            let destination = DestinationConfig::parse(&name, section)?;
            destinations.insert(name, destination);
        }
        let config = Self {
            receiver: raw.receiver,
            operations: raw.operations,
            broker: BrokerConfig {
                url: secrets.resolve_url(&raw.broker.url).context("broker.url")?,
                ..raw.broker
            },
            database: DatabaseConfig {
                url: secrets.resolve_url(&raw.database.url).context("database.url")?,
                ..raw.database
            },
            worker: raw.worker,
            retry: raw.retry,
            retention: raw.retention,
            log: raw.log,
            sources,
            destinations,
            secrets,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.receiver.check()?;
        self.broker.check()?;
        self.database.check()?;
        self.worker.check()?;
        self.retry.check()?;
        self.retention.check_ranges()?;
        ensure!(
            !self.sources.is_empty(),
            "sources: none is configured; add a section such as [sources.shop]"
        );
        for (name, source) in &self.sources {
            ensure!(
                source.enrich.is_none() || self.retry.max_retries > 0,
                "sources.{name}.enrich needs retry.max_retries of 1 or more: events whose \
                 resource cannot be fetched wait in the retry queues"
            );
        }
        for (name, destination) in &self.destinations {
            let unknown =
                destination.sources.iter().find(|source| !self.sources.contains_key(*source));
            if let Some(unknown) = unknown {
                bail!("destinations.{name}.sources: no source {unknown} is configured");
            }
        }
        Ok(())
    }
}

fn toml_source(text: &str) -> config::File<config::FileSourceString, config::FileFormat> {
    config::File::from_str(text, config::FileFormat::Toml)
}

fn check_timeout(key: &str, value: u64) -> anyhow::Result<()> {
    ensure!((100..=600_000).contains(&value), "{key} must be 100 to 600000");
    Ok(())
}

/// A message without the lines that quote the file.
fn without_quoted_lines(message: &str) -> String {
    let lines = message.lines().filter(|line| !line.contains('|'));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
