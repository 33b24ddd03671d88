//! Messages for a queue, prepared before anything is measured.

use std::collections::HashSet;

use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{baseline::database, environment::BenchEnvironment, payload::Payload};
use crate::{
    broker::{OutgoingMessage, Publisher},
    domain::{Envelope, MappedEvent},
    tools::send::{
        generate::{Run, Webhook},
        plan::{Counts, Share},
        predict,
        scenario::{Selection, SendScenario},
    },
    worker::message::Message,
};

/// The limit of a backlog's bodies in memory.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Unconfirmed publishes while a backlog is published.
const MAX_UNCONFIRMED: usize = 512;

/// The composition of a backlog.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mix {
    /// The share that repeats an earlier event, byte for byte.
    pub(crate) duplicates: Share,
    /// The share with an older version after the newer one.
    pub(crate) stale: Share,
    /// The share that is authentic and cannot be applied.
    pub(crate) poison: Share,
}

/// Messages of one source, in publish order.
pub(crate) struct Backlog {
    pub(super) payload: Payload,
    pub(super) messages: Vec<BacklogMessage>,
}

#[derive(Clone)]
pub(crate) struct BacklogMessage {
    /// As the receiver publishes it.
    pub(super) envelope: Envelope,
    /// What it changes; `None` if it cannot be applied.
    pub(super) mapped: Option<MappedEvent>,
}

/// Limits a number of messages of this size to the memory limit.
pub(super) fn affordable(wanted: u32, payload: Payload) -> u32 {
    let limit = MAX_BYTES / payload.bytes();
    wanted.min(u32::try_from(limit).unwrap_or(u32::MAX))
}

/// Generated webhooks of a payload, each of a different event except as the
/// mix says.
pub(super) fn scenario(
    environment: &BenchEnvironment,
    payload: Payload,
    count: u32,
    mix: Mix,
) -> anyhow::Result<SendScenario> {
    let name = payload.source_name()?;
    let counts = Counts::split(count, mix.duplicates, mix.stale, mix.poison, 0)?;
    // The time in the id makes the documents of every call new.
    let run = Run { id: Run::new_id(OffsetDateTime::now_utc(), rand::random()), seed: 1 };
    let source = environment.source(&name)?;
    Ok(SendScenario::generated(source, &name, &Selection::default(), &run, counts)?)
}

impl Backlog {
    /// Generates a backlog.
    pub(super) fn generate(
        environment: &BenchEnvironment,
        payload: Payload,
        count: u32,
        mix: Mix,
    ) -> anyhow::Result<Self> {
        let scenario = scenario(environment, payload, affordable(count, payload), mix)?;
        let source = environment.source(&scenario.source)?;
        let received_at = OffsetDateTime::now_utc();
        let message = |step| {
            let webhook: Webhook = scenario.webhook(step);
            let body = payload.pad(&webhook.body, step.event);
            let webhook = Webhook { body, ..webhook };
            let prediction = predict::predict(source, &scenario.source, &scenario.tenant, &webhook)
                .map_err(|error| anyhow::anyhow!("a generated webhook is rejected: {error}"))?;
            let receipt_id = Uuid::now_v7();
            let envelope = Envelope { receipt_id, received_at, ..prediction.envelope };
            Ok(BacklogMessage { envelope, mapped: prediction.mapped.ok() })
        };
        let messages = scenario.plan.steps().map(message).collect::<anyhow::Result<_>>()?;
        Ok(Self { payload, messages })
    }

    /// The same events with new receipt ids: duplicates of an applied backlog.
    #[must_use]
    pub(super) fn redelivered(&self) -> Self {
        let redelivered = |message: &BacklogMessage| {
            let envelope = Envelope { receipt_id: Uuid::now_v7(), ..message.envelope.clone() };
            BacklogMessage { envelope, mapped: message.mapped.clone() }
        };
        let messages = self.messages.iter().map(redelivered).collect();
        Self { payload: self.payload, messages }
    }

    /// Its first messages.
    #[must_use]
    pub(super) fn first(&self, count: usize) -> Self {
        let count = count.max(1).min(self.messages.len());
        Self { payload: self.payload, messages: self.messages[..count].to_vec() }
    }

    /// The messages that can be applied.
    pub(super) fn applicable(&self) -> impl DoubleEndedIterator<Item = &BacklogMessage> {
        self.messages.iter().filter(|message| message.mapped.is_some())
    }

    /// The number of different events among them.
    pub(super) fn distinct_events(&self) -> usize {
        let keys: HashSet<&str> =
            self.applicable().map(|message| message.envelope.key.as_str()).collect();
        keys.len()
    }

    /// The applicable messages as the worker's transaction takes them.
    pub(super) fn items(&self) -> Vec<Message> {
        let item = |message: &BacklogMessage| {
            Some(Message::from_envelope(message.envelope.clone(), message.mapped.clone()?))
        };
        self.messages.iter().filter_map(item).collect()
    }

    /// Publishes the backlog and waits until all of it is in the queue.
    pub(super) async fn publish(
        &self,
        environment: &BenchEnvironment,
        publisher: &Publisher,
    ) -> anyhow::Result<()> {
        let mut confirms = stream::iter(&self.messages)
            .map(|message| {
                publisher
                    .publish(OutgoingMessage::inbound(&environment.topology, &message.envelope))
            })
            .buffered(MAX_UNCONFIRMED);
        while let Some(confirmed) = confirms.next().await {
            let _confirmed = confirmed?;
        }
        let queue = environment.topology.inbound_queue(&self.payload.source_name()?);
        environment.broker.wait_for(&queue, self.messages.len()).await?;
        database::checkpoint(&environment.store).await;
        Ok(())
    }
}
