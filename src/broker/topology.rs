//! Exchanges and queues: what is declared, and why no hop can lose a message.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};

use super::connection::{BrokerError, Link, in_time};
use crate::domain::SourceName;

/// For queues whose messages must never be given up: a very large number,
/// since -1 means "none" to RabbitMQ 4 but "at once" to 3.10.
const NEVER: u32 = 1_000_000_000;

/// How long a deleted queue stays away before it is made again.
const MOURNING: Duration = Duration::from_secs(1);

/// The names and arguments of everything of ours on the broker.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    delivery_limit: u32,
    tiers: Vec<Duration>,
    sources: Vec<SourceName>,
}

/// A queue, and the exchange that feeds it.
struct Place {
    exchange: String,
    queue: String,
    /// The routing key that binds them; nothing where the exchange fans out.
    key: String,
    arguments: Vec<(&'static str, AMQPValue)>,
}

impl Place {
    /// A queue with an exchange of its own name.
    fn alone(name: String, arguments: Vec<(&'static str, AMQPValue)>) -> Self {
        Self { exchange: name.clone(), queue: name, key: String::new(), arguments }
    }
}

/// Ready messages in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
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
    pub fn bare(prefix: &str) -> Self {
        Self::new(prefix, NEVER, Vec::new(), [])
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
    pub fn unrouted(&self) -> String {
        format!("{}.unrouted", self.prefix)
    }

    /// The exchange, and the queue of the same name, where a message waits.
    pub fn retry(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.prefix, written(delay))
    }

    /// The exchange, and the queue of the same name, of the dead.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The exchange, and the queue of the same name, of refused calls on
    /// their way to the call log.
    pub fn calls(&self) -> String {
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
    fn places(&self) -> Vec<Place> {
        let parked = |name: String| Place::alone(name, parking());
        let inbound = self.sources.iter().map(|source| Place {
            exchange: self.inbound_exchange(),
            queue: self.inbound_queue(source),
            key: source.to_string(),
            arguments: self.working(),
        });
        let retry =
            self.tiers.iter().map(|delay| Place::alone(self.retry(*delay), self.waiting(*delay)));
        let others = [parked(self.dead()), parked(self.unrouted()), parked(self.calls())];
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
    /// [`BrokerError::Differs`] names the argument that is not ours.
    pub async fn declare(&self, link: &Link) -> Result<(), BrokerError> {
        // Without the alternate exchange a message for a missing queue would
        // be returned or dropped; so it waits in a queue of its own.
        let alternate = [("alternate-exchange", text(&self.unrouted()))];
        let inbound = self.inbound_exchange();
        exchange(link, &inbound, ExchangeKind::Direct, &alternate).await?;

        let places = self.places();
        let mut missing = Vec::new();
        for place in &places {
            if place.exchange != inbound {
                exchange(link, &place.exchange, ExchangeKind::Fanout, &[]).await?;
            }
            if exists(link, &place.queue).await? {
                queue(link, place).await?;
            } else {
                missing.push(place);
            }
        }
        if !missing.is_empty() && missing.len() < places.len() {
            tokio::time::sleep(MOURNING).await;
        }
        for place in missing {
            queue(link, place).await?;
        }
        for place in &places {
            bind(link, place).await?;
        }
        Ok(())
    }

    /// Counts what is ready in every queue, on a channel of its own: a
    /// missing queue closes the channel that asks.
    ///
    /// # Errors
    /// [`BrokerError`] if the broker does not answer.
    pub async fn depths(&self, link: &Link) -> Result<Vec<Depth>, BrokerError> {
        let sources = self
            .sources
            .iter()
            .map(|source| (self.inbound_queue(source), "inbound", Some(source.clone())));
        let tiers = self.tiers.iter().map(|delay| (self.retry(*delay), "retry", None));
        let others = [
            (self.dead(), "dead", None),
            (self.unrouted(), "unrouted", None),
            (self.calls(), "calls", None),
        ];
        let mut depths = Vec::new();
        let mut channel = link.channel().await?;
        for (queue, role, source) in sources.chain(tiers).chain(others) {
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let asked = channel.queue_declare(short(&queue)?, passive, FieldTable::default());
            let ready = match in_time("counting a queue", asked).await {
                Ok(found) => Some(found.message_count()),
                Err(BrokerError::Client { .. }) if link.is_up() => {
                    channel = link.channel().await?;
                    None
                }
                Err(error) => return Err(error),
            };
            depths.push(Depth { queue, role, source, ready });
        }
        Ok(depths)
    }

    /// A queue that workers consume.
    fn working(&self) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = parking();
        arguments.retain(|(key, _)| *key != "x-delivery-limit");
        arguments.extend(Self::dead_letters_to(&self.dead()));
        // Without a limit a message that crashes its worker would do so for
        // ever; with 4.0's own limit of 20, a few crashes would bury a whole
        // prefetch of innocents.
        arguments.push(("x-delivery-limit", AMQPValue::LongUInt(self.delivery_limit)));
        arguments
    }

    /// A queue in which messages wait for their next attempt. The delay is
    /// the queue's, not the message's: a message's own would only be looked at
    /// when it is first in line.
    fn waiting(&self, delay: Duration) -> Vec<(&'static str, AMQPValue)> {
        let mut arguments = parking();
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.push(("x-message-ttl", AMQPValue::LongLongInt(milliseconds)));
        // No dead-letter routing key: the message keeps its own, the source,
        // and so finds its way back.
        arguments.extend(Self::dead_letters_to(&self.inbound_exchange()));
        arguments
    }

    fn dead_letters_to(exchange: &str) -> [(&'static str, AMQPValue); 3] {
        [
            ("x-dead-letter-exchange", text(exchange)),
            // The default dead-letters at most once: a crash in between loses
            // the message.
            ("x-dead-letter-strategy", text("at-least-once")),
            // Without this the strategy silently falls back to at-most-once.
            ("x-overflow", text("reject-publish")),
        ]
    }
}

/// A queue that keeps messages until somebody takes them.
fn parking() -> Vec<(&'static str, AMQPValue)> {
    vec![
        // Replicated and on disk before it confirms. Always named, because the
        // default type can be changed on the broker.
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongUInt(NEVER)),
    ]
}

async fn exchange(
    link: &Link,
    name: &str,
    kind: ExchangeKind,
    arguments: &[(&str, AMQPValue)],
) -> Result<(), BrokerError> {
    let channel = link.channel().await?;
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let asked = channel.exchange_declare(short(name)?, kind, options, table(arguments)?);
    in_time("declaring an exchange", asked).await.map_err(|error| differs(error, name))?;
    close(channel).await;
    Ok(())
}

/// Whether there is such a queue. Asked on a channel of its own, which a
/// missing queue closes.
async fn exists(link: &Link, queue: &str) -> Result<bool, BrokerError> {
    let channel = link.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(queue)?, passive, FieldTable::default());
    match in_time("looking for a queue", asked).await {
        Ok(_) => {
            close(channel).await;
            Ok(true)
        }
        Err(BrokerError::Client { .. }) if link.is_up() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn queue(link: &Link, place: &Place) -> Result<(), BrokerError> {
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let asked = channel.queue_declare(short(&place.queue)?, options, table(&place.arguments)?);
    in_time("declaring a queue", asked).await.map_err(|error| differs(error, &place.queue))?;
    close(channel).await;
    Ok(())
}

async fn bind(link: &Link, place: &Place) -> Result<(), BrokerError> {
    let channel = link.channel().await?;
    let asked = channel.queue_bind(
        short(&place.queue)?,
        short(&place.exchange)?,
        short(&place.key)?,
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    in_time("binding a queue", asked).await?;
    close(channel).await;
    Ok(())
}

/// A channel whose work is done; one that is gone already is no matter.
async fn close(channel: Channel) {
    if let Ok(done) = short("done") {
        drop(in_time("closing a channel", channel.close(200, done)).await);
    }
}

/// Tells a 406 from other errors: the broker's text names the argument.
fn differs(error: BrokerError, name: &str) -> BrokerError {
    let BrokerError::Client { source, .. } = &error else {
        return error;
    };
    let told = source.to_string();
    if !told.contains("PRECONDITION_FAILED") && !told.contains("PRECONDITION-FAILED") {
        return error;
    }
    BrokerError::Differs {
        name: name.to_owned(),
        told,
        advice: "Arguments are fixed when a queue or exchange is made. Set the configuration back \
                 to what it was made with, choose another broker.prefix, or drain it and delete \
                 it so that it can be made anew. Tallyhook deletes nothing",
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.as_bytes().into())
}

fn table(arguments: &[(&str, AMQPValue)]) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert(short(key)?, value.clone());
    }
    Ok(table)
}

/// A name as AMQP carries it: at most 255 bytes. Prefix and source are
/// limited so that ours always fit.
pub(super) fn short(name: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(name).map_err(|_| BrokerError::Name(name.to_owned()))
}

/// A delay as it stands in a queue's name: `1s`, `1500ms`.
fn written(delay: Duration) -> String {
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
        assert_eq!(topology.retry(Duration::from_secs(8)), "tallyhook.retry.8s");
        assert_eq!(topology.retry(Duration::from_millis(1500)), "tallyhook.retry.1500ms");
        assert_eq!(topology.dead(), "tallyhook.dead");
        assert_eq!(topology.unrouted(), "tallyhook.unrouted");
        assert_eq!(topology.calls(), "tallyhook.calls");
    }
}
