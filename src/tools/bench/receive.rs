//! `receive`: how many webhooks a second are verified, confirmed by the broker
//! and answered, and the latency at half of that rate.
//!
//! The bare confirmed publish behind HTTP runs alternately with the product,
//! under the same load.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    BenchOptions,
    baseline::{broker::Broker, receiver as bare_receiver},
    environment::{BenchEnvironment, BenchPublisher},
    load::{self, PreparedRequest, Response, Target},
    measure::{Percentiles, per_second, ratio, rounded_median},
    payload::Payload,
    progress::Progress,
    report::{Receive, Received},
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
    progress: &Progress,
) -> anyhow::Result<Receive> {
    let publisher = environment.start_publisher().await?;
    let product = HttpServer::product(environment, &publisher).await?;
    let broker = Broker::open(&environment.config.broker.url).await?;
    let bare = HttpServer::bare(environment, &broker).await?;
    let mut receive = Receive::default();
    for payload in Payload::ALL {
        let requests = load::prepare(environment, payload, PREPARED)?;
        let title = payload.title();
        let received =
            compare(environment, options, progress, title, requests, &product, &bare).await?;
        receive.payloads.insert(payload.key(), received);
    }
    let total = Payload::ALL.len() * usize::try_from(PREPARED)?;
    let mixed = load::prepare_mixed(environment, total)?;
    receive.mixed =
        compare(environment, options, progress, "all payloads", mixed, &product, &bare).await?;
    broker.close().await;
    receive.headline = receive.payloads.get(Payload::Generic.key()).copied().unwrap_or_default();
    Ok(receive)
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
    progress: &Progress,
    title: &str,
    requests: Vec<PreparedRequest>,
    product: &HttpServer,
    bare: &HttpServer,
) -> anyhow::Result<Received> {
    let requests = Arc::new(requests);
    let [product, bare] = [product, bare].map(|server| Target {
        address: server.address,
        requests: Arc::clone(&requests),
        connections: options.connections,
    });
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        progress.step(&format!("receive, {title}, run {run}"));
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
    Ok(Received {
        per_second: rounded_median(runs.iter().map(|run| run.product), 0),
        p50_ms: at_half.p50_ms,
        p99_ms: at_half.p99_ms,
        ratio_to_bare_publish: rounded_median(
            runs.iter().map(|run| ratio(run.product, run.bare)),
            3,
        ),
        bare_publish_per_second: rounded_median(runs.iter().map(|run| run.bare), 0),
        at_maximum,
        at_half,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_is_at_least_one() {
        for (rate, expected) in [(0.0, 1), (1.9, 1), (4001.0, 2000)] {
            assert_eq!(half(rate).get(), expected, "{rate}");
        }
    }
}
