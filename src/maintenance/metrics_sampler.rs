//! Samples what no code path counts: queue depths, open dead letters and
//! deliveries, the newest import, the connection pool.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::{
    broker::{BrokerConnection, BrokerError, Topology, topology::QueueDepth},
    observability::metrics::Metrics,
    store::{
        Store, StoreError,
        dead_letters::{self, DeadLetterCount},
        deliveries::{self, DeliveryCount},
        imports::{self, Import},
    },
};

/// How often the metrics are sampled.
const INTERVAL: Duration = Duration::from_secs(5);

/// Samples every few seconds until `stop` is cancelled.
pub async fn run(
    broker_url: String,
    topology: Arc<Topology>,
    store: Store,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut connection = None;
    let mut sampler = MetricsSampler { topology, store, metrics, sampled_imports: BTreeMap::new() };
    let job = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            sampler.sample_broker(&mut connection, &broker_url).await;
            sampler.sample_database().await;
        }
    };
    tokio::select! {
        () = job => {}
        () = stop.cancelled() => {}
    }
    if let Some(connection) = connection {
        connection.close().await;
    }
}

struct MetricsSampler {
    topology: Arc<Topology>,
    store: Store,
    metrics: Metrics,
    /// The import of each source that its gauge shows.
    sampled_imports: BTreeMap<String, Uuid>,
}

impl MetricsSampler {
    async fn sample_broker(&self, connection: &mut Option<BrokerConnection>, url: &str) {
        match self.depths(connection, url).await {
            Ok(depths) => self.set_depths(depths),
            Err(error) => {
                debug!(%error, "queues cannot be counted");
                *connection = None;
            }
        }
    }

    async fn depths(
        &self,
        connection: &mut Option<BrokerConnection>,
        url: &str,
    ) -> Result<Vec<QueueDepth>, BrokerError> {
        let open = match connection.take().filter(BrokerConnection::is_connected) {
            Some(open) => open,
            None => BrokerConnection::open(url, "tallyhook metrics").await?,
        };
        let depths = self.topology.depths(&open).await;
        *connection = Some(open);
        depths
    }

    fn set_depths(&self, depths: Vec<QueueDepth>) {
        for depth in depths {
            let source = depth.source.as_ref().map_or("", |source| source.as_str());
            let labels = [depth.queue.as_str(), depth.role, source];
            let is_missing = depth.ready.is_none();
            self.metrics.queue_missing.with_label_values(&labels).set(i64::from(is_missing));
            match depth.ready {
                Some(ready) => {
                    let gauge = self.metrics.queue_messages_ready.with_label_values(&labels);
                    gauge.set(i64::from(ready));
                }
                // Fails if there is no series yet.
                None => drop(self.metrics.queue_messages_ready.remove_label_values(&labels)),
            }
        }
    }

    async fn sample_database(&mut self) {
        match self.store.transaction(async |tx| dead_letters::count_open(tx).await).await {
            Ok(counts) => {
                self.metrics.database_up.set(1);
                self.set_dead_letters(counts);
            }
            Err(error) => {
                self.metrics.database_up.set(0);
                debug!(%error, "dead letters cannot be counted");
            }
        }
        match self.store.transaction(async |tx| deliveries::count_by_state(tx, false).await).await {
            Ok(counts) => self.set_deliveries(counts),
            Err(error) => debug!(%error, "deliveries cannot be counted"),
        }
        match self.newest_imports().await {
            Ok(imports) => self.set_duplicate_ratios(imports),
            Err(error) => debug!(%error, "imports cannot be read"),
        }
        let pool = self.store.pool_state();
        let idle = i64::try_from(pool.idle).unwrap_or(i64::MAX);
        let used = (i64::from(pool.open) - idle).max(0);
        let connections = &self.metrics.database_connections;
        connections.with_label_values(&["idle"]).set(idle);
        connections.with_label_values(&["used"]).set(used);
    }

    fn set_dead_letters(&self, counts: Vec<DeadLetterCount>) {
        // A combination without dead letters must lose its old value.
        self.metrics.dead_letters.reset();
        self.metrics.oldest_dead_letter_age.reset();
        for count in counts {
            let labels = [count.reason.as_str(), count.state.as_str()];
            self.metrics.dead_letters.with_label_values(&labels).set(count.count);
            let age = self.metrics.oldest_dead_letter_age.with_label_values(&labels);
            age.set(count.oldest_s);
        }
    }

    fn set_deliveries(&self, counts: Vec<DeliveryCount>) {
        self.metrics.deliveries.reset();
        self.metrics.oldest_delivery_age.reset();
        for count in counts {
            let labels = [count.destination.as_str(), count.state.as_str()];
            self.metrics.deliveries.with_label_values(&labels).set(count.count);
            let age = self.metrics.oldest_delivery_age.with_label_values(&labels);
            age.set(count.oldest_s);
        }
    }

    /// The last completed import of each source, unless its gauge shows it.
    async fn newest_imports(&self) -> Result<Vec<Import>, StoreError> {
        self.store
            .transaction(async |tx| {
                let mut newest = imports::latest_completed(tx).await?;
                newest.retain(|id| !self.sampled_imports.values().any(|sampled| sampled == id));
                imports::find_all(tx, &newest).await
            })
            .await
    }

    fn set_duplicate_ratios(&mut self, imports: Vec<Import>) {
        for import in imports {
            let mut sources = self.topology.sources().iter();
            // Only configured sources become labels.
            if sources.any(|source| source.as_str() == import.source) {
                let ratio = &self.metrics.import_duplicate_ratio;
                ratio.with_label_values(&[&import.source]).set(import.duplicate_rate());
            }
            self.sampled_imports.insert(import.source, import.import_id);
        }
    }
}
