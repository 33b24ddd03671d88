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

use super::{Confirmed, Job, PublishError};
use crate::broker::topology::short;

/// A confirm that takes longer than this, on a connection that is not
/// blocked, means that the channel is of no use any more.
const STUCK: Duration = Duration::from_secs(30);
/// How long handing a frame to the socket may take.
const HAND_OVER: Duration = Duration::from_secs(10);

/// One channel and what is in flight on it.
pub(super) struct Lane {
    channel: Channel,
    status: ConnectionStatus,
    window: usize,
    flying: VecDeque<Flying>,
    longest_refusal: Duration,
    /// Since when every message with this routing key has been refused.
    refused: HashMap<String, Instant>,
}

/// A message that was published and whose fate is not known yet.
struct Flying {
    confirm: lapin::PublisherConfirm,
    since: Instant,
    routing_key: String,
    /// What the broker said, once it did and until it is believed.
    said: Option<Result<Confirmation, lapin::Error>>,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl Lane {
    /// A lane on a channel in confirm mode.
    ///
    /// A quorum queue with a length limit tells a channel that it is full, and
    /// when there is room again; but not if the limit was taken away meanwhile
    /// (seen with RabbitMQ 3.10). A channel that is refused everything for
    /// `longest_refusal` is therefore given up: another one may not be.
    pub(super) fn new(
        channel: Channel,
        status: ConnectionStatus,
        window: usize,
        longest_refusal: Duration,
    ) -> Self {
        let (flying, refused) = (VecDeque::new(), HashMap::new());
        Self { channel, status, window, flying, longest_refusal, refused }
    }

    /// Publishes jobs until the channel is of no use any more; says why.
    /// Replies that are dropped tell their callers that the publish was lost.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) -> String {
        let mut open = true;
        loop {
            if !open && self.flying.is_empty() {
                return "done".to_owned();
            }
            let room = open && self.flying.len() < self.window;
            let oldest = self.flying.front().map_or_else(Instant::now, |first| first.since);
            tokio::select! {
                biased;
                () = poll_fn(|context| self.look(context)), if !self.flying.is_empty() => {
                    if let Err(why) = self.settle() {
                        return why;
                    }
                }
                job = jobs.recv(), if room => {
                    let mut next = job;
                    open = next.is_some();
                    // Whoever waits goes along before the confirms are looked at.
                    while let Some(job) = next {
                        if let Err(why) = self.send(job).await {
                            return why;
                        }
                        let room = self.flying.len() < self.window;
                        next = if room { jobs.try_recv().ok() } else { None };
                    }
                }
                () = tokio::time::sleep_until((oldest + STUCK).into()), if !self.flying.is_empty() => {
                    if !self.status.blocked() {
                        return "the broker stopped confirming".to_owned();
                    }
                    // Blocked publishers get no confirms; look again later.
                    let now = Instant::now();
                    for flying in &mut self.flying {
                        flying.since = now;
                    }
                }
            }
        }
    }

    async fn send(&mut self, job: Job) -> Result<(), String> {
        let Job { message, reply } = job;
        if reply.is_closed() {
            // The caller gave up while it waited for its turn.
            return Ok(());
        }
        let names = short(&message.exchange)
            .and_then(|exchange| Ok((exchange, short(&message.routing_key)?)));
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
            HAND_OVER,
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
                self.flying.push_back(Flying { confirm, since, routing_key, said: None, reply });
                Ok(())
            }
            Ok(Err(error)) => Err(format!("publishing failed: {error}")),
            Err(_) => Err("the socket takes nothing".to_owned()),
        }
    }

    /// Looks at every confirm in flight until a look finds nothing new.
    /// Ready as soon as anything was found.
    fn look(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut any = false;
        loop {
            let mut new = false;
            for flying in self.flying.iter_mut().filter(|flying| flying.said.is_none()) {
                if let Poll::Ready(said) = Pin::new(&mut flying.confirm).poll(context) {
                    flying.said = Some(said);
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
    fn settle(&mut self) -> Result<(), String> {
        for flying in &self.flying {
            match &flying.said {
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
        for flying in std::mem::take(&mut self.flying) {
            let result = match flying.said {
                Some(Ok(Confirmation::Ack(_))) => {
                    self.refused.remove(&flying.routing_key);
                    Ok(Confirmed(()))
                }
                Some(_) => {
                    self.refused.entry(flying.routing_key).or_insert_with(Instant::now);
                    Err(PublishError::Refused)
                }
                None => {
                    self.flying.push_back(flying);
                    continue;
                }
            };
            // A caller that has given up hears nothing.
            drop(flying.reply.send(result));
        }
        let given_up = |since: &Instant| since.elapsed() > self.longest_refusal;
        match self.refused.iter().find(|(_, since)| given_up(since)) {
            Some((key, _)) => {
                Err(format!("every message for {key} is refused; another channel may not be"))
            }
            None => Ok(()),
        }
    }
}
