//! One channel and what is in flight on it.
//!
//! A returned (unroutable) message is attached to whichever confirm the
//! client happens to process next, at the latest the message's own. So a
//! confirm without a return proves nothing by itself. But a message whose own
//! confirm carries none was returned with a confirm processed *before* it, if
//! it was returned at all; and what was processed before it can be seen. A
//! lane therefore looks at every confirm in flight, again and again until a
//! look finds nothing new, and only then believes what it saw. One return
//! condemns all that is in flight on the channel: with the alternate exchange
//! on the inbound exchange it means that somebody tore the topology down.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::poll_fn;
use lapin::{Channel, Confirmation, ConnectionStatus, options::BasicPublishOptions};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::error;

use super::{Confirmed, PublishError, PublishRequest};
use crate::broker::topology::short_string;

/// A confirm that takes longer than this, on a connection that is not
/// blocked, means that the channel is of no use any more.
const CONFIRM_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long handing a frame to the socket may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// One channel and what is in flight on it.
pub(super) struct ConfirmChannel {
    channel: Channel,
    status: ConnectionStatus,
    max_unconfirmed: usize,
    unconfirmed: VecDeque<Unconfirmed>,
    max_nack_duration: Duration,
    /// Since when every message with this routing key has been refused.
    nacked_since: HashMap<String, Instant>,
}

/// A message that was published and whose fate is not known yet.
struct Unconfirmed {
    confirm: lapin::PublisherConfirm,
    published_at: Instant,
    routing_key: String,
    /// What the broker said, once it did and until it is believed.
    confirmation: Option<Result<Confirmation, lapin::Error>>,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl ConfirmChannel {
    /// A lane on a channel in confirm mode.
    ///
    /// A quorum queue with a length limit tells a channel that it is full, and
    /// when there is room again; but not if the limit was taken away meanwhile
    /// (seen with RabbitMQ 3.10). A channel that is refused everything for
    /// `max_nack_duration` is therefore given up: another one may not be.
    pub(super) fn new(
        channel: Channel,
        status: ConnectionStatus,
        max_unconfirmed: usize,
        max_nack_duration: Duration,
    ) -> Self {
        let (unconfirmed, nacked_since) = (VecDeque::new(), HashMap::new());
        Self { channel, status, max_unconfirmed, unconfirmed, max_nack_duration, nacked_since }
    }

    /// Publishes jobs until the channel is of no use any more; says why.
    /// Replies that are dropped tell their callers that the publish was lost.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<PublishRequest>) -> String {
        let mut open = true;
        loop {
            if !open && self.unconfirmed.is_empty() {
                return "done".to_owned();
            }
            let room = open && self.unconfirmed.len() < self.max_unconfirmed;
            let oldest =
                self.unconfirmed.front().map_or_else(Instant::now, |first| first.published_at);
            tokio::select! {
                biased;
                () = poll_fn(|context| self.poll_confirms(context)), if !self.unconfirmed.is_empty() => {
                    if let Err(why) = self.resolve_confirms() {
                        return why;
                    }
                }
                job = jobs.recv(), if room => {
                    let mut next = job;
                    open = next.is_some();
                    // Whoever waits goes along before the confirms are looked at.
                    while let Some(job) = next {
                        if let Err(why) = self.publish(job).await {
                            return why;
                        }
                        let room = self.unconfirmed.len() < self.max_unconfirmed;
                        next = if room { jobs.try_recv().ok() } else { None };
                    }
                }
                () = tokio::time::sleep_until((oldest + CONFIRM_STALL_TIMEOUT).into()), if !self.unconfirmed.is_empty() => {
                    if !self.status.blocked() {
                        return "the broker stopped confirming".to_owned();
                    }
                    // Blocked publishers get no confirms; look again later.
                    let now = Instant::now();
                    for flying in &mut self.unconfirmed {
                        flying.published_at = now;
                    }
                }
            }
        }
    }

    async fn publish(&mut self, job: PublishRequest) -> Result<(), String> {
        let PublishRequest { message, reply } = job;
        if reply.is_closed() {
            // The caller gave up while it waited for its turn.
            return Ok(());
        }
        let names = short_string(&message.exchange)
            .and_then(|exchange| Ok((exchange, short_string(&message.routing_key)?)));
        let (exchange, routing_key) = match names {
            Ok(names) => names,
            Err(error) => {
                drop(reply.send(Err(PublishError::Lost(error.to_string().into()))));
                return Ok(());
            }
        };
        // Mandatory: without it the broker confirms what no queue took.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = timeout(
            PUBLISH_TIMEOUT,
            self.channel.basic_publish(
                exchange,
                routing_key,
                options,
                &message.body,
                message.properties,
            ),
        )
        .await;
        match published {
            Ok(Ok(confirm)) => {
                let (since, routing_key) = (Instant::now(), message.routing_key);
                self.unconfirmed.push_back(Unconfirmed {
                    confirm,
                    published_at: since,
                    routing_key,
                    confirmation: None,
                    reply,
                });
                Ok(())
            }
            Ok(Err(error)) => Err(format!("publishing failed: {error}")),
            Err(_) => Err("the socket takes nothing".to_owned()),
        }
    }

    /// Looks at every confirm in flight until a look finds nothing new.
    /// Ready as soon as anything was found.
    fn poll_confirms(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut any = false;
        loop {
            let mut new = false;
            for flying in self.unconfirmed.iter_mut().filter(|flying| flying.confirmation.is_none())
            {
                if let Poll::Ready(said) = Pin::new(&mut flying.confirm).poll(context) {
                    flying.confirmation = Some(said);
                    new = true;
                }
            }
            any |= new;
            if !new {
                return if any { Poll::Ready(()) } else { Poll::Pending };
            }
        }
    }

    /// Believes what was found, unless it shows that the channel or the
    /// topology is broken: then nobody in flight is told of a success.
    fn resolve_confirms(&mut self) -> Result<(), String> {
        for flying in &self.unconfirmed {
            match &flying.confirmation {
                None | Some(Ok(Confirmation::Ack(None) | Confirmation::Nack(None))) => {}
                Some(Ok(
                    Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)),
                )) => {
                    error!(
                        exchange = returned.exchange.as_str(),
                        routing_key = returned.routing_key.as_str(),
                        "RabbitMQ returned a message: exchanges or queues of ours are gone; \
                         declaring them again"
                    );
                    return Err(format!(
                        "no queue took a message for exchange {} and key {}",
                        returned.exchange, returned.routing_key
                    ));
                }
                Some(Ok(Confirmation::NotRequested)) => {
                    return Err("the channel does not confirm".to_owned());
                }
                Some(Err(error)) => return Err(format!("the channel broke: {error}")),
            }
        }
        // What is still in flight keeps its place and its order.
        for flying in std::mem::take(&mut self.unconfirmed) {
            let result = match flying.confirmation {
                Some(Ok(Confirmation::Ack(_))) => {
                    self.nacked_since.remove(&flying.routing_key);
                    Ok(Confirmed(()))
                }
                Some(_) => {
                    self.nacked_since.entry(flying.routing_key).or_insert_with(Instant::now);
                    Err(PublishError::Nacked)
                }
                None => {
                    self.unconfirmed.push_back(flying);
                    continue;
                }
            };
            // A caller that has given up hears nothing.
            drop(flying.reply.send(result));
        }
        let given_up = |since: &Instant| since.elapsed() > self.max_nack_duration;
        match self.nacked_since.iter().find(|(_, since)| given_up(since)) {
            Some((key, _)) => {
                Err(format!("every message for {key} is refused; another channel may not be"))
            }
            None => Ok(()),
        }
    }
}
