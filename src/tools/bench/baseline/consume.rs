//! The bare consumer: takes messages and acknowledges them in lots, without
//! looking at them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use lapin::{
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};

use super::broker::{Broker, short};
use crate::tools::bench::{backlog::Backlog, stage::Stage};

/// Consumes a backlog that lies in its queue; how long it took.
///
/// # Errors
/// What the broker says.
pub async fn run(stage: &Stage, backlog: &Backlog) -> anyhow::Result<Duration> {
    let broker = Broker::open(&stage.config.broker.url).await?;
    let lot = stage.config.worker.batch_size;
    let channel = broker.channel().await?;
    let begun = Instant::now();
    let prefetch = u16::try_from(lot * 2).unwrap_or(u16::MAX);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
    let queue = stage.topology.inbound_queue(&backlog.payload.source()?);
    let mut deliveries = channel
        .basic_consume(
            short(&queue)?,
            short("")?,
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    for taken in 1..=backlog.messages.len() {
        let delivery = deliveries.next().await.context("the consumer ended")??;
        if taken % lot == 0 || taken == backlog.messages.len() {
            let options = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, options).await?;
        }
    }
    let took = begun.elapsed();
    broker.close().await;
    Ok(took)
}
