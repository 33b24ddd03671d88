//! Publishing: a message is sent when the broker says so, and not before.
//!
//! Two traps shape this file.
//!
//! A lapin channel shared by tasks mixes confirms up: the delivery tag is
//! taken and the frames are queued under two different locks. So each channel
//! belongs to one task, a *lane*, and callers queue up before it.
//!
//! A returned (unroutable) message is attached to whichever confirm the
//! client happens to process next; `lane` shows how we are not taken in.

mod confirm_channel;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lapin::{ConnectionStatus, options::ConfirmSelectOptions};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    connection::{BrokerConnection, BrokerError, with_timeout},
    message::OutgoingMessage,
    topology::Topology,
};
use crate::{config, observability::metrics::Metrics, retry};
use confirm_channel::ConfirmChannel;

/// Proof that the broker has the message: only this file makes one.
#[derive(Debug)]
#[must_use = "a 2xx needs this proof"]
pub struct Confirmed(());

/// The broker does not have the message, as far as we know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection.
    #[error("RabbitMQ is away: {0}")]
    NotConnected(Arc<str>),
    /// The broker takes nothing: it is short of memory or disk.
    #[error("RabbitMQ blocks publishers: it is short of memory or disk")]
    Blocked,
    /// The queue is full, or the broker failed to store the message.
    #[error("RabbitMQ refused the message")]
    Nacked,
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
    state: watch::Receiver<ConnectionState>,
    next_channel: Arc<AtomicUsize>,
    confirm_timeout: Duration,
    metrics: Metrics,
}

#[derive(Clone)]
enum ConnectionState {
    Disconnected(Arc<str>),
    Connected(Arc<ChannelPool>),
}

struct ChannelPool {
    requests: Vec<mpsc::Sender<PublishRequest>>,
    status: ConnectionStatus,
}

struct PublishRequest {
    message: OutgoingMessage,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl Publisher {
    /// Starts connecting. Until it has connected, and whenever it is not
    /// connected, publishing fails at once.
    pub fn start(
        settings: &config::BrokerConfig,
        topology: Arc<Topology>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let (announce, state) =
            watch::channel(ConnectionState::Disconnected("not connected yet".into()));
        let supervisor = ConnectionSupervisor {
            url: settings.url.clone(),
            channel_count: settings.publish_channels,
            max_unconfirmed: settings.max_unconfirmed,
            max_nack_duration: Duration::from_millis(settings.confirm_timeout_ms)
                .saturating_mul(MAX_NACK_PERIODS),
            topology,
            state_sender: announce,
            metrics: metrics.clone(),
        };
        tokio::spawn(supervisor.run(stop));
        Self {
            state,
            next_channel: Arc::default(),
            confirm_timeout: Duration::from_millis(settings.confirm_timeout_ms),
            metrics,
        }
    }

    /// Publishes a message and waits until the broker has it.
    ///
    /// # Errors
    /// [`PublishError`]: nothing is known to be there. Never an answer of 2xx.
    pub async fn publish(&self, message: OutgoingMessage) -> Result<Confirmed, PublishError> {
        let begun = Instant::now();
        let lanes = match &*self.state.borrow() {
            ConnectionState::Connected(lanes) => Arc::clone(lanes),
            ConnectionState::Disconnected(why) => {
                return Err(PublishError::NotConnected(Arc::clone(why)));
            }
        };
        if lanes.status.blocked() {
            return Err(PublishError::Blocked);
        }
        let lane = self.next_channel.fetch_add(1, Ordering::Relaxed) % lanes.requests.len();
        let (reply, answer) = oneshot::channel();
        let way = async {
            let gone = || PublishError::Lost("the connection broke".into());
            lanes.requests[lane]
                .send(PublishRequest { message, reply })
                .await
                .map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        let result =
            timeout(self.confirm_timeout, way).await.unwrap_or(Err(PublishError::TimedOut));
        if result.is_ok() {
            self.metrics.publish_confirm_duration.observe(begun.elapsed().as_secs_f64());
        }
        result
    }

    /// Why nothing can be published now; `None` if it can.
    pub fn degraded_reason(&self) -> Option<String> {
        match &*self.state.borrow() {
            ConnectionState::Disconnected(why) => Some(why.to_string()),
            ConnectionState::Connected(lanes) if lanes.status.blocked() => {
                Some(PublishError::Blocked.to_string())
            }
            ConnectionState::Connected(_) => None,
        }
    }

    /// Waits until messages can be published.
    pub async fn wait_until_ready(&self) {
        while self.degraded_reason().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// After so many times the confirm's time limit, a channel that is refused
/// every message for a queue is given up.
const MAX_NACK_PERIODS: u32 = 10;

/// Keeps the publishing connection up.
struct ConnectionSupervisor {
    url: String,
    channel_count: usize,
    max_unconfirmed: usize,
    max_nack_duration: Duration,
    topology: Arc<Topology>,
    state_sender: watch::Sender<ConnectionState>,
    metrics: Metrics,
}

impl ConnectionSupervisor {
    async fn run(self, stop: CancellationToken) {
        let mut pause = retry::reconnect_delays();
        while !stop.is_cancelled() {
            let ended = match self.connect().await {
                Ok((link, lanes, tasks)) => {
                    info!("publishing connection is up");
                    self.metrics.broker_up.with_label_values(&["publish"]).set(1);
                    self.state_sender.send_replace(ConnectionState::Connected(Arc::new(lanes)));
                    pause = retry::reconnect_delays();
                    self.run_until_disconnected(link, tasks, &stop).await
                }
                Err(error) => format!("{:#}", anyhow::Error::from(error)),
            };
            self.metrics.broker_up.with_label_values(&["publish"]).set(0);
            self.state_sender.send_replace(ConnectionState::Disconnected(ended.as_str().into()));
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

    async fn connect(
        &self,
    ) -> Result<(BrokerConnection, ChannelPool, JoinSet<String>), BrokerError> {
        let link = BrokerConnection::open(&self.url, "tallyhook publisher").await?;
        self.topology.declare(&link).await?;
        let mut jobs = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.channel_count {
            let channel = link.open_channel().await?;
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            with_timeout("asking for confirms", select).await?;
            let (sender, receiver) = mpsc::channel(self.max_unconfirmed);
            jobs.push(sender);
            let lane = ConfirmChannel::new(
                channel,
                link.status(),
                self.max_unconfirmed,
                self.max_nack_duration,
            );
            tasks.spawn(lane.run(receiver));
        }
        let status = link.status();
        Ok((link, ChannelPool { requests: jobs, status }, tasks))
    }

    /// Watches the connection until it has to be given up; says why.
    async fn run_until_disconnected(
        &self,
        link: BrokerConnection,
        mut tasks: JoinSet<String>,
        stop: &CancellationToken,
    ) -> String {
        let why = tokio::select! {
            () = link.closed() => "the connection was lost".to_owned(),
            ended = tasks.join_next() => match ended {
                Some(Ok(why)) => why,
                Some(Err(panicked)) => panicked.to_string(),
                None => "no channel is left".to_owned(),
            },
            () = stop.cancelled() => "stopping".to_owned(),
        };
        // Nobody finds the lanes any more; what is in flight may still be
        // confirmed, unless the connection is gone.
        self.state_sender.send_replace(ConnectionState::Disconnected(why.as_str().into()));
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
