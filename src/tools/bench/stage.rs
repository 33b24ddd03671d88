//! Where a bench plays: a database and a queue prefix of its own on the
//! servers it was given, which go when it ends, however it ends.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use reqwest::Url;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::baseline::{broker::Broker, database};
use crate::{
    app,
    broker::{Publisher, Topology},
    config,
    config::Config,
    domain::SourceName,
    observability::metrics::Metrics,
    sources::Source,
    store::Store,
    worker::{InFlightKeys, Outbox, SecretUsage, WorkerContext, enrich},
};

/// The sources that are sent.
pub const SOURCES: &str = include_str!("sources.toml");
/// The variable that names their secret.
pub const SECRET: &str = "TALLYHOOK_BENCH_SECRET";

/// What of ours is on the servers.
pub struct Stage {
    /// The user's settings, with a database, a prefix and sources of our own.
    pub config: Config,
    /// The secret of this run's sources.
    pub secret: String,
    /// Our exchanges and queues.
    pub topology: Arc<Topology>,
    /// The database that the worker writes to.
    pub store: Store,
    /// The broker, as an operator has it.
    pub broker: Broker,
    /// The user's database: it makes ours, and nothing of it is touched.
    theirs: Store,
    /// The databases that we may have made.
    ours: Vec<String>,
}

/// A publisher of the product's, which stops when this is dropped.
pub struct Publishing {
    /// It publishes.
    pub publisher: Publisher,
    /// What it measures, and what others beside it do.
    pub metrics: Metrics,
    _stop: DropGuard,
}

impl Stage {
    /// Names what will be ours; makes nothing yet but connections.
    ///
    /// # Errors
    /// A server that cannot be reached.
    pub async fn plan(given: &Config) -> anyhow::Result<Self> {
        let id = Uuid::now_v7().simple().to_string();
        let secret = Uuid::now_v7().to_string();
        let variables = BTreeMap::from([(SECRET.to_owned(), secret.clone())]);
        let plain = Config::from_toml(SOURCES, &variables)?;
        let name = format!("tallyhook_bench_{id}");
        let mut config = Config {
            sources: plain.sources,
            enrichments: plain.enrichments,
            destinations: plain.destinations,
            ..given.clone()
        };
        config.broker.prefix = format!("tallyhook-bench-{id}");
        config.database.url = elsewhere(&given.database.url, &name)?;
        let topology = Arc::new(app::topology(&config));
        let theirs = Store::without_timeout(&config::DatabaseConfig {
            max_connections: 2,
            ..given.database.clone()
        })
        .context("database.url")?;
        let store = Store::without_timeout(&config.database).context("database.url")?;
        let broker = Broker::open(&config.broker.url).await.context("broker.url")?;
        Ok(Self { config, secret, topology, store, broker, theirs, ours: vec![name] })
    }

    /// Makes our database and our queues.
    ///
    /// # Errors
    /// What a server says.
    pub async fn set(&self) -> anyhow::Result<()> {
        for name in &self.ours {
            self.theirs.create_database(name).await.context(
                "cannot make a database of the bench's own: it needs a role that may, or --private",
            )?;
        }
        self.store.migrate().await.context("the migrations failed")?;
        let link =
            crate::broker::BrokerConnection::open(&self.config.broker.url, "tallyhook bench")
                .await?;
        let declared = self.topology.declare(&link).await;
        link.close().await;
        Ok(declared?)
    }

    /// One more migrated database, and a store of it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn another(&mut self, suffix: &str) -> anyhow::Result<Store> {
        let name = format!("{}_{suffix}", self.ours[0]);
        self.ours.push(name.clone());
        self.theirs.create_database(&name).await?;
        let url = elsewhere(&self.config.database.url, &name)?;
        let store = Store::without_timeout(&config::DatabaseConfig {
            url,
            ..self.config.database.clone()
        })?;
        store.migrate().await?;
        Ok(store)
    }

    /// A source's adapter.
    ///
    /// # Errors
    /// None: every payload has its source.
    pub fn adapter(&self, source: &SourceName) -> anyhow::Result<&Source> {
        self.config.sources.get(source).context("the bench has no such source")
    }

    /// Empties our tables and queues.
    ///
    /// # Errors
    /// What a server says.
    pub async fn clear(&self) -> anyhow::Result<()> {
        self.purge().await?;
        database::clear(&self.store).await?;
        Ok(())
    }

    /// Empties our queues.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn purge(&self) -> anyhow::Result<()> {
        for queue in self.queues().await? {
            self.broker.purge(&queue).await?;
        }
        Ok(())
    }

    /// Starts a publisher, and waits until it publishes.
    pub async fn publishing(&self) -> anyhow::Result<Publishing> {
        let stop = CancellationToken::new();
        let metrics = Metrics::new().context("metrics cannot be made")?;
        let topology = Arc::clone(&self.topology);
        let publisher =
            Publisher::start(&self.config.broker, topology, metrics.clone(), stop.clone());
        let publishing = Publishing { publisher, metrics, _stop: stop.drop_guard() };
        tokio::time::timeout(Duration::from_secs(30), publishing.publisher.wait_until_ready())
            .await
            .context("the publisher did not connect")?;
        Ok(publishing)
    }

    /// What the worker needs.
    ///
    /// # Errors
    /// The database's URL.
    pub fn tools(&self, with: &Publishing) -> anyhow::Result<WorkerContext> {
        let Config { sources, destinations: targets, enrichments, .. } = &self.config;
        Ok(WorkerContext {
            sources: Arc::clone(sources),
            enrichers: Arc::new(enrich::enrichers(enrichments, &with.metrics)?),
            outbox: Arc::new(Outbox::new(sources.keys(), targets)),
            // As `serve` has it, with its time limits.
            store: Store::new(&self.config.database)?,
            publisher: with.publisher.clone(),
            topology: Arc::clone(&self.topology),
            retry_schedule: self.config.retry.schedule(),
            settings: self.config.worker.clone(),
            in_flight: InFlightKeys::default(),
            secret_usage: SecretUsage::default(),
            metrics: with.metrics.clone(),
        })
    }

    /// Every queue of ours that there is.
    async fn queues(&self) -> anyhow::Result<Vec<String>> {
        let link =
            crate::broker::BrokerConnection::open(&self.config.broker.url, "tallyhook bench")
                .await?;
        let depths = self.topology.depths(&link).await;
        link.close().await;
        let there = depths?.into_iter().filter(|depth| depth.ready.is_some());
        Ok(there.map(|depth| depth.queue).collect())
    }

    /// Takes everything of ours away. One failure does not keep the rest.
    ///
    /// # Errors
    /// What is left, and why.
    pub async fn strike(self) -> anyhow::Result<()> {
        self.store.close().await;
        let mut dropped = Ok(());
        for name in &self.ours {
            // Whatever of ours still holds a connection is to lose it.
            let sql = format!("drop database if exists \"{name}\" with (force)");
            let told = self.theirs.execute(&sql).await;
            dropped = dropped.and(told.with_context(|| format!("the database {name} is left")));
        }
        self.theirs.close().await;
        let prefix = &self.config.broker.prefix;
        let deleted = self.delete().await.with_context(|| {
            format!("exchanges and queues whose names begin with {prefix} are left")
        });
        self.broker.close().await;
        dropped.and(deleted)
    }

    async fn delete(&self) -> anyhow::Result<()> {
        // A publisher that was stopped in the middle of connecting may still
        // be declaring: look again until nothing comes back.
        for _ in 0..10 {
            let queues = self.queues().await?;
            if queues.is_empty() {
                break;
            }
            for queue in queues {
                self.broker.delete(&queue).await?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.broker.delete_exchange(&self.topology.inbound_exchange()).await
    }
}

/// The same server, another database.
fn elsewhere(url: &str, database: &str) -> anyhow::Result<String> {
    // The parser's own complaint might repeat a password.
    let mut url: Url =
        url.parse().map_err(|_| anyhow::anyhow!("database.url is not a postgres:// URL"))?;
    url.set_path(database);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::payload::Payload;

    #[test]
    fn another_database_is_on_the_same_server() {
        for (url, expected) in [
            (
                "postgres://ann:pw@db:5433/books?sslmode=require",
                "postgres://ann:pw@db:5433/x?sslmode=require",
            ),
            ("postgres://db", "postgres://db/x"),
            ("postgres:///books?host=/run/pg", "postgres:///x?host=/run/pg"),
        ] {
            assert_eq!(elsewhere(url, "x").unwrap(), expected);
        }
        let error = elsewhere("hunter2", "x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn every_payload_has_its_source() {
        let variables = BTreeMap::from([(SECRET.to_owned(), "a secret".to_owned())]);
        let config = Config::from_toml(SOURCES, &variables).unwrap();
        for payload in Payload::ALL {
            assert!(config.sources.contains_key(&payload.source().unwrap()), "{payload:?}");
        }
        assert_eq!(config.sources.len(), Payload::ALL.len());
    }
}
