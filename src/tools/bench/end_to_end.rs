//! `end-to-end`: from the moment a webhook is due until it stands in the
//! books, at a constant rate of arrivals, all payloads in turns.
//!
//! The clock stops when the worker's COMMIT comes back. `receipts.processed_at`
//! would not do: it is the beginning of the transaction.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Settings,
    load::{self, Target},
    measure::Percentiles,
    progress::Progress,
    receive::Serving,
    report::EndToEnd,
    schedule::Schedule,
    stage::Stage,
};
use crate::worker::{self, HealthRegistry};

/// How long the last message may take after the last arrival.
const LAST: Duration = Duration::from_mins(1);

/// Runs the scenario.
///
/// # Errors
/// A server that fails, or a message that is not committed.
pub async fn run(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<EndToEnd> {
    let mut runs = Vec::new();
    for nth in 0..settings.runs {
        progress.step(&format!("end to end, {}/s, run {}", settings.rate, nth + 1));
        stage.clear().await?;
        runs.push(round(stage, settings).await?);
    }
    stage.clear().await?;
    Ok(EndToEnd { rate: settings.rate.get(), times: Percentiles::median(&runs) })
}

async fn round(stage: &Stage, settings: &Settings) -> anyhow::Result<Percentiles> {
    let total = settings.arrivals(settings.rate);
    let requests = Arc::new(load::mixed(stage, total)?);
    let publishing = stage.publishing().await?;
    let serving = Serving::product(stage, &publishing).await?;
    let (committed, mut heard) = mpsc::unbounded_channel();
    let tools = stage.tools(&publishing, committed)?;
    let (pulse, stop) = (HealthRegistry::default(), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let mut working = JoinSet::new();
    let url = stage.config.broker.url.clone();
    working.spawn(worker::run(tools, url, pulse.clone(), stop.clone()));
    while pulse.degraded_reason().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let listening = tokio::spawn(async move {
        let mut commits: HashMap<Uuid, Instant> = HashMap::with_capacity(total);
        while commits.len() < total {
            let Some((at, receipts)) = heard.recv().await else { break };
            commits.extend(receipts.into_iter().map(|receipt| (receipt, at)));
        }
        commits
    });
    let target = Target { address: serving.address, requests, connections: settings.connections };
    let schedule = Schedule { begun: Instant::now(), rate: settings.rate, total };
    let samples = load::open(&target, schedule).await?;
    let commits = tokio::time::timeout(LAST, listening)
        .await
        .context("messages were accepted and not committed in time")??;
    stop.cancel();
    while working.join_next().await.is_some() {}

    let took = samples.iter().filter_map(|sample| {
        let at = commits.get(&sample.receipt?)?;
        Some(at.saturating_duration_since(sample.due))
    });
    let took: Vec<Duration> = took.collect();
    ensure!(
        took.len() == total,
        "{} of {total} accepted messages were committed: this is a bug of tallyhook or of its \
         bench",
        took.len()
    );
    Ok(Percentiles::of(took))
}
