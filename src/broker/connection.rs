//! A connection to RabbitMQ, with a timeout on every operation.

use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties, uri::AMQPUri};
use tokio::time::timeout;

/// How long RabbitMQ may take to respond, except for a publisher confirm.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a close may take. It hangs on a connection that was cut off.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent peer is noticed after two heartbeats. RabbitMQ would propose 60 s.
const HEARTBEAT_SECONDS: u16 = 10;

/// An error of RabbitMQ or of the connection to it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is not an AMQP URL. The text leaves it out: it has a password.
    #[error("broker.url is not an amqp:// or amqps:// URL")]
    InvalidUrl,
    /// A name has more than the 255 bytes that AMQP allows.
    #[error("the name {0} is too long for AMQP")]
    NameTooLong(String),
    /// RabbitMQ did not respond in time.
    #[error("RabbitMQ did not respond in time: {0}")]
    Timeout(&'static str),
    /// An error of the client library.
    #[error("RabbitMQ: {operation}")]
    Client {
        /// The operation that failed.
        operation: &'static str,
        /// Its error.
        #[source]
        source: lapin::Error,
    },
    /// A queue or exchange exists with other arguments than ours.
    #[error("{name} exists with other arguments: {broker_message}. {advice}")]
    PreconditionFailed {
        /// The name of the queue or exchange.
        name: String,
        /// The text of RabbitMQ, which names the argument and both values.
        broker_message: String,
        /// What an operator can do.
        advice: &'static str,
    },
    /// RabbitMQ cancelled a consumer, as it does when its queue is deleted.
    #[error("RabbitMQ cancelled the consumer of {0}: the queue was deleted or moved")]
    ConsumerCancelled(String),
}

/// Adds the operation that failed to an error of the client library.
pub(super) trait OperationContext<T> {
    fn context(self, operation: &'static str) -> Result<T, BrokerError>;
}

impl<T> OperationContext<T> for Result<T, lapin::Error> {
    fn context(self, operation: &'static str) -> Result<T, BrokerError> {
        self.map_err(|source| BrokerError::Client { operation, source })
    }
}

/// Limits an operation to [`RESPONSE_TIMEOUT`].
pub(super) async fn with_timeout<T>(
    operation: &'static str,
    response: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    let response = timeout(RESPONSE_TIMEOUT, response).await;
    response.map_err(|_| BrokerError::Timeout(operation))?.context(operation)
}

/// Parses a URL. The parser's own error would contain the password.
fn parse(url: &str) -> Result<AMQPUri, BrokerError> {
    url.parse().map_err(|_| BrokerError::InvalidUrl)
}

/// Checks a URL without connecting.
///
/// # Errors
/// [`BrokerError::InvalidUrl`].
pub fn check_url(url: &str) -> Result<(), BrokerError> {
    parse(url).map(drop)
}

/// An open connection.
pub struct BrokerConnection {
    connection: Connection,
}

impl BrokerConnection {
    /// Connects under a name that the management console shows.
    ///
    /// # Errors
    /// [`BrokerError`], within 10 seconds.
    pub async fn open(url: &str, name: &str) -> Result<Self, BrokerError> {
        let mut uri = parse(url)?;
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        // lapin applies this to a part of the handshake only: a peer that
        // accepts and stays silent would block for more than 25 seconds.
        uri.query.connection_timeout = u64::try_from(RESPONSE_TIMEOUT.as_millis()).ok();
        let mut properties = ConnectionProperties::default();
        if let Ok(key) = lapin::types::ShortString::try_new("connection_name") {
            properties = properties.with_client_property(key, name.as_bytes().into());
        }
        let connect = Connection::connect_uri(uri, properties);
        let connection = with_timeout("connecting", connect).await?;
        Ok(Self { connection })
    }

    /// Opens a channel.
    pub(super) async fn open_channel(&self) -> Result<Channel, BrokerError> {
        with_timeout("opening a channel", self.connection.create_channel()).await
    }

    /// Whether the connection is up.
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// A handle to the connection's status that needs no borrow of it.
    pub(super) fn status(&self) -> lapin::ConnectionStatus {
        self.connection.status().clone()
    }

    /// Waits until the connection is down.
    pub async fn closed(&self) {
        while self.is_connected() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Closes the connection, or gives up if RabbitMQ does not respond.
    pub async fn close(&self) {
        if self.is_connected() {
            // A connection that fails to close is gone already.
            let text = lapin::types::ShortString::try_new("done").unwrap_or_default();
            drop(timeout(CLOSE_TIMEOUT, self.connection.close(200, text)).await);
        }
    }
}
