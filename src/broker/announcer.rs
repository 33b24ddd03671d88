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
    connection::{BrokerError, Link, in_time},
    topology::short,
    wire::Outgoing,
};

/// What became of an announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Every queue that is bound for it has it.
    Taken,
    /// No queue is bound for it.
    Unheard,
    /// A queue refused it.
    Refused,
    /// Nobody knows: no confirm came, and why.
    Lost(String),
}

/// Publishes to one exchange.
pub struct Announcer {
    url: String,
    exchange: String,
    confirm_timeout: Duration,
    open: Option<(Link, Channel)>,
}

impl Announcer {
    /// One that connects when it is first asked to.
    pub fn new(url: &str, exchange: &str, confirm_timeout: Duration) -> Self {
        let (url, exchange) = (url.to_owned(), exchange.to_owned());
        Self { url, exchange, confirm_timeout, open: None }
    }

    /// Connects, unless it is connected, and makes the exchange if it is not
    /// there: durable, of type topic.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn connect(&mut self) -> Result<(), BrokerError> {
        if self.open.as_ref().is_some_and(|(link, channel)| {
            link.is_up() && channel.status().connected() && !link.status().blocked()
        }) {
            return Ok(());
        }
        self.close().await;
        let link = Link::open(&self.url, "tallyhook events").await?;
        let channel = link.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let asked = channel.exchange_declare(
            short(&self.exchange)?,
            ExchangeKind::Topic,
            durable,
            FieldTable::default(),
        );
        in_time("declaring an exchange", asked).await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default());
        in_time("asking for confirms", select).await?;
        self.open = Some((link, channel));
        Ok(())
    }

    /// Publishes messages and tells what became of each, in their order.
    pub async fn announce(&mut self, messages: Vec<Outgoing>) -> Vec<Announced> {
        let count = messages.len();
        let lost = |why: &str| vec![Announced::Lost(why.to_owned()); count];
        let Some((_, channel)) = &self.open else {
            return lost("there is no connection");
        };
        let said = match timeout(self.confirm_timeout, publish(channel, messages)).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => lost(&error),
            Err(_) => lost("RabbitMQ did not confirm in time"),
        };
        if said.iter().any(|one| matches!(one, Announced::Lost(_))) {
            // What is still in flight there must not meet the next window.
            self.close().await;
        }
        said
    }

    async fn close(&mut self) {
        if let Some((link, _)) = self.open.take() {
            link.close().await;
        }
    }
}

/// Publishes one window and awaits all of it.
async fn publish(channel: &Channel, messages: Vec<Outgoing>) -> Result<Vec<Announced>, String> {
    let mut ids = Vec::new();
    let mut confirms = Vec::new();
    for message in messages {
        let id = message.properties.message_id().clone();
        ids.push(id.map(|id| id.to_string()).unwrap_or_default());
        let names = short(&message.exchange)
            .and_then(|exchange| Ok((exchange, short(&message.routing_key)?)));
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
        confirmations.iter().filter_map(returned).filter_map(id_of).collect();
    let said = |(id, confirmation): (String, Confirmation)| match confirmation {
        _ if returned.contains(&id) => Announced::Unheard,
        Confirmation::Ack(_) => Announced::Taken,
        Confirmation::Nack(_) => Announced::Refused,
        Confirmation::NotRequested => Announced::Lost("the channel does not confirm".to_owned()),
    };
    Ok(ids.into_iter().zip(confirmations).map(said).collect())
}

fn returned(confirmation: &Confirmation) -> Option<&BasicReturnMessage> {
    match confirmation {
        Confirmation::Ack(returned) | Confirmation::Nack(returned) => returned.as_ref(),
        Confirmation::NotRequested => None,
    }
}

fn id_of(returned: &BasicReturnMessage) -> Option<String> {
    returned.properties.message_id().as_ref().map(ToString::to_string)
}
