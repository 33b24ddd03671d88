//! The rerouter: takes what found no queue, and sends it in again once its
//! source's queue exists, or to the dead if there is no such source.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Tools, Trouble,
    settle::{self, Doomed},
};
use crate::{
    broker::{Confirmed, Delivery, Link, Outgoing, Subscription},
    domain::{Failure, Reason, SourceName},
};

/// Between two messages that found no queue: a queue that is deleted again
/// and again must not make us run in circles.
const PAUSE: Duration = Duration::from_millis(20);

/// Reads the queue of the unrouted.
pub(super) struct Rerouter {
    tools: Tools,
    subscription: Subscription,
    link: Arc<Link>,
}

impl Rerouter {
    pub(super) async fn open(tools: Tools, link: Arc<Link>) -> Result<Self, Trouble> {
        let subscription = Subscription::open(&link, &tools.topology.unrouted(), 10).await?;
        Ok(Self { tools, subscription, link })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Trouble> {
        let result = self.work(&stop).await;
        self.subscription.close().await;
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        loop {
            let delivery = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                delivery = self.subscription.next() => delivery?,
            };
            let tag = delivery.tag;
            self.reroute(delivery).await?;
            self.subscription.ack_through(tag).await?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn reroute(&self, delivery: Delivery) -> Result<(), Trouble> {
        let parcel = delivery.parcel;
        let source = parcel.routing_key.parse::<SourceName>().ok();
        let known = source.is_some_and(|source| self.tools.topology.sources().contains(&source));
        if known {
            // Whatever was deleted or unbound is there before it is sent.
            self.tools.topology.declare(&self.link).await?;
            let again = Outgoing::again(&self.tools.topology, &parcel);
            let _durable: Confirmed = self.tools.publisher.publish(again).await?;
            info!(source = parcel.routing_key, "an unrouted message was sent in again");
            return Ok(());
        }
        warn!(routing_key = parcel.routing_key, "a message for no source of ours");
        let failure = Failure {
            reason: Reason::UnknownSource,
            field: "routing_key".to_owned(),
            detail: "no source of this name is configured".to_owned(),
        };
        settle::bury(&self.tools, vec![Doomed { parcel, business_key: None, failure }]).await
    }
}
