//! For those who operate it: the address with `/metrics` and the probes, and
//! the task that measures what is not measured on the way.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Response, StatusCode},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    broker::{BrokerConnection, Topology, topology::QueueDepth},
    maintenance::{duplicate_alert::DuplicateAlert, import_completion::ImportCompletion},
    net::http_server::serve,
    observability::{
        health::{Health, livez, readyz, respond},
        metrics::Metrics,
    },
    store::{Store, dead_letters, deliveries},
};

/// How often queues, dead letters and the pool are measured.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

async fn metrics(State(metrics): State<Metrics>) -> Response<Body> {
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
}

/// Serves the operations address until stopped.
pub async fn run(listener: TcpListener, shown: Metrics, health: Health, stop: CancellationToken) {
    let app = Router::new()
        .route("/metrics", get(metrics).with_state(shown))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(health));
    serve(listener, app, Duration::from_secs(10), stop).await;
}

/// Measures queues, dead letters, imports and the pool every few seconds until
/// stopped, and warns of sources and imports with more duplicates than
/// `duplicate_warning_percent`.
pub async fn sample(
    broker_url: String,
    topology: Arc<Topology>,
    store: Store,
    metrics: Metrics,
    duplicate_warning_percent: u8,
    stop: CancellationToken,
) {
    let mut link = None;
    let mut watch = DuplicateAlert::new(duplicate_warning_percent);
    let mut summaries = ImportCompletion::new(duplicate_warning_percent, topology.sources());
    let measuring = async {
        loop {
            tokio::time::sleep(SAMPLE_INTERVAL).await;
            measure_broker(&mut link, &broker_url, &topology, &metrics).await;
            measure_database(&store, &metrics).await;
            summaries.complete_imports(&store, &metrics).await;
            watch.check(&metrics);
        }
    };
    tokio::select! {
        () = measuring => {}
        () = stop.cancelled() => {}
    }
    if let Some(link) = link {
        link.close().await;
    }
}

async fn measure_broker(
    link: &mut Option<BrokerConnection>,
    url: &str,
    topology: &Topology,
    metrics: &Metrics,
) {
    match depths(link, url, topology).await {
        Ok(depths) => show_depths(metrics, depths),
        Err(error) => {
            debug!(error, "queues cannot be counted");
            *link = None;
        }
    }
}

async fn measure_database(store: &Store, metrics: &Metrics) {
    match store.with_timeout(dead_letter_counts(store)).await {
        Ok(counts) => {
            metrics.database_up.set(1);
            show_dead_letters(metrics, counts);
        }
        Err(error) => {
            metrics.database_up.set(0);
            debug!(%error, "dead letters cannot be counted");
        }
    }
    match store.with_timeout(delivery_counts(store)).await {
        Ok(counts) => show_deliveries(metrics, counts),
        Err(error) => debug!(%error, "deliveries cannot be counted"),
    }
    let pool = store.pool_state();
    let idle = i64::try_from(pool.idle).unwrap_or(i64::MAX);
    let open = i64::from(pool.open);
    metrics.database_connections.with_label_values(&["idle"]).set(idle);
    metrics.database_connections.with_label_values(&["used"]).set((open - idle).max(0));
}

async fn depths(
    link: &mut Option<BrokerConnection>,
    url: &str,
    topology: &Topology,
) -> Result<Vec<QueueDepth>, String> {
    let open = match link.take().filter(BrokerConnection::is_connected) {
        Some(open) => open,
        None => BrokerConnection::open(url, "tallyhook measure")
            .await
            .map_err(|error| error.to_string())?,
    };
    let depths = topology.depths(&open).await.map_err(|error| error.to_string());
    *link = Some(open);
    depths
}

fn show_depths(metrics: &Metrics, depths: Vec<QueueDepth>) {
    for depth in depths {
        let source = depth.source.as_ref().map_or("", |source| source.as_str());
        metrics
            .queue_messages_ready
            .with_label_values(&[depth.queue.as_str(), depth.role, source])
            .set(depth.ready.map_or(-1, i64::from));
    }
}

async fn dead_letter_counts(
    store: &Store,
) -> Result<Vec<dead_letters::DeadLetterCount>, crate::store::StoreError> {
    let mut tx = store.begin().await?;
    let counts = dead_letters::count_open(&mut tx).await?;
    tx.commit().await?;
    Ok(counts)
}

async fn delivery_counts(
    store: &Store,
) -> Result<Vec<deliveries::DeliveryCount>, crate::store::StoreError> {
    let mut tx = store.begin().await?;
    let counts = deliveries::count_by_state(&mut tx, false).await?;
    tx.commit().await?;
    Ok(counts)
}

fn show_deliveries(metrics: &Metrics, counts: Vec<deliveries::DeliveryCount>) {
    metrics.deliveries.reset();
    metrics.oldest_delivery_age.reset();
    for count in counts {
        let labels = [count.destination.as_str(), count.state.as_str()];
        metrics.deliveries.with_label_values(&labels).set(count.count);
        metrics.oldest_delivery_age.with_label_values(&labels).set(count.oldest_s);
    }
}

fn show_dead_letters(metrics: &Metrics, counts: Vec<dead_letters::DeadLetterCount>) {
    // What is gone must not stay on the dashboard.
    metrics.dead_letters.reset();
    metrics.oldest_dead_letter_age.reset();
    for count in counts {
        let labels = [count.reason.as_str(), count.state.as_str()];
        metrics.dead_letters.with_label_values(&labels).set(count.count);
        metrics.oldest_dead_letter_age.with_label_values(&labels).set(count.oldest_s);
    }
}
