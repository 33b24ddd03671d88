//! One channel in confirm mode and its unconfirmed messages.
//!
//! A returned (unroutable) message is attached to whichever confirm the client
//! processes next, at the latest its own. So a confirm without a return proves
//! nothing by itself. But if the confirm of a returned message carries no
//! return, a confirm that was processed *before* it does, and that one can be
//! seen. So the channel polls all unconfirmed messages until a pass finds no
//! new confirm, and only then reports what it found. One return fails all that
//! is unconfirmed on the channel: the inbound exchange has an alternate
//! exchange, so a return means that exchanges or queues were deleted.

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

/// A channel without a confirm for this long, on a connection that is not
/// blocked, is given up.
const CONFIRM_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long writing a frame to the socket may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// A channel in confirm mode and its unconfirmed messages.
pub(super) struct ConfirmChannel {
    channel: Channel,
    status: ConnectionStatus,
    max_unconfirmed: usize,
    unconfirmed: VecDeque<Unconfirmed>,
    max_nack_duration: Duration,
    /// Routing keys whose every message was nacked, and since when.
    nacked_since: HashMap<String, Instant>,
}

/// A published message without a reported confirm.
struct Unconfirmed {
    confirm: lapin::PublisherConfirm,
    published_at: Instant,
    routing_key: String,
    /// The confirm, once it came and until it is reported.
    confirmation: Option<Result<Confirmation, lapin::Error>>,
    reply: oneshot::Sender<Result<Confirmed, PublishError>>,
}

impl ConfirmChannel {
    /// A channel in confirm mode.
    ///
    /// A quorum queue with a length limit notifies each channel when it is full
    /// and when it has room again, but not if the limit was removed meanwhile
    /// (seen with RabbitMQ 3.10). So a channel whose messages are nacked for
    /// `max_nack_duration` is given up: a new channel may work.
    pub(super) fn new(
        channel: Channel,
        status: ConnectionStatus,
        max_unconfirmed: usize,
        max_nack_duration: Duration,
    ) -> Self {
        let (unconfirmed, nacked_since) = (VecDeque::new(), HashMap::new());
        Self { channel, status, max_unconfirmed, unconfirmed, max_nack_duration, nacked_since }
    }

    /// Publishes requests until the channel fails. Returns why it ended. A
    /// dropped reply means [`PublishError::Lost`] to its caller.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<PublishRequest>) -> String {
        let mut is_open = true;
        loop {
            if !is_open && self.unconfirmed.is_empty() {
                return "done".to_owned();
            }
            let has_room = is_open && self.has_room();
            let oldest = self.unconfirmed.front();
            let oldest = oldest.map_or_else(Instant::now, |message| message.published_at);
            let stalled_at = oldest + CONFIRM_STALL_TIMEOUT;
            tokio::select! {
                biased;
                () = poll_fn(|context| self.poll_confirms(context)), if !self.unconfirmed.is_empty() => {
                    if let Err(reason) = self.resolve_confirms() {
                        return reason;
                    }
                }
                request = requests.recv(), if has_room => {
                    let mut next = request;
                    is_open = next.is_some();
                    // Waiting requests are published before confirms are polled.
                    while let Some(request) = next {
                        if let Err(reason) = self.publish(request).await {
                            return reason;
                        }
                        next = if self.has_room() { requests.try_recv().ok() } else { None };
                    }
                }
                () = tokio::time::sleep_until(stalled_at.into()), if !self.unconfirmed.is_empty() => {
                    if !self.status.blocked() {
                        return "the broker stopped confirming".to_owned();
                    }
                    // A blocked connection gets no confirms; wait again.
                    let now = Instant::now();
                    for message in &mut self.unconfirmed {
                        message.published_at = now;
                    }
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.unconfirmed.len() < self.max_unconfirmed
    }

    async fn publish(&mut self, request: PublishRequest) -> Result<(), String> {
        let PublishRequest { message, reply } = request;
        if reply.is_closed() {
            // The caller timed out while the request waited.
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
        // Mandatory: otherwise an unroutable message is dropped and confirmed.
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = self.channel.basic_publish(
            exchange,
            routing_key,
            options,
            &message.body,
            message.properties,
        );
        match timeout(PUBLISH_TIMEOUT, publish).await {
            Ok(Ok(confirm)) => {
                self.unconfirmed.push_back(Unconfirmed {
                    confirm,
                    published_at: Instant::now(),
                    routing_key: message.routing_key,
                    confirmation: None,
                    reply,
                });
                Ok(())
            }
            Ok(Err(error)) => Err(format!("publishing failed: {error}")),
            Err(_) => Err("the socket does not take any data".to_owned()),
        }
    }

    /// Polls every unconfirmed message until a pass finds no new confirm.
    /// Ready if any pass found one.
    fn poll_confirms(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut has_found_any = false;
        loop {
            let mut has_found = false;
            for message in
                self.unconfirmed.iter_mut().filter(|message| message.confirmation.is_none())
            {
                if let Poll::Ready(confirmation) = Pin::new(&mut message.confirm).poll(context) {
                    message.confirmation = Some(confirmation);
                    has_found = true;
                }
            }
            has_found_any |= has_found;
            if !has_found {
                return if has_found_any { Poll::Ready(()) } else { Poll::Pending };
            }
        }
    }

    /// Reports the confirms to their callers, unless one shows that the channel
    /// or the topology is broken: then no caller gets a success.
    fn resolve_confirms(&mut self) -> Result<(), String> {
        for message in &self.unconfirmed {
            match &message.confirmation {
                None | Some(Ok(Confirmation::Ack(None) | Confirmation::Nack(None))) => {}
                Some(Ok(
                    Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)),
                )) => {
                    let (exchange, routing_key) =
                        (returned.exchange.as_str(), returned.routing_key.as_str());
                    error!(
                        exchange,
                        routing_key,
                        "RabbitMQ returned a message: exchanges or queues of ours are missing and \
                         are declared again"
                    );
                    return Err(format!(
                        "no queue took a message for exchange {exchange} and key {routing_key}"
                    ));
                }
                Some(Ok(Confirmation::NotRequested)) => {
                    return Err("publisher confirms are not enabled".to_owned());
                }
                Some(Err(error)) => return Err(format!("the channel failed: {error}")),
            }
        }
        // What has no confirm yet keeps its order.
        for message in std::mem::take(&mut self.unconfirmed) {
            let result = match message.confirmation {
                Some(Ok(Confirmation::Ack(_))) => {
                    self.nacked_since.remove(&message.routing_key);
                    Ok(Confirmed(()))
                }
                Some(_) => {
                    self.nacked_since.entry(message.routing_key).or_insert_with(Instant::now);
                    Err(PublishError::Nacked)
                }
                None => {
                    self.unconfirmed.push_back(message);
                    continue;
                }
            };
            // The caller may have timed out.
            drop(message.reply.send(result));
        }
        let is_expired = |since: &Instant| since.elapsed() > self.max_nack_duration;
        match self.nacked_since.iter().find(|(_, since)| is_expired(since)) {
            Some((key, _)) => {
                Err(format!("every message for {key} is nacked; another channel may work"))
            }
            None => Ok(()),
        }
    }
}
