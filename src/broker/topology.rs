//! Exchanges and queues: what is declared, and why no hop can lose a message.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::connection::{BrokerConnection, BrokerError, with_timeout};
use crate::domain::SourceName;

/// The delivery limit of queues that must never dead-letter. A large number,
/// because -1 means "none" in RabbitMQ 4 but "at once" in 3.10.
const UNLIMITED_DELIVERIES: u32 = 1_000_000_000;

/// Delay before a deleted queue is declared again.
const REDECLARE_DELAY: Duration = Duration::from_secs(1);

/// The names and arguments of our exchanges and queues.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    delivery_limit: u32,
    tiers: Vec<Duration>,
    sources: Vec<SourceName>,
}

/// A queue and the exchange that is bound to it.
struct QueueSpec {
    exchange: String,
    queue: String,
    /// The routing key of the binding; empty for a fanout exchange.
    routing_key: String,
    arguments: Vec<(&'static str, AMQPValue)>,
}

impl QueueSpec {
    /// A queue with a fanout exchange of the same name.
    fn standalone(name: String, arguments: Vec<(&'static str, AMQPValue)>) -> Self {
        Self { exchange: name.clone(), queue: name, routing_key: String::new(), arguments }
    }
}

/// The number of ready messages in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// The kind of queue: `inbound`, `retry`, `dead`, `unrouted` or `calls`.
    pub role: &'static str,
    /// The source of an inbound queue.
    pub source: Option<SourceName>,
    /// Ready messages, without those that a consumer has not acknowledged.
    /// `None` if the queue does not exist.
    pub ready: Option<u32>,
}

impl Topology {
    /// The topology for these sources and retry delays.
    pub fn new(
        prefix: &str,
        delivery_limit: u32,
        tiers: Vec<Duration>,
        sources: impl IntoIterator<Item = SourceName>,
    ) -> Self {
        Self {
            prefix: prefix.to_owned(),
            delivery_limit,
            tiers,
            sources: sources.into_iter().collect(),
        }
    }

    /// The topology without sources and retry queues, for tools that publish
    /// and must not declare queues of their own.
    pub fn publish_only(prefix: &str) -> Self {
        Self::new(prefix, UNLIMITED_DELIVERIES, Vec::new(), [])
    }

    /// The exchange for events. The routing key is the source.
    pub fn inbound_exchange(&self) -> String {
        format!("{}.inbound", self.prefix)
    }

    /// The queue of a source.
    pub fn inbound_queue(&self, source: &SourceName) -> String {
        format!("{}.inbound.{source}", self.prefix)
    }

    /// The exchange and queue of messages for which no queue is bound.
    pub fn unrouted_queue(&self) -> String {
        format!("{}.unrouted", self.prefix)
    }

    /// The exchange and queue in which messages wait for this delay.
    pub fn retry_queue(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.prefix, format_delay(delay))
    }

    /// The exchange and queue of dead letters.
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange and queue of rejected requests and import progress.
    pub fn rejected_request_queue(&self) -> String {
        format!("{}.calls", self.prefix)
    }

    /// The sources that have a queue.
    pub fn sources(&self) -> &[SourceName] {
        &self.sources
    }

    /// Every queue with its exchange, in the order of declaration: dead letters
    /// first, inbound, retry. With at-least-once dead-lettering, a message
    /// whose dead-letter exchange does not exist is held invisibly and moves
    /// on only minutes after the exchange is declared.
    fn queue_specs(&self) -> Vec<QueueSpec> {
        let durable = |name: String| QueueSpec::standalone(name, durable_args());
        let inbound = self.sources.iter().map(|source| QueueSpec {
            exchange: self.inbound_exchange(),
            queue: self.inbound_queue(source),
            routing_key: source.to_string(),
            arguments: self.inbound_args(),
        });
        let retry = self
            .tiers
            .iter()
            .map(|delay| QueueSpec::standalone(self.retry_queue(*delay), self.retry_args(*delay)));
        let others = [
            durable(self.dead_letter_queue()),
            durable(self.unrouted_queue()),
            durable(self.rejected_request_queue()),
        ];
        others.into_iter().chain(inbound).chain(retry).collect()
    }

    /// Declares all exchanges, queues and bindings. Existing ones stay as they
    /// are.
    ///
    /// A missing queue among existing ones was deleted, perhaps just now. It
    /// is declared after `REDECLARE_DELAY`: declared at once, RabbitMQ's
    /// channels may take it for the old queue, confirm messages and never
    /// deliver them (seen with 3.10). Meanwhile messages wait in the queue of
    /// unrouted ones.
    ///
    /// # Errors
    /// [`BrokerError::PreconditionFailed`] names the argument that differs.
    pub async fn declare(&self, connection: &BrokerConnection) -> Result<(), BrokerError> {
        // Without it, a message for a missing queue would be returned, or
        // dropped if it was not published as mandatory.
        let alternate = [("alternate-exchange", long_string(&self.unrouted_queue()))];
        let inbound = self.inbound_exchange();
        declare_exchange(connection, &inbound, ExchangeKind::Direct, &alternate).await?;

        let specs = self.queue_specs();
        let mut missing = Vec::new();
        for spec in &specs {
            if spec.exchange != inbound {
                declare_exchange(connection, &spec.exchange, ExchangeKind::Fanout, &[]).await?;
            }
            if queue_exists(connection, &spec.queue).await? {
                declare_queue(connection, spec).await?;
            } else {
                missing.push(spec);
            }
        }
        if !missing.is_empty() && missing.len() < specs.len() {
            tokio::time::sleep(REDECLARE_DELAY).await;
        }
        for spec in missing {
            declare_queue(connection, spec).await?;
        }
        for spec in &specs {
            bind_queue(connection, spec).await?;
        }
        Ok(())
    }

    /// Counts the ready messages of every queue, on a channel of its own: a
    /// passive declare of a missing queue closes the channel.
    ///
    /// # Errors
    /// [`BrokerError`] if RabbitMQ does not respond.
    pub async fn depths(
        &self,
        connection: &BrokerConnection,
    ) -> Result<Vec<QueueDepth>, BrokerError> {
        let sources = self
            .sources
            .iter()
            .map(|source| (self.inbound_queue(source), "inbound", Some(source.clone())));
        let tiers = self.tiers.iter().map(|delay| (self.retry_queue(*delay), "retry", None));
        let others = [
            (self.dead_letter_queue(), "dead", None),
            (self.unrouted_queue(), "unrouted", None),
            (self.rejected_request_queue(), "calls", None),
        ];
        let mut depths = Vec::new();
        let mut channel = connection.open_channel().await?;
        for (queue, role, source) in sources.chain(tiers).chain(others) {
            let declare =
                channel.queue_declare(short_string(&queue)?, passive(), FieldTable::default());
            let ready = match with_timeout("counting the messages of a queue", declare).await {
                Ok(declared) => Some(declared.message_count()),
                Err(BrokerError::Client { .. }) if connection.is_connected() => {
                    channel = connection.open_channel().await?;
                    None
                }
                Err(error) => return Err(error),
            };
            depths.push(QueueDepth { queue, role, source, ready });
        }
        Ok(depths)
    }

    /// The arguments of a queue that workers consume.
    fn inbound_args(&self) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = durable_args();
        arguments.retain(|(key, _)| *key != "x-delivery-limit");
        arguments.extend(Self::dead_letter_args(&self.dead_letter_queue()));
        // Without a limit, a message that crashes its worker would be delivered
        // forever. With the limit of 20 that RabbitMQ 4 sets by default, a few
        // crashes would dead-letter a whole prefetch of other messages.
        arguments.push(("x-delivery-limit", AMQPValue::LongUInt(self.delivery_limit)));
        arguments
    }

    /// The arguments of a retry queue. The delay is the TTL of the queue: with
    /// a TTL for each message, RabbitMQ would expire only the first in line.
    fn retry_args(&self, delay: Duration) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = durable_args();
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", AMQPValue::LongLongInt(milliseconds)));
        // No dead-letter routing key: the message keeps its own, the source,
        // and returns to the queue that it came from.
        arguments.extend(Self::dead_letter_args(&self.inbound_exchange()));
        arguments
    }

    fn dead_letter_args(exchange: &str) -> [(&'static str, AMQPValue); 3] {
        [
            ("x-dead-letter-exchange", long_string(exchange)),
            // The default is at-most-once: a crash in between loses the message.
            ("x-dead-letter-strategy", long_string("at-least-once")),
            // Without it the strategy silently falls back to at-most-once.
            ("x-overflow", long_string("reject-publish")),
        ]
    }
}

/// The arguments of a queue that keeps messages until they are consumed.
fn durable_args() -> Vec<(&'static str, AMQPValue)> {
    vec![
        // Replicated and on disk before the confirm. Always named, because the
        // default type can be changed in RabbitMQ.
        ("x-queue-type", long_string("quorum")),
        // Without it RabbitMQ 4 drops a message after 20 deliveries.
        ("x-delivery-limit", AMQPValue::LongUInt(UNLIMITED_DELIVERIES)),
    ]
}

fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() }
}

async fn declare_exchange(
    connection: &BrokerConnection,
    name: &str,
    kind: ExchangeKind,
    arguments: &[(&str, AMQPValue)],
) -> Result<(), BrokerError> {
    let channel = connection.open_channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declare =
        channel.exchange_declare(short_string(name)?, kind, options, field_table(arguments)?);
    with_timeout("declaring an exchange", declare)
        .await
        .map_err(|error| precondition_failed(error, name))?;
    close_channel(channel).await;
    Ok(())
}

/// Whether the queue exists. Uses a channel of its own, which the passive
/// declare of a missing queue closes.
async fn queue_exists(connection: &BrokerConnection, queue: &str) -> Result<bool, BrokerError> {
    let channel = connection.open_channel().await?;
    let declare = channel.queue_declare(short_string(queue)?, passive(), FieldTable::default());
    match with_timeout("looking for a queue", declare).await {
        Ok(_) => {
            close_channel(channel).await;
            Ok(true)
        }
        Err(BrokerError::Client { .. }) if connection.is_connected() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn declare_queue(connection: &BrokerConnection, spec: &QueueSpec) -> Result<(), BrokerError> {
    let channel = connection.open_channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declare =
        channel.queue_declare(short_string(&spec.queue)?, options, field_table(&spec.arguments)?);
    with_timeout("declaring a queue", declare)
        .await
        .map_err(|error| precondition_failed(error, &spec.queue))?;
    close_channel(channel).await;
    Ok(())
}

async fn bind_queue(connection: &BrokerConnection, spec: &QueueSpec) -> Result<(), BrokerError> {
    let channel = connection.open_channel().await?;
    let bind = channel.queue_bind(
        short_string(&spec.queue)?,
        short_string(&spec.exchange)?,
        short_string(&spec.routing_key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    with_timeout("binding a queue", bind).await?;
    close_channel(channel).await;
    Ok(())
}

/// Closes a channel. One that fails to close is gone already.
async fn close_channel(channel: Channel) {
    if let Ok(text) = short_string("done") {
        drop(with_timeout("closing a channel", channel.close(200, text)).await);
    }
}

/// Distinguishes the reply code 406: the text of RabbitMQ names the argument.
fn precondition_failed(error: BrokerError, name: &str) -> BrokerError {
    let BrokerError::Client { source, .. } = &error else {
        return error;
    };
    let broker_message = source.to_string();
    if !broker_message.contains("PRECONDITION_FAILED")
        && !broker_message.contains("PRECONDITION-FAILED")
    {
        return error;
    }
    BrokerError::PreconditionFailed {
        name: name.to_owned(),
        broker_message,
        advice: "The arguments of a queue or exchange cannot be changed. Set the configuration \
                 back to the values with which it was declared, choose another broker.prefix, or \
                 drain and delete it so that it is declared again. Tallyhook deletes nothing",
    }
}

fn long_string(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

fn field_table(arguments: &[(&str, AMQPValue)]) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert(short_string(key)?, value.clone());
    }
    Ok(table)
}

/// A name as an AMQP short string of at most 255 bytes. Prefix and source names
/// are limited so that ours always fit.
pub(super) fn short_string(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| BrokerError::NameTooLong(name.to_owned()))
}

/// A delay as the names of retry queues have it: `1s`, `1500ms`.
fn format_delay(delay: Duration) -> String {
    if delay.subsec_nanos() == 0 {
        format!("{}s", delay.as_secs())
    } else {
        format!("{}ms", delay.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topology_names_match_the_public_contract() {
        let source: SourceName = "shop".parse().unwrap();
        let topology = Topology::new("tallyhook", 100, Vec::new(), [source.clone()]);
        assert_eq!(topology.inbound_exchange(), "tallyhook.inbound");
        assert_eq!(topology.inbound_queue(&source), "tallyhook.inbound.shop");
        assert_eq!(topology.retry_queue(Duration::from_secs(8)), "tallyhook.retry.8s");
        assert_eq!(topology.retry_queue(Duration::from_millis(1500)), "tallyhook.retry.1500ms");
        assert_eq!(topology.dead_letter_queue(), "tallyhook.dead");
        assert_eq!(topology.unrouted_queue(), "tallyhook.unrouted");
        assert_eq!(topology.rejected_request_queue(), "tallyhook.calls");
    }
}
