//! A consumer of a queue, which acknowledges up to a delivery tag.

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

/// A consumer without a delivery for this long checks its queue.
const IDLE_CHECK_AFTER: Duration = Duration::from_secs(3);

/// A consumer with a channel of its own.
pub struct Consumer {
    queue: String,
    channel: Channel,
    stream: lapin::Consumer,
    /// Cancelled consumers of the same channel. Their deliveries come first.
    cancelled: VecDeque<lapin::Consumer>,
}

/// A message that is not acknowledged yet.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The delivery tag, which counts the deliveries of the channel.
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
    with_timeout("setting the prefetch", qos).await?;
    let consume = channel.basic_consume(
        short_string(queue)?,
        short_string("")?,
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    with_timeout("consuming a queue", consume).await
}

impl Consumer {
    /// Consumes a queue with at most `prefetch` unacknowledged messages. Twice
    /// the batch size or more keeps the next batch coming meanwhile.
    ///
    /// # Errors
    /// [`BrokerError`], such as a queue that does not exist.
    pub async fn open(
        connection: &BrokerConnection,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let channel = connection.open_channel().await?;
        let stream = start_consuming(&channel, queue, prefetch).await?;
        Ok(Self { queue: queue.to_owned(), channel, stream, cancelled: VecDeque::new() })
    }

    /// Changes the prefetch. Quorum queues have no limit for a whole channel,
    /// and a consumer keeps the one that it started with. So another consumer
    /// takes over; earlier deliveries keep their order and tags.
    ///
    /// # Errors
    /// [`BrokerError`], such as a queue that was deleted.
    pub async fn set_prefetch(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        let tag = self.stream.tag();
        let cancel = self.channel.basic_cancel(tag, BasicCancelOptions::default());
        with_timeout("cancelling a consumer", cancel).await?;
        let stream = start_consuming(&self.channel, &self.queue, prefetch).await?;
        self.cancelled.push_back(std::mem::replace(&mut self.stream, stream));
        Ok(())
    }

    /// The next delivery. Cancel safe.
    ///
    /// # Errors
    /// Any error is final. So is the end of the stream: a deleted queue gives
    /// nothing else, and the channel stays open.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        let next = loop {
            if let Some(cancelled) = self.cancelled.front_mut() {
                // Its stream ends after the deliveries that it has.
                match cancelled.next().await {
                    None => {
                        self.cancelled.pop_front();
                        continue;
                    }
                    some => break some,
                }
            }
            match timeout(IDLE_CHECK_AFTER, self.stream.next()).await {
                Ok(next) => break next,
                // RabbitMQ sends no cancellation if the queue is deleted while
                // the consumer starts: it would wait forever.
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

    /// Fails if the queue does not exist or has no consumer.
    async fn check_queue(&self) -> Result<(), BrokerError> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = short_string(&self.queue)?;
        let declare = self.channel.queue_declare(queue, passive, FieldTable::default());
        let queue = with_timeout("checking an idle queue", declare).await?;
        if queue.consumer_count() == 0 {
            return Err(BrokerError::ConsumerCancelled(self.queue.clone()));
        }
        Ok(())
    }

    /// Acknowledges every delivery up to and including this tag.
    ///
    /// # Errors
    /// The channel is gone: RabbitMQ delivers all of them again.
    pub async fn ack_up_to(&self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions { multiple: true };
        with_timeout("acknowledging", self.channel.basic_ack(tag, options)).await
    }

    /// Closes the channel. Unacknowledged messages return to the queue.
    pub async fn close(self) {
        if let Ok(text) = short_string("done") {
            // A channel that fails to close is gone already.
            drop(with_timeout("closing a channel", self.channel.close(200, text)).await);
        }
    }
}
