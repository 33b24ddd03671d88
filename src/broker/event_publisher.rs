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

/// A connection that publishes to one exchange.
pub struct EventPublisher {
    connection: BrokerConnection,
    channel: Channel,
    confirm_timeout: Duration,
    has_failed: bool,
}

impl EventPublisher {
    /// Connects and declares the exchange: durable, of type topic.
    ///
    /// # Errors
    /// The error of RabbitMQ.
    pub async fn connect(
        url: &str,
        exchange: &str,
        confirm_timeout: Duration,
    ) -> Result<Self, BrokerError> {
        let connection = BrokerConnection::open(url, "tallyhook events").await?;
        let channel = connection.open_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = short_string(exchange)?;
        let declare =
            channel.exchange_declare(exchange, ExchangeKind::Topic, durable, FieldTable::default());
        with_timeout("declaring an exchange", declare).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        with_timeout("enabling publisher confirms", select).await?;
        Ok(Self { connection, channel, confirm_timeout, has_failed: false })
    }

    /// Whether the next messages can be published. False after an unknown
    /// outcome: a late return must not be taken for one of the next window.
    pub fn is_usable(&self) -> bool {
        !self.has_failed
            && self.connection.is_connected()
            && self.channel.status().connected()
            && !self.connection.status().blocked()
    }

    /// Publishes messages. Returns one outcome for each, in their order.
    pub async fn publish(&mut self, messages: Vec<OutgoingMessage>) -> Vec<PublishOutcome> {
        let count = messages.len();
        let unknown = |error: &str| vec![PublishOutcome::Unknown(error.to_owned()); count];
        let publish = publish_and_confirm(&self.channel, messages);
        let outcomes = match timeout(self.confirm_timeout, publish).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) => unknown(&error),
            Err(_) => unknown("RabbitMQ did not confirm in time"),
        };
        let is_unknown = |outcome: &PublishOutcome| matches!(outcome, PublishOutcome::Unknown(_));
        self.has_failed |= outcomes.iter().any(is_unknown);
        outcomes
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
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
