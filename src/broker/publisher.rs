//! Publishing: a message is sent when the broker says so, and not before.
//!
//! Two traps shape this file.
//!
//! A lapin channel shared by tasks mixes confirms up: the delivery tag is
//! taken and the frames are queued under two different locks. So each channel
//! belongs to one task, a *lane*, and callers queue up before it.
//!
//! A returned (unroutable) message is attached to whichever confirm the
//! client happens to process next, at the latest the message's own. So a
//! confirm without a return proves nothing by itself. But a message whose own
//! confirm carries none was returned with a confirm processed *before* it, if
//! it was returned at all; and what was processed before it can be seen. A
//! lane therefore looks at every confirm in flight, again and again until a
//! look finds nothing new, and only then believes what it saw. One return
//! condemns all that is in flight on the channel: with the alternate exchange
//! on the inbound exchange it means that somebody tore the topology down.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::poll_fn;
use lapin::{
    Channel, Confirmation, ConnectionStatus,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    connection::{BrokerError, Link, in_time},
    topology::{Topology, short},
    wire::Outgoing,
};
use crate::{config, metrics::Metrics, retry};

/// A confirm that takes longer than this, on a connection that is not
/// blocked, means that the channel is of no use any more.
const STUCK: Duration = Duration::from_secs(30);
/// How long handing a frame to the socket may take.
const HAND_OVER: Duration = Duration::from_secs(10);

/// Proof that the broker has the message: only this file makes one.
#[derive(Debug)]
#[must_use = "a 2xx needs this proof"]
pub struct Confirmed(());

/// The broker does not have the message, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection.
    #[error("RabbitMQ is away: {0}")]
    Away(Arc<str>),
    /// The broker takes nothing: it is short of memory or disk.
    #[error("RabbitMQ blocks publishers: it is short of memory or disk")]
    Blocked,
    /// The queue is full, or the broker failed to store the message.
    #[error("RabbitMQ refused the message")]
    Refused,
    /// No confirm in time. It may come yet: then the message is there twice
    /// once the sender repeats it, which the inbox absorbs.
    #[error("RabbitMQ did not confirm in time")]
    TimedOut,
    /// The connection, the channel or the topology broke while it was under way.
    #[error("the publish was lost: {0}")]
    Lost(Arc<str>),
}

/// Publishes over a connection of its own that comes back by itself.
#[derive(Clone)]
pub struct Publisher {
    state: watch::Receiver<State>,
    next: Arc<AtomicUsize>,
    confirm_timeout: Duration,
    metrics: Metrics,
}

#[derive(Clone)]
enum State {
    Down(Arc<str>),
    Up(Arc<Lanes>),
}

struct Lanes {
    jobs: Vec<mpsc::Sender<Job>>,
    status: ConnectionStatus,
}

struct Job {
    message: Outgoing,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl Publisher {
    /// Starts connecting. Until it has connected, and whenever it is not
    /// connected, publishing fails at once.
    pub fn start(
        settings: &config::Broker,
        topology: Arc<Topology>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let (announce, state) = watch::channel(State::Down("not connected yet".into()));
        let supervisor = Supervisor {
            url: settings.url.clone(),
            channels: settings.publish_channels,
            window: settings.publish_window,
            topology,
            announce,
            metrics: metrics.clone(),
        };
        tokio::spawn(supervisor.run(stop));
        Self {
            state,
            next: Arc::default(),
            confirm_timeout: Duration::from_millis(settings.confirm_timeout_ms),
            metrics,
        }
    }

    /// Publishes a message and waits until the broker has it.
    ///
    /// # Errors
    /// [`PublishError`]: nothing is known to be there. Never an answer of 2xx.
    pub async fn publish(&self, message: Outgoing) -> Result<Confirmed, PublishError> {
        let begun = Instant::now();
        let lanes = match &*self.state.borrow() {
            State::Up(lanes) => Arc::clone(lanes),
            State::Down(why) => return Err(PublishError::Away(Arc::clone(why))),
        };
        if lanes.status.blocked() {
            return Err(PublishError::Blocked);
        }
        let lane = self.next.fetch_add(1, Ordering::Relaxed) % lanes.jobs.len();
        let (reply, answer) = oneshot::channel();
        let way = async {
            let gone = || PublishError::Lost("the connection broke".into());
            lanes.jobs[lane].send(Job { message, reply }).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        let result =
            timeout(self.confirm_timeout, way).await.unwrap_or(Err(PublishError::TimedOut));
        if result.is_ok() {
            self.metrics.confirm_seconds.observe(begun.elapsed().as_secs_f64());
        }
        result
    }

    /// Why nothing can be published now; `None` if it can.
    pub fn trouble(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(why) => Some(why.to_string()),
            State::Up(lanes) if lanes.status.blocked() => Some(PublishError::Blocked.to_string()),
            State::Up(_) => None,
        }
    }

    /// Waits until messages can be published.
    pub async fn ready(&self) {
        while self.trouble().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Keeps the publishing connection up.
struct Supervisor {
    url: String,
    channels: usize,
    window: usize,
    topology: Arc<Topology>,
    announce: watch::Sender<State>,
    metrics: Metrics,
}

impl Supervisor {
    async fn run(self, stop: CancellationToken) {
        let mut pause = retry::reconnect();
        while !stop.is_cancelled() {
            let ended = match self.connect().await {
                Ok((link, lanes, tasks)) => {
                    info!("publishing connection is up");
                    self.metrics.broker_up.with_label_values(&["publish"]).set(1);
                    self.announce.send_replace(State::Up(Arc::new(lanes)));
                    pause = retry::reconnect();
                    self.serve(link, tasks, &stop).await
                }
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            self.metrics.broker_up.with_label_values(&["publish"]).set(0);
            self.announce.send_replace(State::Down(ended.as_str().into()));
            if stop.is_cancelled() {
                break;
            }
            let delay = pause();
            warn!(
                error = ended,
                retry_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
                "publishing connection is down"
            );
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = stop.cancelled() => break,
            }
        }
    }

    async fn connect(&self) -> Result<(Link, Lanes, JoinSet<String>), BrokerError> {
        let link = Link::open(&self.url, "tallyhook publisher").await?;
        self.topology.declare(&link).await?;
        let mut jobs = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.channels {
            let channel = link.channel().await?;
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            in_time("asking for confirms", select).await?;
            let (sender, receiver) = mpsc::channel(self.window);
            jobs.push(sender);
            let lane = Lane {
                channel,
                status: link.status(),
                window: self.window,
                flying: VecDeque::new(),
            };
            tasks.spawn(lane.run(receiver));
        }
        let status = link.status();
        Ok((link, Lanes { jobs, status }, tasks))
    }

    /// Watches the connection until it has to be given up; says why.
    async fn serve(
        &self,
        link: Link,
        mut tasks: JoinSet<String>,
        stop: &CancellationToken,
    ) -> String {
        let why = tokio::select! {
            () = link.down() => "the connection was lost".to_owned(),
            ended = tasks.join_next() => match ended {
                Some(Ok(why)) => why,
                Some(Err(panicked)) => panicked.to_string(),
                None => "no channel is left".to_owned(),
            },
            () = stop.cancelled() => "stopping".to_owned(),
        };
        // Nobody finds the lanes any more; what is in flight may still be
        // confirmed, unless the connection is gone.
        self.announce.send_replace(State::Down(why.as_str().into()));
        if stop.is_cancelled() {
            drop(
                timeout(Duration::from_secs(5), async {
                    while tasks.join_next().await.is_some() {}
                })
                .await,
            );
        }
        tasks.abort_all();
        link.close().await;
        why
    }
}

/// One channel and what is in flight on it.
struct Lane {
    channel: Channel,
    status: ConnectionStatus,
    window: usize,
    flying: VecDeque<Flying>,
}

/// A message that was published and whose fate is not known yet.
struct Flying {
    confirm: lapin::PublisherConfirm,
    since: Instant,
    /// What the broker said, once it did and until it is believed.
    said: Option<Result<Confirmation, lapin::Error>>,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl Lane {
    /// Publishes jobs until the channel is of no use any more; says why.
    /// Replies that are dropped tell their callers that the publish was lost.
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> String {
        let mut open = true;
        loop {
            if !open && self.flying.is_empty() {
                return "done".to_owned();
            }
            let room = open && self.flying.len() < self.window;
            let oldest = self.flying.front().map_or_else(Instant::now, |first| first.since);
            tokio::select! {
                biased;
                () = poll_fn(|context| self.look(context)), if !self.flying.is_empty() => {
                    if let Err(why) = self.settle() {
                        return why;
                    }
                }
                job = jobs.recv(), if room => {
                    let mut next = job;
                    open = next.is_some();
                    // Whoever waits goes along before the confirms are looked at.
                    while let Some(job) = next {
                        if let Err(why) = self.send(job).await {
                            return why;
                        }
                        let room = self.flying.len() < self.window;
                        next = if room { jobs.try_recv().ok() } else { None };
                    }
                }
                () = tokio::time::sleep_until((oldest + STUCK).into()), if !self.flying.is_empty() => {
                    if !self.status.blocked() {
                        return "the broker stopped confirming".to_owned();
                    }
                    // Blocked publishers get no confirms; look again later.
                    let now = Instant::now();
                    for flying in &mut self.flying {
                        flying.since = now;
                    }
                }
            }
        }
    }

    async fn send(&mut self, job: Job) -> Result<(), String> {
        let Job { message, reply } = job;
        if reply.is_closed() {
            // The caller gave up while it waited for its turn.
            return Ok(());
        }
        let names = short(&message.exchange)
            .and_then(|exchange| Ok((exchange, short(&message.routing_key)?)));
        let (exchange, routing_key) = match names {
            Ok(names) => names,
            Err(error) => {
                drop(reply.send(Err(PublishError::Lost(error.to_string().into()))));
                return Ok(());
            }
        };
        // Mandatory: without it the broker confirms what no queue took.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = timeout(
            HAND_OVER,
            self.channel.basic_publish(
                exchange,
                routing_key,
                options,
                &message.body,
                message.properties,
            ),
        )
        .await;
        match published {
            Ok(Ok(confirm)) => {
                self.flying.push_back(Flying { confirm, since: Instant::now(), said: None, reply });
                Ok(())
            }
            Ok(Err(error)) => Err(format!("publishing failed: {error}")),
            Err(_) => Err("the socket takes nothing".to_owned()),
        }
    }

    /// Looks at every confirm in flight until a look finds nothing new.
    /// Ready as soon as anything was found.
    fn look(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut any = false;
        loop {
            let mut new = false;
            for flying in self.flying.iter_mut().filter(|flying| flying.said.is_none()) {
                if let Poll::Ready(said) = Pin::new(&mut flying.confirm).poll(context) {
                    flying.said = Some(said);
                    new = true;
                }
            }
            any |= new;
            if !new {
                return if any { Poll::Ready(()) } else { Poll::Pending };
            }
        }
    }

    /// Believes what was found, unless it shows that the channel or the
    /// topology is broken: then nobody in flight is told of a success.
    fn settle(&mut self) -> Result<(), String> {
        for flying in &self.flying {
            match &flying.said {
                None | Some(Ok(Confirmation::Ack(None) | Confirmation::Nack(None))) => {}
                Some(Ok(
                    Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)),
                )) => {
                    error!(
                        exchange = returned.exchange.as_str(),
                        routing_key = returned.routing_key.as_str(),
                        "RabbitMQ returned a message: exchanges or queues of ours are gone; \
                         declaring them again"
                    );
                    return Err(format!(
                        "no queue took a message for exchange {} and key {}",
                        returned.exchange, returned.routing_key
                    ));
                }
                Some(Ok(Confirmation::NotRequested)) => {
                    return Err("the channel does not confirm".to_owned());
                }
                Some(Err(error)) => return Err(format!("the channel broke: {error}")),
            }
        }
        // What is still in flight keeps its place and its order.
        for flying in std::mem::take(&mut self.flying) {
            let result = match flying.said {
                Some(Ok(Confirmation::Ack(_))) => Ok(Confirmed(())),
                Some(_) => Err(PublishError::Refused),
                None => {
                    self.flying.push_back(flying);
                    continue;
                }
            };
            // A caller that has given up hears nothing.
            drop(flying.reply.send(result));
        }
        Ok(())
    }
}
