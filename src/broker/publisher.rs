//! Publishes messages and waits for the publisher confirm.
//!
//! Two properties of lapin and RabbitMQ shape this module.
//!
//! A lapin channel that several tasks share mixes up confirms: the delivery
//! tag is taken and the frames are queued under two different locks. So one
//! task owns each channel, and callers send it their requests.
//!
//! A returned (unroutable) message is attached to whichever confirm the client
//! processes next. `confirm_channel` recognizes it all the same.

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
use tracing::info;

use super::{
    connection::{BrokerConnection, BrokerError, with_timeout},
    message::OutgoingMessage,
    supervise::supervise,
    topology::Topology,
};
use crate::{config, observability::metrics::Metrics};
use confirm_channel::ConfirmChannel;

/// How long unconfirmed publishes may take when the publisher stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// A channel whose every message for a queue is nacked for this many confirm
/// timeouts is replaced.
const MAX_NACK_PERIODS: u32 = 10;

/// Proof that RabbitMQ has the message. Only this module constructs it.
#[derive(Debug)]
#[must_use = "a response of 2xx needs this proof"]
pub struct Confirmed(());

/// RabbitMQ has not confirmed the message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection.
    #[error("RabbitMQ is not connected: {0}")]
    NotConnected(Arc<str>),
    /// A memory or disk alarm blocks all publishers.
    #[error("RabbitMQ blocks publishers: it is short of memory or disk")]
    Blocked,
    /// The queue is full, or RabbitMQ failed to store the message.
    #[error("RabbitMQ refused the message")]
    Nacked,
    /// No confirm came in time. It may come later: then the sender's retry
    /// adds a duplicate, which the inbox absorbs.
    #[error("RabbitMQ did not confirm in time")]
    TimedOut,
    /// The connection, the channel or the topology failed before the confirm.
    #[error("the publish was interrupted: {0}")]
    Lost(Arc<str>),
}

/// Publishes over a connection of its own, which it re-establishes.
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
    /// Starts connecting. While it is not connected, publishing fails at once.
    pub fn start(
        settings: &config::BrokerConfig,
        topology: Arc<Topology>,
        metrics: Metrics,
        stop: CancellationToken,
    ) -> Self {
        let disconnected = ConnectionState::Disconnected("not connected yet".into());
        let (state_sender, state) = watch::channel(disconnected);
        let confirm_timeout = Duration::from_millis(settings.confirm_timeout_ms);
        let supervisor = ConnectionSupervisor {
            url: settings.url.clone(),
            channel_count: settings.publish_channels,
            max_unconfirmed: settings.max_unconfirmed,
            max_nack_duration: confirm_timeout.saturating_mul(MAX_NACK_PERIODS),
            topology,
            state_sender,
            metrics: metrics.clone(),
        };
        tokio::spawn(supervisor.run(stop));
        Self { state, next_channel: Arc::default(), confirm_timeout, metrics }
    }

    /// Publishes a message and waits until RabbitMQ confirms it.
    ///
    /// # Errors
    /// [`PublishError`]: the message must not be treated as accepted.
    pub async fn publish(&self, message: OutgoingMessage) -> Result<Confirmed, PublishError> {
        let begun = Instant::now();
        let pool = match &*self.state.borrow() {
            ConnectionState::Connected(pool) => Arc::clone(pool),
            ConnectionState::Disconnected(error) => {
                return Err(PublishError::NotConnected(Arc::clone(error)));
            }
        };
        if pool.status.blocked() {
            return Err(PublishError::Blocked);
        }
        let channel = self.next_channel.fetch_add(1, Ordering::Relaxed) % pool.requests.len();
        let (reply, confirmation) = oneshot::channel();
        let publish = async {
            let lost = || PublishError::Lost("the connection was lost".into());
            let request = PublishRequest { message, reply };
            pool.requests[channel].send(request).await.map_err(|_| lost())?;
            confirmation.await.map_err(|_| lost())?
        };
        let result =
            timeout(self.confirm_timeout, publish).await.unwrap_or(Err(PublishError::TimedOut));
        if result.is_ok() {
            self.metrics.publish_confirm_duration.observe(begun.elapsed().as_secs_f64());
        }
        result
    }

    /// Why nothing can be published now; `None` if it can.
    pub fn degraded_reason(&self) -> Option<String> {
        match &*self.state.borrow() {
            ConnectionState::Disconnected(error) => Some(error.to_string()),
            ConnectionState::Connected(pool) if pool.status.blocked() => {
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

/// A connection whose channels take requests.
struct PublishingConnection {
    connection: BrokerConnection,
    pool: ChannelPool,
    tasks: JoinSet<String>,
}

impl ConnectionSupervisor {
    async fn run(self, stop: CancellationToken) {
        let connect = || self.connect();
        let serve = |connection| self.run_until_disconnected(connection, &stop);
        let on_down = |error: &str| {
            self.metrics.broker_up.with_label_values(&["publish"]).set(0);
            self.state_sender.send_replace(ConnectionState::Disconnected(error.into()));
        };
        supervise("publish", &stop, connect, serve, on_down).await;
    }

    async fn connect(&self) -> Result<PublishingConnection, BrokerError> {
        let connection = BrokerConnection::open(&self.url, "tallyhook publisher").await?;
        self.topology.declare(&connection).await?;
        let mut requests = Vec::new();
        let mut tasks = JoinSet::new();
        for _ in 0..self.channel_count {
            let channel = connection.open_channel().await?;
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            with_timeout("enabling publisher confirms", select).await?;
            let (sender, receiver) = mpsc::channel(self.max_unconfirmed);
            requests.push(sender);
            let channel = ConfirmChannel::new(
                channel,
                connection.status(),
                self.max_unconfirmed,
                self.max_nack_duration,
            );
            tasks.spawn(channel.run(receiver));
        }
        let status = connection.status();
        let pool = ChannelPool { requests, status };
        Ok(PublishingConnection { connection, pool, tasks })
    }

    /// Publishes until the connection or one of its channels fails. Returns
    /// why it ended.
    async fn run_until_disconnected(
        &self,
        publishing: PublishingConnection,
        stop: &CancellationToken,
    ) -> String {
        let PublishingConnection { connection, pool, mut tasks } = publishing;
        info!("the publishing connection is up");
        self.metrics.broker_up.with_label_values(&["publish"]).set(1);
        self.state_sender.send_replace(ConnectionState::Connected(Arc::new(pool)));
        let reason = tokio::select! {
            () = connection.closed() => "the connection was lost".to_owned(),
            ended = tasks.join_next() => match ended {
                Some(Ok(reason)) => reason,
                Some(Err(panicked)) => panicked.to_string(),
                None => "no channel is left".to_owned(),
            },
            () = stop.cancelled() => "stopping".to_owned(),
        };
        // No new requests; those in flight may still be confirmed, unless the
        // connection is gone.
        self.state_sender.send_replace(ConnectionState::Disconnected(reason.as_str().into()));
        if stop.is_cancelled() {
            let remaining = async { while tasks.join_next().await.is_some() {} };
            drop(timeout(SHUTDOWN_TIMEOUT, remaining).await);
        }
        tasks.abort_all();
        connection.close().await;
        reason
    }
}
