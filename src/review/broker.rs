//! The broker connection of an operator's action.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    broker::{Publisher, Topology},
    config,
    observability::metrics::Metrics,
};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// A publisher for operators' actions.
pub struct OperatorBroker {
    pub(super) publisher: Publisher,
    pub(super) topology: Arc<Topology>,
    /// Disconnects a publisher of its own when this value is dropped.
    _stop: Option<DropGuard>,
}

/// The broker cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("RabbitMQ is not available, and nothing was published: {0}")]
pub struct BrokerUnavailable(String);

impl OperatorBroker {
    /// Uses the publisher of a running service.
    pub fn new(publisher: Publisher, topology: Arc<Topology>) -> Self {
        Self { publisher, topology, _stop: None }
    }

    /// Connects to the broker. Declares no queues of sources.
    ///
    /// # Errors
    /// `BrokerUnavailable` if there is no connection within 15 s.
    pub async fn connect(
        settings: &config::BrokerConfig,
        metrics: Metrics,
    ) -> Result<Self, BrokerUnavailable> {
        let topology = Arc::new(Topology::publish_only(&settings.prefix));
        let stop = CancellationToken::new();
        let publisher = Publisher::start(settings, Arc::clone(&topology), metrics, stop.clone());
        let stop = stop.drop_guard();
        let is_ready = tokio::time::timeout(CONNECT_TIMEOUT, publisher.wait_until_ready());
        if is_ready.await.is_err() {
            return Err(BrokerUnavailable(publisher.degraded_reason().unwrap_or_default()));
        }
        Ok(Self { publisher, topology, _stop: Some(stop) })
    }
}
