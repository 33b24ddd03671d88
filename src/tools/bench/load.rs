//! HTTP load: requests that were made and signed beforehand, over connections
//! that stay open.

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
use tokio::{net::TcpStream, task::JoinSet};
use uuid::Uuid;

use super::{
    backlog::{self, Mix},
    payload::Payload,
    schedule::Schedule,
    stage::Stage,
};
use crate::{
    domain::SourceName,
    sources::Source,
    tools::send::{campaign::Campaign, generate::Webhook, plan::Step, rehearse},
};

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub struct Prepared {
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

/// Requests and where they go; connections take them in turns.
#[derive(Clone)]
pub struct Target {
    /// Whom they are sent to.
    pub address: SocketAddr,
    /// They.
    pub requests: Arc<Vec<Prepared>>,
    /// How many connections send them.
    pub connections: usize,
}

/// One answer of 2xx.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When the request was due.
    pub due: Instant,
    /// From then until the whole answer was there.
    pub took: Duration,
    /// The receipt that the answer named.
    pub receipt: Option<Uuid>,
}

/// Signed webhooks of this payload, each of another event.
///
/// # Errors
/// What the generator refuses.
pub fn prepare(stage: &Stage, payload: Payload, count: u32) -> anyhow::Result<Vec<Prepared>> {
    let campaign = backlog::campaign(stage, payload, count, Mix::default())?;
    let adapter = stage.adapter(&campaign.source)?;
    let uri = uri(&campaign.source)?;
    let prepared = |step| signed(adapter, &campaign, payload, &uri, step);
    Ok(campaign.plan.steps().map(prepared).collect())
}

/// So many signed webhooks of all payloads in turns, each of another event.
///
/// # Errors
/// What the generator refuses.
pub fn mixed(stage: &Stage, total: usize) -> anyhow::Result<Vec<Prepared>> {
    let each = u32::try_from(total.div_ceil(Payload::ALL.len()))?;
    let mut requests = Vec::with_capacity(total);
    let mut kinds = Payload::ALL
        .into_iter()
        .map(|payload| Ok(prepare(stage, payload, each)?.into_iter()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    while requests.len() < total {
        requests.extend(kinds.iter_mut().filter_map(Iterator::next));
    }
    Ok(requests)
}

/// Where webhooks of a source are posted.
///
/// # Errors
/// None: names of sources are good in a path.
pub fn uri(source: &SourceName) -> anyhow::Result<Uri> {
    Ok(format!("/hooks/{source}").parse()?)
}

/// The webhook of a step, padded to its payload's size and signed now.
pub fn signed(
    adapter: &Source,
    campaign: &Campaign,
    payload: Payload,
    uri: &Uri,
    step: Step,
) -> Prepared {
    let made: Webhook = campaign.webhook(step);
    let webhook = Webhook { body: payload.pad(&made.body, step.event), ..made };
    let now = OffsetDateTime::now_utc();
    let mut headers = rehearse::headers(adapter, &campaign.tenant, &webhook, now);
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    Prepared { uri: uri.clone(), headers, body: webhook.body }
}

/// As many requests as the answers to those before let through, for so long.
/// What is answered in the first fifth of the time, on top of it, is not
/// counted.
///
/// # Errors
/// A request that was not answered with 2xx: then no figure means anything.
pub async fn closed(target: &Target, length: Duration) -> anyhow::Result<Vec<Sample>> {
    let next = Arc::new(AtomicUsize::new(0));
    let counted_from = Instant::now() + length / 5;
    let end = counted_from + length;
    run(target, |mut connection| {
        let (next, requests) = (Arc::clone(&next), Arc::clone(&target.requests));
        async move {
            let mut samples = Vec::new();
            loop {
                let due = Instant::now();
                if due >= end {
                    return Ok(samples);
                }
                let turn = next.fetch_add(1, Ordering::Relaxed);
                connection.send(&requests[turn % requests.len()]).await?;
                let took = due.elapsed();
                if due >= counted_from && due + took <= end {
                    samples.push(Sample { due, took, receipt: None });
                }
            }
        }
    })
    .await
}

/// Requests when they are due. Each is timed from when it was due, however
/// late it was sent.
///
/// # Errors
/// As [`already_closed_error`].
pub async fn open(target: &Target, schedule: Schedule) -> anyhow::Result<Vec<Sample>> {
    let next = Arc::new(AtomicUsize::new(0));
    let pacing = schedule.pace();
    run(target, |mut connection| {
        let (next, requests) = (Arc::clone(&next), Arc::clone(&target.requests));
        let turns = pacing.turns();
        async move {
            let mut samples = Vec::new();
            loop {
                let nth = next.fetch_add(1, Ordering::Relaxed);
                if nth >= schedule.total {
                    return Ok(samples);
                }
                turns.acquire().await?.forget();
                let due = schedule.due(nth);
                let receipt = connection.send(&requests[nth % requests.len()]).await?;
                samples.push(Sample { due, took: due.elapsed(), receipt });
            }
        }
    })
    .await
}

async fn run<F, W>(target: &Target, work: F) -> anyhow::Result<Vec<Sample>>
where
    F: Fn(Connection) -> W,
    W: Future<Output = anyhow::Result<Vec<Sample>>> + Send + 'static,
{
    ensure!(!target.requests.is_empty(), "there is nothing to send");
    let mut tasks = JoinSet::new();
    for _ in 0..target.connections {
        let connection = Connection::open(target.address).await?;
        tasks.spawn(work(connection));
    }
    let mut samples = Vec::new();
    while let Some(done) = tasks.join_next().await {
        samples.extend(done.context("a connection's task ended")??);
    }
    Ok(samples)
}

/// What a request was answered.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// The receipt that it names.
    pub receipt: Option<Uuid>,
}

/// One connection that is kept open.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    // Ends the connection's task with it.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("the receiver is not there")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        // What breaks it, its request is told too.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { sender, _driver: driver })
    }

    /// Whether the other end has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request that must be taken; the receipt that its answer names.
    async fn send(&mut self, prepared: &Prepared) -> anyhow::Result<Option<Uuid>> {
        let Answer { status, receipt } = self.ask(prepared).await?;
        ensure!(
            status.is_success(),
            "a request was answered {status}: what refuses work is not measured. Are the servers \
             short of memory or disk?"
        );
        Ok(receipt)
    }

    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn ask(&mut self, prepared: &Prepared) -> anyhow::Result<Answer> {
        let mut request = Request::new(Full::new(prepared.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = prepared.uri.clone();
        *request.headers_mut() = prepared.headers.clone();
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await.context("a connection broke")?;
        let status = answer.status();
        let receipt = answer.headers().get("x-tallyhook-receipt");
        let receipt = receipt.and_then(|id| Uuid::try_parse_ascii(id.as_bytes()).ok());
        answer.into_body().collect().await?;
        Ok(Answer { status, receipt })
    }
}
