//! What commands share that change something: who does it, and a publisher.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    broker::{Publisher, Topology},
    config::Config,
    observability::metrics::Metrics,
};

/// How long a connection to the broker may take to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Who acts: as told, else the user of this session.
pub(super) fn actor(told: Option<&String>) -> String {
    let user = || ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    told.cloned()
        .or_else(user)
        .filter(|name| !name.trim().is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// A publisher that is connected, until its guard is dropped.
pub(super) async fn connect_publisher(
    config: &Config,
) -> anyhow::Result<(Publisher, Arc<Topology>, DropGuard)> {
    let topology = Arc::new(Topology::publish_only(&config.broker.prefix));
    let stop = CancellationToken::new();
    let publisher =
        Publisher::start(&config.broker, Arc::clone(&topology), Metrics::new()?, stop.clone());
    if tokio::time::timeout(CONNECT_TIMEOUT, publisher.wait_until_ready()).await.is_err() {
        let trouble = publisher.degraded_reason().unwrap_or_default();
        stop.cancel();
        bail!("nothing was sent: {trouble}");
    }
    Ok((publisher, topology, stop.drop_guard()))
}
