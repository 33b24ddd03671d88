//! `end-to-end`: from the moment a webhook is due until it stands in the
//! books, at a constant rate of arrivals, all payloads in turns.
//!
//! The clock stops when another session sees the receipt, which is polled.
//! `receipts.processed_at` would not do: it is the beginning of the transaction.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use time::OffsetDateTime;
use tokio::task::JoinSet;
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
/// How often receipts are looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(3);

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
    let tools = stage.tools(&publishing)?;
    let (pulse, stop) = (HealthRegistry::default(), CancellationToken::new());
    let _guard = stop.clone().drop_guard();
    let mut working = JoinSet::new();
    let url = stage.config.broker.url.clone();
    working.spawn(worker::run(tools, url, pulse.clone(), stop.clone()));
    while pulse.degraded_reason().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let store = stage.store.clone();
    let polling = tokio::spawn(async move {
        let mut commits: HashMap<Uuid, Instant> = HashMap::with_capacity(total);
        while commits.len() < total {
            tokio::time::sleep(POLL_INTERVAL).await;
            // Receipts are UUIDs by time: older ones have been seen.
            let recent = Uuid::new_v7(uuid::Timestamp::from_unix(
                uuid::NoContext,
                u64::try_from(OffsetDateTime::now_utc().unix_timestamp() - 2)?,
                0,
            ));
            let from = if commits.len() + 1000 < total { recent } else { Uuid::nil() };
            let visible: Vec<Uuid> =
                sqlx::query_scalar("select receipt_id from receipts where receipt_id > $1")
                    .bind(from)
                    .fetch_all(&mut *store.connection().await?)
                    .await?;
            let now = Instant::now();
            for receipt_id in visible {
                commits.entry(receipt_id).or_insert(now);
            }
        }
        anyhow::Ok(commits)
    });
    let target = Target { address: serving.address, requests, connections: settings.connections };
    let schedule = Schedule { begun: Instant::now(), rate: settings.rate, total };
    let samples = load::open(&target, schedule).await?;
    let commits = tokio::time::timeout(LAST, polling)
        .await
        .context("messages were accepted and not committed in time")???;
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
