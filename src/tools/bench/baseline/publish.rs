//! The bare confirmed publish: from memory, as fast as confirms come.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::future::try_join_all;
use lapin::{BasicProperties, PublisherConfirm};

use super::broker::{Broker, mandatory, short};
use crate::tools::bench::{backlog::Backlog, stage::Stage};

/// Publishes a backlog over as many channels as the product has, each with as
/// many confirms under way; how long it took until the last one came.
///
/// # Errors
/// What the broker says.
pub async fn run(stage: &Stage, backlog: &Backlog) -> anyhow::Result<Duration> {
    let broker = Broker::open(&stage.config.broker.url).await?;
    let settings = &stage.config.broker;
    let begun = Instant::now();
    let lanes = (0..settings.publish_channels).map(|lane| {
        let (broker, window) = (&broker, settings.max_unconfirmed);
        async move {
            let channel = broker.confirming().await?;
            let mut flying: VecDeque<PublisherConfirm> = VecDeque::with_capacity(window);
            let ours = backlog.messages.iter().skip(lane).step_by(settings.publish_channels);
            for message in ours {
                if flying.len() >= window {
                    confirmed(flying.pop_front()).await?;
                }
                let envelope = &message.envelope;
                let (exchange, key) = (stage.topology.inbound_exchange(), envelope.source.as_str());
                let confirm = channel.basic_publish(
                    short(&exchange)?,
                    short(key)?,
                    mandatory(),
                    &envelope.body,
                    BasicProperties::default().with_delivery_mode(2),
                );
                flying.push_back(confirm.await?);
            }
            while !flying.is_empty() {
                confirmed(flying.pop_front()).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(lanes).await?;
    let took = begun.elapsed();
    broker.close().await;
    Ok(took)
}

async fn confirmed(confirm: Option<PublisherConfirm>) -> anyhow::Result<()> {
    if let Some(confirm) = confirm {
        let said = confirm.await?;
        ensure!(said.is_ack(), "the broker refused a message");
    }
    Ok(())
}
