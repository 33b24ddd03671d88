//! Publishes events to an exchange to which others bind their queues.
//!
//! There may be no queue, and the exchange may be deleted at any time:
//! publishing to a missing exchange closes the channel. So each publisher has
//! a connection and a channel of its own. It publishes a window of messages
//! and awaits all their confirms before the next one. Then the returned
//! messages are known by their ids, whichever confirm carries them.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use lapin::{
    Channel, Confirmation, ExchangeKind,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use tokio::time::timeout;

use super::{
    connection::{BrokerConnection, BrokerError, with_timeout},
    message::OutgoingMessage,
    topology::short_string,
};

/// What became of a published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Every queue that is bound for it has it.
    Confirmed,
    /// No queue is bound for it.
    Unroutable,
    /// A queue refused it.
    Nacked,
    /// No confirm came, and why. A queue may have it or not.
    Unknown(String),
}

/// Publishes to one exchange.
pub struct EventPublisher {
    url: String,
    exchange: String,
    confirm_timeout: Duration,
    connection: Option<(BrokerConnection, Channel)>,
}

impl EventPublisher {
    /// A publisher that is not connected yet.
    pub fn new(url: &str, exchange: &str, confirm_timeout: Duration) -> Self {
        let (url, exchange) = (url.to_owned(), exchange.to_owned());
        Self { url, exchange, confirm_timeout, connection: None }
    }

    /// Connects unless it is connected, and declares the exchange: durable, of
    /// type topic.
    ///
    /// # Errors
    /// The error of RabbitMQ.
    pub async fn ensure_connected(&mut self) -> Result<(), BrokerError> {
        if self.connection.as_ref().is_some_and(|(connection, channel)| {
            connection.is_connected()
                && channel.status().connected()
                && !connection.status().blocked()
        }) {
            return Ok(());
        }
        self.close().await;
        let connection = BrokerConnection::open(&self.url, "tallyhook events").await?;
        let channel = connection.open_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = short_string(&self.exchange)?;
        let declare =
            channel.exchange_declare(exchange, ExchangeKind::Topic, durable, FieldTable::default());
        with_timeout("declaring an exchange", declare).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        with_timeout("enabling publisher confirms", select).await?;
        self.connection = Some((connection, channel));
        Ok(())
    }

    /// Publishes messages. Returns one outcome for each, in their order.
    pub async fn publish(&mut self, messages: Vec<OutgoingMessage>) -> Vec<PublishOutcome> {
        let count = messages.len();
        let unknown = |error: &str| vec![PublishOutcome::Unknown(error.to_owned()); count];
        let Some((_, channel)) = &self.connection else {
            return unknown("there is no connection");
        };
        let publish = publish_and_confirm(channel, messages);
        let outcomes = match timeout(self.confirm_timeout, publish).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => unknown(&error),
            Err(_) => unknown("RabbitMQ did not confirm in time"),
        };
        if outcomes.iter().any(|outcome| matches!(outcome, PublishOutcome::Unknown(_))) {
            // A late return must not be taken for one of the next window.
            self.close().await;
        }
        outcomes
    }

    async fn close(&mut self) {
        if let Some((connection, _)) = self.connection.take() {
            connection.close().await;
        }
    }
}

/// Publishes one window and awaits all its confirms.
async fn publish_and_confirm(
    channel: &Channel,
    messages: Vec<OutgoingMessage>,
) -> Result<Vec<PublishOutcome>, String> {
    let mut ids = Vec::new();
    let mut confirms = Vec::new();
    for message in messages {
        let id = message.properties.message_id().clone();
        ids.push(id.map(|id| id.to_string()).unwrap_or_default());
        let names = short_string(&message.exchange)
            .and_then(|exchange| Ok((exchange, short_string(&message.routing_key)?)));
        let (exchange, routing_key) = names.map_err(|error| error.to_string())?;
        // Mandatory: otherwise an unroutable message is dropped and confirmed.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel
            .basic_publish(exchange, routing_key, options, &message.body, message.properties)
            .await;
        confirms.push(confirm.map_err(|error| format!("publishing failed: {error}"))?);
    }
    let confirmations: Vec<Confirmation> = join_all(confirms)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the channel failed: {error}"))?;
    let returned: HashSet<String> =
        confirmations.iter().filter_map(returned_message).filter_map(message_id).collect();
    let outcome_of = |(id, confirmation): (String, Confirmation)| match confirmation {
        _ if returned.contains(&id) => PublishOutcome::Unroutable,
        Confirmation::Ack(_) => PublishOutcome::Confirmed,
        Confirmation::Nack(_) => PublishOutcome::Nacked,
        Confirmation::NotRequested => {
            PublishOutcome::Unknown("publisher confirms are not enabled".to_owned())
        }
    };
    Ok(ids.into_iter().zip(confirmations).map(outcome_of).collect())
}

fn returned_message(confirmation: &Confirmation) -> Option<&BasicReturnMessage> {
    match confirmation {
        Confirmation::Ack(returned) | Confirmation::Nack(returned) => returned.as_ref(),
        Confirmation::NotRequested => None,
    }
}

fn message_id(returned: &BasicReturnMessage) -> Option<String> {
    returned.properties.message_id().as_ref().map(ToString::to_string)
}
