//! How the parts of a process are connected. The app, the commands, the bench and the tests all
//! use it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::Components;
use crate::{
    broker::{Publisher, Topology},
    config::{Config, DatabaseConfig},
    delivery::DeliveryContext,
    observability::metrics::Metrics,
    receiver::{ImportStatusReader, Receiver},
    store::Store,
    worker::{InFlightKeys, SecretUsage, WorkerContext, enrich},
};

/// The longest wait for the database during an HTTP request.
const RESPONSE_TIMEOUT_MS: u64 = 5000;

/// What all parts of a process share.
#[derive(Clone)]
pub struct Shared {
    /// The exchanges and queues.
    pub topology: Arc<Topology>,
    /// The connection that publishes.
    pub publisher: Publisher,
    /// The metrics.
    pub metrics: Metrics,
}

impl Shared {
    /// The HTTP receiver. `status_store` answers questions about imports.
    pub fn receiver(
        &self,
        config: &Config,
        components: &Components,
        status_store: Store,
    ) -> Receiver {
        Receiver::new(
            config.receiver.clone(),
            Arc::clone(&components.sources),
            Arc::clone(&self.topology),
            self.publisher.clone(),
            ImportStatusReader::new(status_store),
            self.metrics.clone(),
        )
    }

    /// What the consumers need.
    ///
    /// # Errors
    /// The HTTP client of an enricher cannot be built.
    pub fn worker_context(
        &self,
        config: &Config,
        components: &Components,
        store: Store,
    ) -> anyhow::Result<WorkerContext> {
        self.metrics.register_outcomes(components.sources.keys());
        let enrichers = enrich::enrichers(&components.enrichments, &self.metrics)?;
        Ok(WorkerContext {
            sources: Arc::clone(&components.sources),
            enrichers: Arc::new(enrichers),
            outbox: Arc::new(components.outbox()),
            store,
            publisher: self.publisher.clone(),
            topology: Arc::clone(&self.topology),
            retry_schedule: config.retry.schedule(),
            settings: config.worker.clone(),
            in_flight: InFlightKeys::default(),
            secret_usage: SecretUsage::default(),
            metrics: self.metrics.clone(),
        })
    }

    /// What deliveries need. They start when the worker writes to the outbox.
    pub fn delivery_context(&self, config: &Config, worker: &WorkerContext) -> DeliveryContext {
        DeliveryContext {
            store: worker.store.clone(),
            broker_url: config.broker.url.clone(),
            confirm_timeout: Duration::from_millis(config.broker.confirm_timeout_ms),
            outbox_changed: worker.outbox.notifier(),
            metrics: self.metrics.clone(),
        }
    }
}

/// The exchanges and queues of a configuration.
pub fn topology(config: &Config) -> Topology {
    Topology::new(
        &config.broker.prefix,
        config.broker.delivery_limit,
        config.retry.schedule().tiers(),
        config.sources.keys().cloned(),
    )
}

/// The store that answers questions about imports: with connections of its own, so that it takes
/// none from the worker, and with timeouts that suit an HTTP request.
pub(super) fn status_store(config: &DatabaseConfig) -> anyhow::Result<Store> {
    let config = DatabaseConfig {
        max_connections: 2,
        connect_timeout_ms: config.connect_timeout_ms.min(RESPONSE_TIMEOUT_MS),
        statement_timeout_ms: config.statement_timeout_ms.min(RESPONSE_TIMEOUT_MS),
        ..config.clone()
    };
    Store::new(&config).context("database.url")
}

/// The store of the maintenance tasks. Vacuuming a large table takes long.
pub(super) fn maintenance_store(config: &DatabaseConfig) -> anyhow::Result<Store> {
    const HOUR_MS: u64 = 3_600_000;
    let config =
        DatabaseConfig { max_connections: 2, statement_timeout_ms: HOUR_MS, ..config.clone() };
    Store::new(&config).context("database.url")
}
