//! One connection to the broker, with a time limit on everything.

use std::time::Duration;

use lapin::{Channel, Connection, ConnectionProperties, uri::AMQPUri};
use tokio::time::timeout;

/// How long the broker may take over any answer but a publisher confirm.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a close may take; it hangs on a connection that was cut off.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds between heartbeats: a silent peer is noticed after two of them.
/// RabbitMQ would propose 60.
const HEARTBEAT_SECONDS: u16 = 10;

/// Something went wrong between us and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The URL is not an AMQP URL. It is not repeated: it holds a password.
    #[error("broker.url is not an amqp:// or amqps:// URL")]
    InvalidUrl,
    /// AMQP's names have at most 255 bytes.
    #[error("the name {0} is too long for AMQP")]
    NameTooLong(String),
    /// The broker did not answer in time.
    #[error("RabbitMQ did not answer in time: {0}")]
    Timeout(&'static str),
    /// What the client library says.
    #[error("RabbitMQ: {operation}")]
    Client {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        #[source]
        source: lapin::Error,
    },
    /// A queue or exchange exists with other arguments than ours.
    #[error("{name} exists with other arguments: {broker_message}. {advice}")]
    PreconditionFailed {
        /// The queue's or exchange's name.
        name: String,
        /// What the broker says: it names the argument and both values.
        broker_message: String,
        /// What to do.
        advice: &'static str,
    },
    /// The broker took a consumer away, as it does when a queue is deleted.
    #[error("RabbitMQ ended the consumer of {0}: the queue was deleted or moved")]
    ConsumerCancelled(String),
}

/// Shortens `map_err` where the broker was asked something.
pub(super) trait OperationContext<T> {
    /// Names what was being done.
    fn context(self, what: &'static str) -> Result<T, BrokerError>;
}

impl<T> OperationContext<T> for Result<T, lapin::Error> {
    fn context(self, what: &'static str) -> Result<T, BrokerError> {
        self.map_err(|source| BrokerError::Client { operation: what, source })
    }
}

/// Gives the broker [`ANSWER`] to do something.
pub(super) async fn with_timeout<T>(
    what: &'static str,
    asked: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    timeout(RESPONSE_TIMEOUT, asked).await.map_err(|_| BrokerError::Timeout(what))?.context(what)
}

/// Reads a URL; the parser's own complaint would repeat the password.
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
    /// Recovery by the client library stays off: with it an outage is silent,
    /// pending confirms hang, and an old delivery tag can acknowledge another
    /// message. We drop everything and connect anew.
    ///
    /// # Errors
    /// [`BrokerError`], within 10 seconds.
    pub async fn open(url: &str, name: &str) -> Result<Self, BrokerError> {
        let mut uri = parse(url)?;
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        // lapin's own limit covers only part of the way: a peer that accepts
        // and stays silent would hold us for more than 25 seconds.
        uri.query.connection_timeout = u64::try_from(RESPONSE_TIMEOUT.as_millis()).ok();
        let mut properties = ConnectionProperties::default();
        if let Ok(key) = lapin::types::ShortString::try_new("connection_name") {
            properties = properties.with_client_property(key, name.as_bytes().into());
        }
        let connection =
            with_timeout("connecting", Connection::connect_uri(uri, properties)).await?;
        Ok(Self { connection })
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub(super) async fn open_channel(&self) -> Result<Channel, BrokerError> {
        with_timeout("opening a channel", self.connection.create_channel()).await
    }

    /// Whether the connection is up.
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// The connection's status, for who must look at it often.
    pub(super) fn status(&self) -> lapin::ConnectionStatus {
        self.connection.status().clone()
    }

    /// Comes back when the connection is down.
    pub async fn closed(&self) {
        while self.is_connected() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Closes the connection; gives up on a broker that does not answer.
    pub async fn close(&self) {
        if self.is_connected() {
            // What fails here is gone already.
            let text = lapin::types::ShortString::try_new("done").unwrap_or_default();
            drop(timeout(CLOSE_TIMEOUT, self.connection.close(200, text)).await);
        }
    }
}
