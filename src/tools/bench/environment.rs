//! The database and the queues of one bench run, on the given servers.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use reqwest::Url;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::baseline::{broker::Broker, database};
use crate::{
    app::{self, Components},
    broker::{BrokerConnection, Publisher, Topology},
    config::{self, Config},
    domain::SourceName,
    observability::metrics::Metrics,
    sources::Source,
    store::Store,
};

/// The configuration of the sources that the bench sends to.
pub(super) const SOURCES: &str = include_str!("sources.toml");
/// The environment variable with their secret.
pub(super) const SECRET: &str = "TALLYHOOK_BENCH_SECRET";

pub(crate) struct BenchEnvironment {
    /// The user's settings with the bench's database, queue prefix and sources.
    pub(super) config: Config,
    /// The bench's sources.
    pub(super) components: Components,
    /// The secret of the bench's sources.
    pub(super) secret: String,
    pub(super) topology: Arc<Topology>,
    /// The database that the worker writes to.
    pub(super) store: Store,
    /// A direct connection for purging and deleting queues.
    pub(super) broker: Broker,
    /// The user's database; only used to create and drop the bench's.
    admin_store: Store,
    /// Names of the databases that this run may have created.
    databases: Vec<String>,
    started: Instant,
}

/// A running publisher of the product; dropping it stops it.
pub(super) struct BenchPublisher {
    pub(super) publisher: Publisher,
    pub(super) metrics: Metrics,
    _stop: DropGuard,
}

impl BenchEnvironment {
    /// Connects to both servers and chooses names. Creates nothing.
    pub(super) async fn new(given: &Config) -> anyhow::Result<Self> {
        let id = Uuid::now_v7().simple().to_string();
        let secret = Uuid::now_v7().to_string();
        let variables = BTreeMap::from([(SECRET.to_owned(), secret.clone())]);
        let bench = Config::from_toml(SOURCES, &variables)?;
        let components = Components::build(&bench)?;
        let database = format!("tallyhook_bench_{id}");
        let mut config = Config {
            sources: bench.sources,
            destinations: bench.destinations,
            secrets: bench.secrets,
            ..given.clone()
        };
        config.broker.prefix = format!("tallyhook-bench-{id}");
        config.database.url = with_database(&given.database.url, &database)?;
        let topology = Arc::new(app::topology(&config));
        let admin_store = Store::without_timeout(&config::DatabaseConfig {
            max_connections: 2,
            ..given.database.clone()
        })
        .context("database.url")?;
        let store = Store::without_timeout(&config.database).context("database.url")?;
        let broker = Broker::open(&config.broker.url).await.context("broker.url")?;
        let databases = vec![database];
        let started = Instant::now();
        Ok(Self {
            config,
            components,
            secret,
            topology,
            store,
            broker,
            admin_store,
            databases,
            started,
        })
    }

    /// Writes the start of a step to standard error.
    pub(super) fn progress(&self, step: &str) {
        eprintln!("{:>4} s  {step}", self.started.elapsed().as_secs());
    }

    /// Creates the database and the queues.
    pub(super) async fn create(&self) -> anyhow::Result<()> {
        for name in &self.databases {
            self.admin_store.create_database(name).await.context(
                "cannot create the bench's database: the role needs CREATEDB, or use --private",
            )?;
        }
        self.store.migrate().await.context("the migrations failed")?;
        let link = self.link().await?;
        let declared = self.topology.declare(&link).await;
        link.close().await;
        Ok(declared?)
    }

    /// Creates and migrates one more database.
    pub(super) async fn create_database(&mut self, suffix: &str) -> anyhow::Result<Store> {
        let name = format!("{}_{suffix}", self.databases[0]);
        self.databases.push(name.clone());
        self.admin_store.create_database(&name).await?;
        let url = with_database(&self.config.database.url, &name)?;
        let store = Store::without_timeout(&config::DatabaseConfig {
            url,
            ..self.config.database.clone()
        })?;
        store.migrate().await?;
        Ok(store)
    }

    pub(super) fn source(&self, name: &SourceName) -> anyhow::Result<&Source> {
        self.components.sources.get(name).context("the bench has no such source")
    }

    /// Empties all tables and queues of the run.
    pub(super) async fn clear(&self) -> anyhow::Result<()> {
        self.purge_queues().await?;
        database::clear(&self.store).await?;
        Ok(())
    }

    pub(super) async fn purge_queues(&self) -> anyhow::Result<()> {
        for queue in self.existing_queues().await? {
            self.broker.purge(&queue).await?;
        }
        Ok(())
    }

    /// Starts a publisher and waits until it is connected.
    pub(super) async fn start_publisher(&self) -> anyhow::Result<BenchPublisher> {
        let stop = CancellationToken::new();
        let metrics = Metrics::new().context("metrics cannot be registered")?;
        let topology = Arc::clone(&self.topology);
        let publisher =
            Publisher::start(&self.config.broker, topology, metrics.clone(), stop.clone());
        tokio::time::timeout(Duration::from_secs(30), publisher.wait_until_ready())
            .await
            .context("the publisher did not connect")?;
        Ok(BenchPublisher { publisher, metrics, _stop: stop.drop_guard() })
    }

    /// A connection of the product.
    pub(super) async fn link(&self) -> anyhow::Result<BrokerConnection> {
        Ok(BrokerConnection::open(&self.config.broker.url, "tallyhook bench").await?)
    }

    async fn existing_queues(&self) -> anyhow::Result<Vec<String>> {
        let link = self.link().await?;
        let depths = self.topology.depths(&link).await;
        link.close().await;
        let existing = depths?.into_iter().filter(|depth| depth.ready.is_some());
        Ok(existing.map(|depth| depth.queue).collect())
    }

    /// Deletes everything that the run created. Goes on after a failure, and
    /// the error names what is left.
    pub(super) async fn delete(self) -> anyhow::Result<()> {
        self.store.close().await;
        let mut dropped = Ok(());
        for name in &self.databases {
            // Child processes may still hold connections.
            let sql = format!("drop database if exists \"{name}\" with (force)");
            let result = self.admin_store.execute(&sql).await;
            dropped = dropped.and(result.with_context(|| format!("the database {name} is left")));
        }
        self.admin_store.close().await;
        let prefix = &self.config.broker.prefix;
        let deleted = self.delete_queues().await.with_context(|| {
            format!("exchanges and queues whose names begin with {prefix} are left")
        });
        self.broker.close().await;
        dropped.and(deleted)
    }

    async fn delete_queues(&self) -> anyhow::Result<()> {
        // A publisher that was stopped while connecting may still declare
        // queues, so this repeats until none is left.
        for _ in 0..10 {
            let queues = self.existing_queues().await?;
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

/// The URL of another database on the same server.
fn with_database(url: &str, database: &str) -> anyhow::Result<String> {
    // The parser's own message could contain the password.
    let mut url: Url =
        url.parse().map_err(|_| anyhow::anyhow!("database.url is not a postgres:// URL"))?;
    url.set_path(database);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_database_keeps_the_server() {
        for (url, expected) in [
            (
                "postgres://ann:pw@db:5433/books?sslmode=require",
                "postgres://ann:pw@db:5433/x?sslmode=require",
            ),
            ("postgres://db", "postgres://db/x"),
            ("postgres:///books?host=/run/pg", "postgres:///x?host=/run/pg"),
        ] {
            assert_eq!(with_database(url, "x").unwrap(), expected);
        }
        let error = with_database("hunter2", "x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
