//! The bare confirmed publish from memory.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::ensure;
use futures_util::future::try_join_all;
use lapin::{BasicProperties, PublisherConfirm};

use super::broker::{Broker, mandatory, short};
use crate::tools::bench::{backlog::Backlog, environment::BenchEnvironment};

/// Publishes a backlog over as many channels as the product, with as many
/// unconfirmed messages each; returns the time until the last confirm.
pub(crate) async fn run(
    environment: &BenchEnvironment,
    backlog: &Backlog,
) -> anyhow::Result<Duration> {
    let broker = Broker::open(&environment.config.broker.url).await?;
    let settings = &environment.config.broker;
    let started = Instant::now();
    let channels = (0..settings.publish_channels).map(|index| {
        let (broker, window) = (&broker, settings.max_unconfirmed);
        async move {
            let channel = broker.confirming().await?;
            let mut unconfirmed: VecDeque<PublisherConfirm> = VecDeque::with_capacity(window);
            let messages = backlog.messages.iter().skip(index).step_by(settings.publish_channels);
            for message in messages {
                if unconfirmed.len() >= window {
                    wait_for_confirm(unconfirmed.pop_front()).await?;
                }
                let envelope = &message.envelope;
                let (exchange, key) =
                    (environment.topology.inbound_exchange(), envelope.source.as_str());
                let confirm = channel.basic_publish(
                    short(&exchange)?,
                    short(key)?,
                    mandatory(),
                    &envelope.body,
                    BasicProperties::default().with_delivery_mode(2),
                );
                unconfirmed.push_back(confirm.await?);
            }
            while !unconfirmed.is_empty() {
                wait_for_confirm(unconfirmed.pop_front()).await?;
            }
            anyhow::Ok(())
        }
    });
    try_join_all(channels).await?;
    let took = started.elapsed();
    broker.close().await;
    Ok(took)
}

async fn wait_for_confirm(confirm: Option<PublisherConfirm>) -> anyhow::Result<()> {
    if let Some(confirm) = confirm {
        let confirmation = confirm.await?;
        ensure!(confirmation.is_ack(), "the broker rejected a message");
    }
    Ok(())
}
