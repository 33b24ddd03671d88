//! Publishing to an exchange that others bind their queues to.
//!
//! Nobody need be listening, and the exchange may be deleted under our feet:
//! publishing to one that is gone closes the channel for everybody on it. So
//! each announcer has a connection and a channel of its own, on which one
//! window is published and all its confirms are awaited before the next: then
//! the messages that were returned can be told from the others by their ids,
//! whichever confirm they were attached to.

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

/// What became of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Every queue that is bound for it has it.
    Confirmed,
    /// No queue is bound for it.
    Unroutable,
    /// A queue refused it.
    Nacked,
    /// Nobody knows: no confirm came, and why.
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
    /// One that connects when it is first asked to.
    pub fn new(url: &str, exchange: &str, confirm_timeout: Duration) -> Self {
        let (url, exchange) = (url.to_owned(), exchange.to_owned());
        Self { url, exchange, confirm_timeout, connection: None }
    }

    /// Connects, unless it is connected, and makes the exchange if it is not
    /// there: durable, of type topic.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn ensure_connected(&mut self) -> Result<(), BrokerError> {
        if self.connection.as_ref().is_some_and(|(link, channel)| {
            link.is_connected() && channel.status().connected() && !link.status().blocked()
        }) {
            return Ok(());
        }
        self.close().await;
        let link = BrokerConnection::open(&self.url, "tallyhook events").await?;
        let channel = link.open_channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let asked = channel.exchange_declare(
            short_string(&self.exchange)?,
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        );
        with_timeout("declaring an exchange", asked).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        with_timeout("asking for confirms", select).await?;
        self.connection = Some((link, channel));
        Ok(())
    }

    /// Publishes messages and tells what became of each, in their order.
    pub async fn publish(&mut self, messages: Vec<OutgoingMessage>) -> Vec<PublishOutcome> {
        let count = messages.len();
        let lost = |why: &str| vec![PublishOutcome::Unknown(why.to_owned()); count];
        let Some((_, channel)) = &self.connection else {
            return lost("there is no connection");
        };
        let said = match timeout(self.confirm_timeout, publish_and_confirm(channel, messages)).await
        {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => lost(&error),
            Err(_) => lost("RabbitMQ did not confirm in time"),
        };
        if said.iter().any(|one| matches!(one, PublishOutcome::Unknown(_))) {
            // What is still in flight there must not meet the next window.
            self.close().await;
        }
        said
    }

    async fn close(&mut self) {
        if let Some((link, _)) = self.connection.take() {
            link.close().await;
        }
    }
}

/// Publishes one window and awaits all of it.
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
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = channel
            .basic_publish(exchange, routing_key, options, &message.body, message.properties)
            .await;
        confirms.push(sent.map_err(|error| format!("publishing failed: {error}"))?);
    }
    let confirmations: Vec<Confirmation> = join_all(confirms)
        .await
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the channel broke: {error}"))?;
    let returned: HashSet<String> =
        confirmations.iter().filter_map(returned_message).filter_map(message_id).collect();
    let said = |(id, confirmation): (String, Confirmation)| match confirmation {
        _ if returned.contains(&id) => PublishOutcome::Unroutable,
        Confirmation::Ack(_) => PublishOutcome::Confirmed,
        Confirmation::Nack(_) => PublishOutcome::Nacked,
        Confirmation::NotRequested => {
            PublishOutcome::Unknown("the channel does not confirm".to_owned())
        }
    };
    Ok(ids.into_iter().zip(confirmations).map(said).collect())
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
