//! Exchanges and queues: what is declared, and why no hop can lose a message.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::connection::{BrokerConnection, BrokerError, with_timeout};
use crate::domain::SourceName;

/// For queues whose messages must never be given up: a very large number,
/// since -1 means "none" to RabbitMQ 4 but "at once" to 3.10.
const UNLIMITED_DELIVERIES: u32 = 1_000_000_000;

/// How long a deleted queue stays away before it is made again.
const REDECLARE_DELAY: Duration = Duration::from_secs(1);

/// The names and arguments of everything of ours on the broker.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    delivery_limit: u32,
    tiers: Vec<Duration>,
    sources: Vec<SourceName>,
}

/// A queue, and the exchange that feeds it.
struct QueueSpec {
    exchange: String,
    queue: String,
    /// The routing key that binds them; nothing where the exchange fans out.
    routing_key: String,
    arguments: Vec<(&'static str, AMQPValue)>,
}

impl QueueSpec {
    /// A queue with an exchange of its own name.
    fn standalone(name: String, arguments: Vec<(&'static str, AMQPValue)>) -> Self {
        Self { exchange: name.clone(), queue: name, routing_key: String::new(), arguments }
    }
}

/// Ready messages in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// What is in it: `inbound`, `retry`, `dead`, `unrouted` or `calls`.
    pub role: &'static str,
    /// The source, for an inbound queue.
    pub source: Option<SourceName>,
    /// Messages that wait; those that a consumer holds are not counted.
    /// `None`: there is no such queue.
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

    /// Only what is there whatever the sources: for tools that publish and
    /// must not make queues of their own.
    pub fn publish_only(prefix: &str) -> Self {
        Self::new(prefix, UNLIMITED_DELIVERIES, Vec::new(), [])
    }

    /// The exchange that takes what comes in; routing key = source.
    pub fn inbound_exchange(&self) -> String {
        format!("{}.inbound", self.prefix)
    }

    /// A source's queue.
    pub fn inbound_queue(&self, source: &SourceName) -> String {
        format!("{}.inbound.{source}", self.prefix)
    }

    /// The exchange, and the queue of the same name, for what no queue takes.
    pub fn unrouted_queue(&self) -> String {
        format!("{}.unrouted", self.prefix)
    }

    /// The exchange, and the queue of the same name, where a message waits.
    pub fn retry_queue(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.prefix, format_delay(delay))
    }

    /// The exchange, and the queue of the same name, of the dead.
    pub fn dead_letter_queue(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange, and the queue of the same name, of refused calls on
    /// their way to the call log.
    pub fn rejected_request_queue(&self) -> String {
        format!("{}.calls", self.prefix)
    }

    /// The sources that have a queue.
    pub fn sources(&self) -> &[SourceName] {
        &self.sources
    }

    /// Every queue with the exchange before it, in the order in which they are
    /// declared: dead, inbound, retry. With at-least-once dead-lettering, a
    /// message whose dead-letter exchange does not exist is held invisibly and
    /// moves on only minutes after the exchange appears.
    fn queue_specs(&self) -> Vec<QueueSpec> {
        let parked = |name: String| QueueSpec::standalone(name, durable_args());
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
            parked(self.dead_letter_queue()),
            parked(self.unrouted_queue()),
            parked(self.rejected_request_queue()),
        ];
        others.into_iter().chain(inbound).chain(retry).collect()
    }

    /// Declares everything; what is there already stays as it is.
    ///
    /// A queue that is missing among others was deleted, perhaps just now. It
    /// is made again only after a while: made at once, RabbitMQ's channels may
    /// take it for the old one, confirm messages and never show them to
    /// anybody (seen with 3.10). Until then messages wait among the unrouted.
    ///
    /// # Errors
    /// [`BrokerError::PreconditionFailed`] names the argument that is not ours.
    pub async fn declare(&self, link: &BrokerConnection) -> Result<(), BrokerError> {
        // Without the alternate exchange a message for a missing queue would
        // be returned or dropped; so it waits in a queue of its own.
        let alternate = [("alternate-exchange", long_string(&self.unrouted_queue()))];
        let inbound = self.inbound_exchange();
        declare_exchange(link, &inbound, ExchangeKind::Direct, &alternate).await?;

        let places = self.queue_specs();
        let mut missing = Vec::new();
        for place in &places {
            if place.exchange != inbound {
                declare_exchange(link, &place.exchange, ExchangeKind::Fanout, &[]).await?;
            }
            if queue_exists(link, &place.queue).await? {
                declare_queue(link, place).await?;
            } else {
                missing.push(place);
            }
        }
        if !missing.is_empty() && missing.len() < places.len() {
            tokio::time::sleep(REDECLARE_DELAY).await;
        }
        for place in missing {
            declare_queue(link, place).await?;
        }
        for place in &places {
            bind_queue(link, place).await?;
        }
        Ok(())
    }

    /// Counts what is ready in every queue, on a channel of its own: a
    /// missing queue closes the channel that asks.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker does not answer.
    pub async fn depths(&self, link: &BrokerConnection) -> Result<Vec<QueueDepth>, BrokerError> {
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
        let mut channel = link.open_channel().await?;
        for (queue, role, source) in sources.chain(tiers).chain(others) {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked =
                channel.queue_declare(short_string(&queue)?, passive, FieldTable::default());
            let ready = match with_timeout("counting a queue", asked).await {
                Ok(found) => Some(found.message_count()),
                Err(BrokerError::Client { .. }) if link.is_connected() => {
                    channel = link.open_channel().await?;
                    None
                }
                Err(error) => return Err(error),
            };
            depths.push(QueueDepth { queue, role, source, ready });
        }
        Ok(depths)
    }

    /// A queue that workers consume.
    fn inbound_args(&self) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = durable_args();
        arguments.retain(|(key, _)| *key != "x-delivery-limit");
        arguments.extend(Self::dead_letter_args(&self.dead_letter_queue()));
        // Without a limit a message that crashes its worker would do so for
        // ever; with 4.0's own limit of 20, a few crashes would bury a whole
        // prefetch of innocents.
        arguments.push(("x-delivery-limit", AMQPValue::LongUInt(self.delivery_limit)));
        arguments
    }

    /// A queue in which messages wait for their next attempt. The delay is
    /// the queue's, not the message's: a message's own would only be looked at
    /// when it is first in line.
    fn retry_args(&self, delay: Duration) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = durable_args();
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", AMQPValue::LongLongInt(milliseconds)));
        // No dead-letter routing key: the message keeps its own, the source,
        // and so finds its way back.
        arguments.extend(Self::dead_letter_args(&self.inbound_exchange()));
        arguments
    }

    fn dead_letter_args(exchange: &str) -> [(&'static str, AMQPValue); 3] {
        [
            ("x-dead-letter-exchange", long_string(exchange)),
            // The default dead-letters at most once: a crash in between loses
            // the message.
            ("x-dead-letter-strategy", long_string("at-least-once")),
            // Without this the strategy silently falls back to at-most-once.
            ("x-overflow", long_string("reject-publish")),
        ]
    }
}

/// A queue that keeps messages until somebody takes them.
fn durable_args() -> Vec<(&'static str, AMQPValue)> {
    vec![
        // Replicated and on disk before it confirms. Always named, because the
        // default type can be changed on the broker.
        ("x-queue-type", long_string("quorum")),
        ("x-delivery-limit", AMQPValue::LongUInt(UNLIMITED_DELIVERIES)),
    ]
}

async fn declare_exchange(
    link: &BrokerConnection,
    name: &str,
    kind: ExchangeKind,
    arguments: &[(&str, AMQPValue)],
) -> Result<(), BrokerError> {
    let channel = link.open_channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let asked =
        channel.exchange_declare(short_string(name)?, kind, options, field_table(arguments)?);
    with_timeout("declaring an exchange", asked)
        .await
        .map_err(|error| precondition_failed(error, name))?;
    close_channel(channel).await;
    Ok(())
}

/// Whether there is such a queue. Asked on a channel of its own, which a
/// missing queue closes.
async fn queue_exists(link: &BrokerConnection, queue: &str) -> Result<bool, BrokerError> {
    let channel = link.open_channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short_string(queue)?, passive, FieldTable::default());
    match with_timeout("looking for a queue", asked).await {
        Ok(_) => {
            close_channel(channel).await;
            Ok(true)
        }
        Err(BrokerError::Client { .. }) if link.is_connected() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn declare_queue(link: &BrokerConnection, place: &QueueSpec) -> Result<(), BrokerError> {
    let channel = link.open_channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let asked =
        channel.queue_declare(short_string(&place.queue)?, options, field_table(&place.arguments)?);
    with_timeout("declaring a queue", asked)
        .await
        .map_err(|error| precondition_failed(error, &place.queue))?;
    close_channel(channel).await;
    Ok(())
}

async fn bind_queue(link: &BrokerConnection, place: &QueueSpec) -> Result<(), BrokerError> {
    let channel = link.open_channel().await?;
    let asked = channel.queue_bind(
        short_string(&place.queue)?,
        short_string(&place.exchange)?,
        short_string(&place.routing_key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    with_timeout("binding a queue", asked).await?;
    close_channel(channel).await;
    Ok(())
}

/// A channel whose work is done; one that is gone already is no matter.
async fn close_channel(channel: Channel) {
    if let Ok(done) = short_string("done") {
        drop(with_timeout("closing a channel", channel.close(200, done)).await);
    }
}

/// Tells a 406 from other errors: the broker's text names the argument.
fn precondition_failed(error: BrokerError, name: &str) -> BrokerError {
    let BrokerError::Client { source, .. } = &error else {
        return error;
    };
    let told = source.to_string();
    if !told.contains("PRECONDITION_FAILED") && !told.contains("PRECONDITION-FAILED") {
        return error;
    }
    BrokerError::PreconditionFailed {
        name: name.to_owned(),
        broker_message: told,
        advice: "Arguments are fixed when a queue or exchange is made. Set the configuration back \
                 to what it was made with, choose another broker.prefix, or drain it and delete \
                 it so that it can be made anew. Tallyhook deletes nothing",
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

/// A name as AMQP carries it: at most 255 bytes. Prefix and source are
/// limited so that ours always fit.
pub(super) fn short_string(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| BrokerError::NameTooLong(name.to_owned()))
}

/// A delay as it stands in a queue's name: `1s`, `1500ms`.
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
    fn names_are_the_contract() {
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
