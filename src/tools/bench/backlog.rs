//! Messages as they wait in a queue, made beforehand so that making them
//! costs nothing while something is measured.

use futures_util::{StreamExt as _, stream};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{payload::Payload, stage::Stage};
use crate::{
    broker::{OutgoingMessage, Publisher},
    domain::{Envelope, MappedEvent},
    tools::send::{
        campaign::{Campaign, Choice},
        generate::{Run, Webhook},
        plan::{Counts, Share},
        rehearse,
    },
    worker::message::Message,
};

/// The most bytes of bodies that one backlog holds in memory.
const MOST_BYTES: usize = 256 * 1024 * 1024;
/// Publishes under way at once while a backlog is laid.
const UNDER_WAY: usize = 512;

/// What a backlog is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix {
    /// The share that repeats an earlier event, byte for byte.
    pub duplicates: Share,
    /// The share that tells an older version after the newer one.
    pub stale: Share,
    /// The share that is authentic and cannot be applied.
    pub poison: Share,
}

/// Messages of one source.
pub struct Backlog {
    /// Their shape and size.
    pub payload: Payload,
    /// They, in their order.
    pub messages: Vec<BacklogMessage>,
}

/// One message.
#[derive(Clone)]
pub struct BacklogMessage {
    /// As the receiver publishes it.
    pub envelope: Envelope,
    /// What it changes; `None` if it cannot be applied.
    pub mapped: Option<MappedEvent>,
}

/// How many messages of this size fit into memory, of those that were asked for.
pub fn affordable(asked: u32, payload: Payload) -> u32 {
    let most = MOST_BYTES / payload.bytes();
    asked.min(u32::try_from(most).unwrap_or(u32::MAX))
}

/// Generated webhooks of a payload's shape, each of another event as far as
/// the mix lets it.
///
/// # Errors
/// Shares that leave nothing.
pub fn campaign(stage: &Stage, payload: Payload, count: u32, mix: Mix) -> anyhow::Result<Campaign> {
    let source = payload.source()?;
    let counts = Counts::split(count, mix.duplicates, mix.stale, mix.poison, 0)?;
    // The time in the id makes documents new each time it is asked.
    let run = Run { id: Run::new_id(OffsetDateTime::now_utc(), rand::random()), seed: 1 };
    let adapter = stage.adapter(&source)?;
    Ok(Campaign::generated(adapter, &source, &Choice::default(), &run, counts)?)
}

impl Backlog {
    /// Makes a backlog.
    ///
    /// # Errors
    /// Shares that leave nothing.
    pub fn make(stage: &Stage, payload: Payload, count: u32, mix: Mix) -> anyhow::Result<Self> {
        let campaign = campaign(stage, payload, affordable(count, payload), mix)?;
        let adapter = stage.adapter(&campaign.source)?;
        let received_at = OffsetDateTime::now_utc();
        let message = |step| {
            let made: Webhook = campaign.webhook(step);
            let body = payload.pad(&made.body, step.event);
            let webhook = Webhook { body, ..made };
            let told = rehearse::rehearse(adapter, &campaign.source, &campaign.tenant, &webhook)
                .map_err(|error| anyhow::anyhow!("a generated webhook is refused: {error}"))?;
            let receipt_id = Uuid::now_v7();
            let envelope = Envelope { receipt_id, received_at, ..told.envelope };
            Ok(BacklogMessage { envelope, mapped: told.mapped.ok() })
        };
        let messages = campaign.plan.steps().map(message).collect::<anyhow::Result<_>>()?;
        Ok(Self { payload, messages })
    }

    /// The same events once more: each a duplicate of what was applied.
    #[must_use]
    pub fn again(&self) -> Self {
        let again = |message: &BacklogMessage| {
            let envelope = Envelope { receipt_id: Uuid::now_v7(), ..message.envelope.clone() };
            BacklogMessage { envelope, mapped: message.mapped.clone() }
        };
        Self { payload: self.payload, messages: self.messages.iter().map(again).collect() }
    }

    /// Its first messages only.
    #[must_use]
    pub fn first(&self, count: usize) -> Self {
        let count = count.clamp(1, self.messages.len().max(1)).min(self.messages.len());
        Self { payload: self.payload, messages: self.messages[..count].to_vec() }
    }

    /// How many of them can be applied.
    pub fn applicable(&self) -> usize {
        self.messages.iter().filter(|message| message.mapped.is_some()).count()
    }

    /// What the worker makes of those that can be applied.
    pub fn items(&self) -> Vec<Message> {
        let item = |message: &BacklogMessage| {
            Some(Message::from_envelope(message.envelope.clone(), message.mapped.clone()?))
        };
        self.messages.iter().filter_map(item).collect()
    }

    /// Lays it into its source's queue: when this comes back, the broker has
    /// all of it.
    ///
    /// # Errors
    /// What the broker says.
    pub async fn lay(&self, stage: &Stage, publisher: &Publisher) -> anyhow::Result<()> {
        let mut confirms = stream::iter(&self.messages)
            .map(|message| {
                publisher.publish(OutgoingMessage::inbound(&stage.topology, &message.envelope))
            })
            .buffered(UNDER_WAY);
        while let Some(confirmed) = confirms.next().await {
            let _durable = confirmed?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_limits_large_bodies_only() {
        assert_eq!(affordable(20_000, Payload::Generic), 20_000);
        assert_eq!(affordable(1_000_000, Payload::Shopify), 9_586);
    }
}
