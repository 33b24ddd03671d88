//! HTTP load over persistent connections, with requests signed beforehand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use uuid::Uuid;

use super::{
    backlog::{self, Mix},
    environment::BenchEnvironment,
    payload::Payload,
    schedule::Schedule,
};
use crate::{
    domain::SourceName,
    sources::Source,
    tools::send::{generate::Webhook, plan::Step, predict, scenario::SendScenario},
};

/// A signed request. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PreparedRequest {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Requests and their receiver. The connections share the requests.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Vec<PreparedRequest>>,
    /// The number of connections.
    pub(super) connections: usize,
}

/// A response to a scheduled request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response {
    /// The number of the request, from 0.
    pub(super) number: usize,
    pub(super) status: StatusCode,
    /// The receipt id in the response's header.
    pub(super) receipt_id: Option<Uuid>,
    /// When the request was due.
    pub(super) due: Instant,
    /// From then to the end of the response.
    pub(super) latency: Duration,
}

/// Signed webhooks of a payload, each of a different event.
pub(super) fn prepare(
    environment: &BenchEnvironment,
    payload: Payload,
    count: u32,
) -> anyhow::Result<Vec<PreparedRequest>> {
    let scenario = backlog::scenario(environment, payload, count, Mix::default())?;
    let source = environment.source(&scenario.source)?;
    let uri = uri(&scenario.source)?;
    let request = |step| signed(source, &scenario, payload, &uri, step);
    Ok(scenario.plan.steps().map(request).collect())
}

/// Signed webhooks of all payloads alternately, each of a different event.
pub(super) fn prepare_mixed(
    environment: &BenchEnvironment,
    total: usize,
) -> anyhow::Result<Vec<PreparedRequest>> {
    let each = u32::try_from(total.div_ceil(Payload::ALL.len()))?;
    let mut kinds = Payload::ALL
        .into_iter()
        .map(|payload| Ok(prepare(environment, payload, each)?.into_iter()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut requests = Vec::with_capacity(total);
    while requests.len() < total {
        requests.extend(kinds.iter_mut().filter_map(Iterator::next));
    }
    Ok(requests)
}

/// The webhook path of a source.
pub(super) fn uri(source: &SourceName) -> anyhow::Result<Uri> {
    Ok(format!("/hooks/{source}").parse()?)
}

/// The webhook of a step, padded to its payload's size and signed now.
pub(super) fn signed(
    source: &Source,
    scenario: &SendScenario,
    payload: Payload,
    uri: &Uri,
    step: Step,
) -> PreparedRequest {
    let webhook: Webhook = scenario.webhook(step);
    let webhook = Webhook { body: payload.pad(&webhook.body, step.event), ..webhook };
    let now = OffsetDateTime::now_utc();
    let mut headers = predict::headers(source, &scenario.tenant, &webhook, now);
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    PreparedRequest { uri: uri.clone(), headers, body: webhook.body }
}

/// Sends as fast as responses come: each connection sends its next request
/// after the response to the last. Returns the latencies of a `duration` that
/// follows a warm-up of a fifth of it. Any response but 2xx is an error.
pub(super) async fn closed_loop(
    target: &Target,
    duration: Duration,
) -> anyhow::Result<Vec<Duration>> {
    ensure!(!target.requests.is_empty(), "there is nothing to send");
    let next = Arc::new(AtomicUsize::new(0));
    let counted_from = Instant::now() + duration / 5;
    let end = counted_from + duration;
    let mut tasks = JoinSet::new();
    for _ in 0..target.connections {
        let mut connection = Connection::open(target.address).await?;
        let (next, requests) = (Arc::clone(&next), Arc::clone(&target.requests));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let sent = Instant::now();
                if sent >= end {
                    return anyhow::Ok(latencies);
                }
                let number = next.fetch_add(1, Ordering::Relaxed) % requests.len();
                let (status, _) = connection.send(&requests[number]).await?;
                ensure_success(status)?;
                let latency = sent.elapsed();
                if sent >= counted_from && sent + latency <= end {
                    latencies.push(latency);
                }
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(done) = tasks.join_next().await {
        latencies.extend(done.context("a connection's task ended")??);
    }
    Ok(latencies)
}

/// Sends each request when it is due, and reports each response. A request is
/// timed from when it was due, however late it was sent. Ends early if the
/// responses' receiver is dropped.
pub(super) async fn open_loop(
    address: SocketAddr,
    connections: usize,
    schedule: Schedule,
    request: impl Fn(usize) -> anyhow::Result<PreparedRequest> + Send + Sync + 'static,
    responses: mpsc::UnboundedSender<Response>,
) -> anyhow::Result<()> {
    let pacing = schedule.start_pacing();
    let request = Arc::new(request);
    let [prepared, taken] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        let (request, permits, responses) =
            (Arc::clone(&request), pacing.permits(), responses.clone());
        let (prepared, taken) = (Arc::clone(&prepared), Arc::clone(&taken));
        let mut connection = Connection::open(address).await?;
        tasks.spawn(async move {
            loop {
                let number = prepared.fetch_add(1, Ordering::Relaxed);
                if number >= schedule.total {
                    return anyhow::Ok(());
                }
                // Prepared before it is due, so that this delays nothing.
                let request = request(number)?;
                permits.acquire().await?.forget();
                // Another connection may be ahead with a later number: what is
                // due now is the next arrival, whichever request it is.
                let due = schedule.due(taken.fetch_add(1, Ordering::Relaxed));
                if connection.sender.is_closed() {
                    connection = Connection::open(address).await?;
                }
                let (status, receipt_id) = connection.send(&request).await?;
                let latency = due.elapsed();
                let response = Response { number, status, receipt_id, due, latency };
                if responses.send(response).is_err() {
                    return Ok(());
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a connection's task ended")??;
    }
    Ok(())
}

pub(super) fn ensure_success(status: StatusCode) -> anyhow::Result<()> {
    ensure!(
        status.is_success(),
        "a request got status {status}; rejected requests are not measured. Are the servers short \
         of memory or disk?"
    );
    Ok(())
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    // Ends the connection's task when it is dropped.
    _driver: JoinSet<()>,
}

impl Connection {
    async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the receiver")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // The request reports the connection's errors too.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: driver })
    }

    /// Sends one request and reads the whole response: status and receipt id.
    async fn send(
        &mut self,
        prepared: &PreparedRequest,
    ) -> anyhow::Result<(StatusCode, Option<Uuid>)> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = prepared.uri.clone();
        *request.headers_mut() = prepared.headers.clone();
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await.context("a connection broke")?;
        let status = response.status();
        let receipt_id = response.headers().get("x-tallyhook-receipt");
        let receipt_id = receipt_id.and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        response.into_body().collect().await?;
        Ok((status, receipt_id))
    }
}
