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
    connection::{BrokerConnection, BrokerError, with_timeout},
    message::IncomingMessage,
    topology::short_string,
};

/// A queue that gives nothing for this long is looked at.
const IDLE_CHECK_AFTER: Duration = Duration::from_secs(3);

/// A consumer with a channel of its own.
pub struct Consumer {
    queue: String,
    channel: Channel,
    stream: lapin::Consumer,
    /// Consumers before it, cancelled; what they were given comes first.
    cancelled: VecDeque<lapin::Consumer>,
}

/// A delivered message, not settled yet.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Counts deliveries on the channel; settling needs it.
    pub tag: u64,
    /// The message.
    pub message: IncomingMessage,
}

async fn start_consuming(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
) -> Result<lapin::Consumer, BrokerError> {
    let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
    with_timeout("limiting the prefetch", qos).await?;
    let consume = channel.basic_consume(
        short_string(queue)?,
        short_string("")?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    with_timeout("consuming a queue", consume).await
}

impl Consumer {
    /// Consumes a queue with at most `prefetch` messages unsettled. At least
    /// twice a batch keeps the next one coming while the last is settled.
    ///
    /// # Errors
    /// [`BrokerError`], such as that there is no such queue.
    pub async fn open(
        link: &BrokerConnection,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let channel = link.open_channel().await?;
        let stream = start_consuming(&channel, queue, prefetch).await?;
        Ok(Self { queue: queue.to_owned(), channel, stream, cancelled: VecDeque::new() })
    }

    /// Goes on with another prefetch. A consumer keeps the one that it began
    /// with (quorum queues know no limit for a channel), so another one takes
    /// its place; what was delivered already keeps its place and its tag.
    ///
    /// # Errors
    /// [`BrokerError`], such as that the queue is gone.
    pub async fn set_prefetch(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let tag = self.stream.tag();
        let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        with_timeout("ending a consumer", cancel).await?;
        let next = start_consuming(&self.channel, &self.queue, prefetch).await?;
        self.cancelled.push_back(std::mem::replace(&mut self.stream, next));
        Ok(())
    }

    /// The next delivery. Safe to be dropped while it waits.
    ///
    /// # Errors
    /// Any error is final. So is a bare end: a deleted queue gives nothing
    /// else, and the channel stays open.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let next = loop {
            if let Some(before) = self.cancelled.front_mut() {
                // Cancelled: it ends behind what it was given.
                match before.next().await {
                    None => {
                        self.cancelled.pop_front();
                        continue;
                    }
                    some => break some,
                }
            }
            match timeout(IDLE_CHECK_AFTER, self.stream.next()).await {
                Ok(next) => break next,
                // Nobody says so when a queue is deleted in the moment in
                // which it is consumed: we would wait for ever.
                Err(_) => self.check_queue().await?,
            }
        };
        match next {
            Some(Ok(delivery)) => Ok(Delivery {
                tag: delivery.delivery_tag,
                message: IncomingMessage::new(
                    delivery.routing_key.into(),
                    delivery.properties,
                    delivery.data,
                ),
            }),
            Some(Err(source)) => Err(BrokerError::Client { operation: "receiving", source }),
            None => Err(BrokerError::ConsumerCancelled(self.queue.clone())),
        }
    }

    /// Whether the queue is there and anybody consumes it.
    async fn check_queue(&self) -> Result<(), BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asked =
            self.channel.queue_declare(short_string(&self.queue)?, passive, FieldTable::default());
        let queue = with_timeout("looking at a quiet queue", asked).await?;
        if queue.consumer_count() == 0 {
            return Err(BrokerError::ConsumerCancelled(self.queue.clone()));
        }
        Ok(())
    }

    /// Acknowledges every delivery up to and including this tag.
    ///
    /// # Errors
    /// The channel is gone: the broker will deliver all of them again.
    pub async fn ack_up_to(&self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions { multiple: true };
        with_timeout("acknowledging", self.channel.basic_ack(tag, options)).await
    }

    /// Ends the consumer; what is unsettled goes back to the queue.
    pub async fn close(self) {
        if let Ok(done) = short_string("done") {
            // A channel that is gone already is closed enough.
            drop(with_timeout("closing a channel", self.channel.close(200, done)).await);
        }
    }
}
