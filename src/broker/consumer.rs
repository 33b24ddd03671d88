//! Consuming a queue: deliveries in order, acknowledged up to a tag.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    Channel,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::time::timeout;

use super::{
    connection::{BrokerError, Link, in_time},
    topology::short,
    wire::Parcel,
};

/// A queue that gives nothing for this long is looked at.
const QUIET: Duration = Duration::from_secs(3);

/// A consumer with a channel of its own.
pub struct Subscription {
    queue: String,
    channel: Channel,
    stream: lapin::Consumer,
    /// Consumers before it, cancelled; what they were given comes first.
    before: VecDeque<lapin::Consumer>,
}

/// A delivered message, not settled yet.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Counts deliveries on the channel; settling needs it.
    pub tag: u64,
    /// The message.
    pub parcel: Parcel,
}

async fn consume(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<lapin::Consumer, BrokerError> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    in_time("limiting the prefetch", qos).await?;
    let consume = channel.basic_consume(
        short(queue)?,
        short("")?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    in_time("consuming a queue", consume).await
}

impl Subscription {
    /// Consumes a queue with at most `prefetch` messages unsettled. At least
    /// twice a batch keeps the next one coming while the last is settled.
    ///
    /// # Errors
    /// [`BrokerError`], such as that there is no such queue.
    pub async fn open(link: &Link, queue: &str, prefetch: u16) -> Result<Self, BrokerError> {
        let channel = link.channel().await?;
        let stream = consume(&channel, queue, prefetch).await?;
        Ok(Self { queue: queue.to_owned(), channel, stream, before: VecDeque::new() })
    }

    /// Goes on with another prefetch. A consumer keeps the one that it began
    /// with (quorum queues know no limit for a channel), so another one takes
    /// its place; what was delivered already keeps its place and its tag.
    ///
    /// # Errors
    /// [`BrokerError`], such as that the queue is gone.
    pub async fn limit(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let tag = self.stream.tag();
        let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        in_time("ending a consumer", cancel).await?;
        let next = consume(&self.channel, &self.queue, prefetch).await?;
        self.before.push_back(std::mem::replace(&mut self.stream, next));
        Ok(())
    }

    /// The next delivery. Safe to be dropped while it waits.
    ///
    /// # Errors
    /// Any error is final. So is a bare end: a deleted queue gives nothing
    /// else, and the channel stays open.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let next = loop {
            if let Some(before) = self.before.front_mut() {
                // Cancelled: it ends behind what it was given.
                match before.next().await {
                    None => {
                        self.before.pop_front();
                        continue;
                    }
                    some => break some,
                }
            }
            match timeout(QUIET, self.stream.next()).await {
                Ok(next) => break next,
                // Nobody says so when a queue is deleted in the moment in
                // which it is consumed: we would wait for ever.
                Err(_) => self.check().await?,
            }
        };
        match next {
            Some(Ok(delivery)) => Ok(Delivery {
                tag: delivery.delivery_tag,
                parcel: Parcel::new(
                    delivery.routing_key.into(),
                    delivery.properties,
                    delivery.data,
                ),
            }),
            Some(Err(source)) => Err(BrokerError::Client { what: "receiving", source }),
            None => Err(BrokerError::Ended(self.queue.clone())),
        }
    }

    /// Whether the queue is there and anybody consumes it.
    async fn check(&self) -> Result<(), BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked = self.channel.queue_declare(short(&self.queue)?, passive, FieldTable::default());
        let queue = in_time("looking at a quiet queue", asked).await?;
        if queue.consumer_count() == 0 {
            return Err(BrokerError::Ended(self.queue.clone()));
        }
        Ok(())
    }

    /// Acknowledges every delivery up to and including this tag.
    ///
    /// # Errors
    /// The channel is gone: the broker will deliver all of them again.
    pub async fn ack_through(&self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions { multiple: true };
        in_time("acknowledging", self.channel.basic_ack(tag, options)).await
    }

    /// Ends the consumer; what is unsettled goes back to the queue.
    pub async fn close(self) {
        if let Ok(done) = short("done") {
            // A channel that is gone already is closed enough.
            drop(in_time("closing a channel", self.channel.close(200, done)).await);
        }
    }
}
