//! An AMQP client that does not go through the product.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{
        BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};

/// A connection of an operator or another program.
pub(crate) struct RawAmqpClient {
    connection: Connection,
}

impl RawAmqpClient {
    pub(crate) async fn open(url: &str) -> Self {
        let properties = ConnectionProperties::default();
        Self { connection: Connection::connect(url, properties).await.unwrap() }
    }

    pub(crate) async fn channel(&self) -> Channel {
        self.connection.create_channel().await.unwrap()
    }

    pub(crate) async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        message_id: Option<&str>,
        headers: &[(&str, AMQPValue)],
        body: &[u8],
    ) {
        let channel = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut table = FieldTable::default();
        for (key, value) in headers {
            table.insert(short(key), value.clone());
        }
        let mut properties = BasicProperties::default().with_headers(table);
        if let Some(id) = message_id {
            properties = properties.with_message_id(short(id));
        }
        let confirm = channel
            .basic_publish(
                short(exchange),
                short(routing_key),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(confirm.is_ack(), "{confirm:?}");
        channel.close(200, short("done")).await.unwrap();
    }

    /// Deletes a queue with its messages; returns how many there were.
    pub(crate) async fn delete(&self, queue: &str) -> u32 {
        let channel = self.channel().await;
        let gone = channel.queue_delete(short(queue), QueueDeleteOptions::default()).await.unwrap();
        channel.close(200, short("done")).await.unwrap();
        gone
    }

    /// Deletes an exchange.
    pub(crate) async fn delete_exchange(&self, exchange: &str) {
        let channel = self.channel().await;
        let options = lapin::options::ExchangeDeleteOptions::default();
        channel.exchange_delete(short(exchange), options).await.unwrap();
        channel.close(200, short("done")).await.unwrap();
    }

    /// Ready messages; `None` if there is no such queue.
    pub(crate) async fn depth(&self, queue: &str) -> Option<u32> {
        let channel = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(short(queue), passive, FieldTable::default()).await;
        found.ok().map(|queue| queue.message_count())
    }

    /// The numbers of ready messages and of consumers; the queue must exist.
    pub(crate) async fn look(&self, queue: &str) -> (u32, u32) {
        let channel = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(short(queue), passive, FieldTable::default()).await;
        let found = found.unwrap();
        (found.message_count(), found.consumer_count())
    }

    /// Whether the exchange exists.
    pub(crate) async fn has_exchange(&self, exchange: &str) -> bool {
        let channel = self.channel().await;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let kind = lapin::ExchangeKind::Direct;
        let found =
            channel.exchange_declare(short(exchange), kind, passive, FieldTable::default()).await;
        found.is_ok()
    }

    /// How often the first message of a queue was requeued; it stays there.
    pub(crate) async fn delivery_count(&self, queue: &str) -> i64 {
        let channel = self.channel().await;
        let got = channel.basic_get(short(queue), BasicGetOptions::default()).await.unwrap();
        let message = got.expect("the queue is empty");
        let headers = message.delivery.properties.headers().clone().unwrap_or_default();
        let count = match headers.inner().get("x-delivery-count") {
            None => 0,
            Some(AMQPValue::LongLongInt(count)) => *count,
            Some(AMQPValue::LongInt(count)) => i64::from(*count),
            Some(AMQPValue::ShortInt(count)) => i64::from(*count),
            Some(AMQPValue::ShortShortInt(count)) => i64::from(*count),
            Some(other) => panic!("{other:?}"),
        };
        channel.close(200, short("done")).await.unwrap();
        count
    }

    /// Requeues the first message until the broker dead-letters it; returns the number of deliveries.
    pub(crate) async fn hand_back(&self, queue: &str) -> u32 {
        let channel = self.channel().await;
        let mut taken = 0;
        let mut empty = 0;
        while empty < 20 {
            let got = channel.basic_get(short(queue), BasicGetOptions::default()).await.unwrap();
            if let Some(message) = got {
                let requeue = BasicNackOptions { multiple: false, requeue: true };
                message.delivery.acker.nack(requeue).await.unwrap();
                taken += 1;
                empty = 0;
            } else {
                empty += 1;
                tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            }
        }
        channel.close(200, short("done")).await.unwrap();
        taken
    }

    /// Consumes every message of a queue; returns their `message_id`s.
    pub(crate) async fn take_all(&self, queue: &str) -> Vec<String> {
        let channel = self.channel().await;
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(short(queue), options).await.unwrap() {
            let id = message.delivery.properties.message_id().clone().unwrap_or_default();
            taken.push(id.as_str().to_owned());
        }
        channel.close(200, short("done")).await.unwrap();
        taken
    }
}

pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}

pub(crate) fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.as_bytes().into())
}
