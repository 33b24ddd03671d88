//! `receive`: how many webhooks a second are verified, confirmed by the broker
//! and answered, and the latency at half of that rate.
//!
//! The bare confirmed publish behind HTTP runs alternately with the product,
//! under the same load.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BenchOptions,
    baseline::{broker::Broker, receiver as bare_receiver},
    environment::{BenchEnvironment, BenchPublisher},
    load::{self, PreparedRequest, Response, Target},
    measure::{Percentiles, per_second, ratio, rounded_median},
    payload::Payload,
    report::{Measured, Row, milliseconds, rate},
    schedule::Schedule,
};
use crate::{app::Shared, observability::health::HealthRegistry};

/// Requests that are prepared and then sent repeatedly. The receiver does not
/// detect duplicates.
pub(super) const PREPARED: u32 = 256;

/// An HTTP server on its own port; dropping it stops it.
pub(super) struct HttpServer {
    pub(super) address: SocketAddr,
    _stop: DropGuard,
    _task: JoinSet<()>,
}

impl HttpServer {
    /// The product's receiver.
    async fn product(
        environment: &BenchEnvironment,
        publisher: &BenchPublisher,
    ) -> anyhow::Result<Self> {
        let shared = Shared {
            topology: Arc::clone(&environment.topology),
            publisher: publisher.publisher.clone(),
            metrics: publisher.metrics.clone(),
        };
        // The store is only used by requests for the status of imports.
        let store = environment.store.clone();
        let receiver = shared.receiver(&environment.config, &environment.components, store);
        let (listener, address) = listen().await?;
        let stop = CancellationToken::new();
        let serve = receiver.run(listener, HealthRegistry::default(), stop.clone());
        Ok(Self::spawn(address, stop, serve))
    }

    /// The bare confirmed publish.
    pub(super) async fn bare(
        environment: &BenchEnvironment,
        broker: &Broker,
    ) -> anyhow::Result<Self> {
        let (listener, address) = listen().await?;
        let stop = CancellationToken::new();
        let serve = bare_receiver::serve(environment, broker, listener, stop.clone()).await?;
        Ok(Self::spawn(address, stop, serve))
    }

    fn spawn(
        address: SocketAddr,
        stop: CancellationToken,
        serve: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let mut task = JoinSet::new();
        task.spawn(serve);
        Self { address, _stop: stop.drop_guard(), _task: task }
    }
}

async fn listen() -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    let publisher = environment.start_publisher().await?;
    let product = HttpServer::product(environment, &publisher).await?;
    let broker = Broker::open(&environment.config.broker.url).await?;
    let bare = HttpServer::bare(environment, &broker).await?;
    let (mut payloads, mut rows) = (Map::new(), Vec::new());
    for payload in Payload::ALL {
        let requests = load::prepare(environment, payload, PREPARED)?;
        let (figures, row) =
            compare(environment, options, payload.title(), requests, &product, &bare).await?;
        payloads.insert(payload.key().to_owned(), figures);
        rows.push(row);
    }
    let total = Payload::ALL.len() * usize::try_from(PREPARED)?;
    let mixed = load::prepare_mixed(environment, total)?;
    let (mixed, row) =
        compare(environment, options, "all payloads alternately", mixed, &product, &bare).await?;
    rows.push(row);
    broker.close().await;
    // The headline is the 2 kB payload.
    let mut figures = payloads[Payload::Generic.key()].clone();
    figures["payloads"] = Value::Object(payloads);
    figures["mixed"] = mixed;
    Ok(Measured { figures, rows })
}

/// The figures of one run.
struct Run {
    product: f64,
    bare: f64,
    at_maximum: Percentiles,
    at_half: Percentiles,
}

async fn compare(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    title: &str,
    requests: Vec<PreparedRequest>,
    product: &HttpServer,
    bare: &HttpServer,
) -> anyhow::Result<(Value, Row)> {
    let requests = Arc::new(requests);
    let [product, bare] = [product, bare].map(|server| Target {
        address: server.address,
        requests: Arc::clone(&requests),
        connections: options.connections,
    });
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        environment.progress(&format!("receive, {title}, run {run}"));
        // The order alternates, so that neither always gets the warmer servers.
        let (latencies, bare_latencies) = if run % 2 == 1 {
            let latencies = maximum(environment, options, &product).await?;
            (latencies, maximum(environment, options, &bare).await?)
        } else {
            let bare_latencies = maximum(environment, options, &bare).await?;
            (maximum(environment, options, &product).await?, bare_latencies)
        };
        let rate = per_second(latencies.len(), options.load_duration);
        let at_half = at_half(options, &product, rate).await?;
        environment.purge_queues().await?;
        runs.push(Run {
            product: rate,
            bare: per_second(bare_latencies.len(), options.load_duration),
            at_maximum: Percentiles::of(latencies),
            at_half: Percentiles::of(at_half),
        });
    }
    let percentiles =
        |of: fn(&Run) -> Percentiles| Percentiles::median(&runs.iter().map(of).collect::<Vec<_>>());
    let (at_maximum, at_half) = (percentiles(|run| run.at_maximum), percentiles(|run| run.at_half));
    let median = |of: fn(&Run) -> f64, decimals| rounded_median(runs.iter().map(of), decimals);
    let (product, bare) = (median(|run| run.product, 0), median(|run| run.bare, 0));
    let ratio_to_bare = median(|run| ratio(run.product, run.bare), 3);
    let figures = json!({
        "per_second": product,
        "p50_ms": at_half.p50_ms,
        "p99_ms": at_half.p99_ms,
        "ratio_to_bare_publish": ratio_to_bare,
        "bare_publish_per_second": bare,
        "at_maximum": at_maximum,
        "at_half": at_half,
    });
    let row = [
        format!("receive, {title}; p50 and p99 at half of it"),
        rate(product),
        milliseconds(at_half.p50_ms),
        milliseconds(at_half.p99_ms),
        format!("{ratio_to_bare:.2} of the bare confirmed publish ({})", rate(bare)),
    ];
    Ok((figures, row))
}

/// Latencies at the maximum rate. The queues are empty again afterwards.
pub(super) async fn maximum(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    target: &Target,
) -> anyhow::Result<Vec<Duration>> {
    let latencies = load::closed_loop(target, options.load_duration).await?;
    environment.purge_queues().await?;
    Ok(latencies)
}

/// Latencies at half of a rate.
async fn at_half(
    options: &BenchOptions,
    target: &Target,
    rate: f64,
) -> anyhow::Result<Vec<Duration>> {
    let schedule = Schedule::starting_now(half(rate), options.load_duration);
    let (responses, mut received) = mpsc::unbounded_channel::<Response>();
    let requests = Arc::clone(&target.requests);
    let request = move |number: usize| Ok(requests[number % requests.len()].clone());
    load::open_loop(target.address, target.connections, schedule, request, responses).await?;
    let mut latencies = Vec::with_capacity(schedule.total);
    while let Some(response) = received.recv().await {
        load::ensure_success(response.status)?;
        latencies.push(response.latency);
    }
    Ok(latencies)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate of requests is positive and far below 2^32; the cast saturates"
)]
fn half(rate: f64) -> NonZeroU32 {
    NonZeroU32::new((rate / 2.0) as u32).unwrap_or(NonZeroU32::MIN)
}
