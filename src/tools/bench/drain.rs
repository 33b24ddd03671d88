//! `drain`: how fast a backlog that lies in its queue is applied, from the
//! first subscription to the last commit.
//!
//! Against two baselines, in turns: the consumer that people write by hand,
//! with a quarter of the messages because it takes so much longer, and the
//! same rows inserted from memory. Every drain begins with empty tables.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    backlog::{Backlog, Mix},
    baseline::{database, one_by_one, set_insert},
    measure::{per_second, ratio},
    payload::Payload,
    progress::Progress,
    report::{Drain, Drained, settled},
    stage::{Publishing, Stage},
};
use crate::{
    broker::BrokerConnection,
    domain::{Outcome, SourceName},
    observability::metrics::Metrics,
    worker::{WorkerContext, source_consumer::SourceConsumer},
};

/// How long a drain may take before something is wrong.
const LONGEST: Duration = Duration::from_mins(10);

/// One run's figures of one payload.
struct Round {
    ours: f64,
    one_by_one: f64,
    set_insert: f64,
}

/// Runs the scenario.
///
/// # Errors
/// A server that fails, or a message that is not accounted for.
pub async fn run(stage: &Stage, settings: &Settings, progress: &Progress) -> anyhow::Result<Drain> {
    let publishing = stage.publishing().await?;
    let mut payloads = BTreeMap::new();
    for payload in Payload::ALL {
        let backlog = Backlog::make(stage, payload, settings.messages, settings.mix)?;
        let mut rounds = Vec::new();
        for nth in 0..settings.runs {
            progress.step(&format!("drain, {}, run {}", payload.title(), nth + 1));
            rounds.push(round(stage, &publishing, &backlog, nth % 2 == 0).await?);
        }
        let of = |figure: fn(&Round) -> f64, decimals| settled(rounds.iter().map(figure), decimals);
        payloads.insert(
            payload.key(),
            Drained {
                per_second: of(|round| round.ours, 0),
                ratio_to_one_by_one: of(|round| ratio(round.ours, round.one_by_one), 3),
                ratio_to_bare_set_insert: of(|round| ratio(round.ours, round.set_insert), 3),
                one_by_one_per_second: of(|round| round.one_by_one, 0),
                bare_set_insert_per_second: of(|round| round.set_insert, 0),
            },
        );
    }
    let headline = payloads.get(Payload::Generic.key()).copied().unwrap_or_default();
    let (duplicates, poison) = extremes(stage, settings, &publishing, progress).await?;
    Ok(Drain {
        headline,
        payloads,
        ratio_of_duplicates_to_new: settled(duplicates, 3),
        ratio_with_poison: settled(poison, 3),
    })
}

async fn round(
    stage: &Stage,
    publishing: &Publishing,
    backlog: &Backlog,
    ours_first: bool,
) -> anyhow::Result<Round> {
    let mut ours = None;
    if ours_first {
        ours = Some(fresh(stage, publishing, backlog).await?);
    }
    let one_by_one = by_hand(stage, publishing, backlog).await?;
    let set_insert = from_memory(stage, backlog).await?;
    let ours = match ours {
        Some(ours) => ours,
        None => fresh(stage, publishing, backlog).await?,
    };
    stage.clear().await?;
    Ok(Round { ours, one_by_one, set_insert })
}

/// A quarter of a backlog by the consumer that people write by hand; messages
/// a second.
///
/// # Errors
/// A server that fails.
pub async fn by_hand(
    stage: &Stage,
    publishing: &Publishing,
    backlog: &Backlog,
) -> anyhow::Result<f64> {
    let quarter = backlog.first(backlog.messages.len() / 4);
    stage.clear().await?;
    lay(stage, publishing, &quarter).await?;
    let took = one_by_one::run(stage, &quarter).await?;
    everything_is_on_record(stage, &quarter).await?;
    Ok(per_second(quarter.messages.len(), took))
}

/// A backlog's rows from memory; messages a second.
///
/// # Errors
/// The database fails.
pub async fn from_memory(stage: &Stage, backlog: &Backlog) -> anyhow::Result<f64> {
    stage.clear().await?;
    let took = set_insert::run(stage, backlog).await?;
    everything_is_on_record(stage, backlog).await?;
    Ok(per_second(backlog.applicable(), took))
}

/// Pure duplicates against new messages, and 1 % of poison against none, in
/// each run.
async fn extremes(
    stage: &Stage,
    settings: &Settings,
    publishing: &Publishing,
    progress: &Progress,
) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let payload = Payload::Generic;
    let new = Backlog::make(stage, payload, settings.messages, Mix::default())?;
    let one_percent = Mix { poison: "1%".parse()?, ..Mix::default() };
    let poisoned = Backlog::make(stage, payload, settings.messages, one_percent)?;
    let (mut duplicates, mut poison) = (Vec::new(), Vec::new());
    for nth in 0..settings.runs {
        progress.step(&format!("drain, nothing but duplicates, some poison, run {}", nth + 1));
        let clean = fresh(stage, publishing, &new).await?;
        // On top of what was just applied.
        let again = new.again();
        lay(stage, publishing, &again).await?;
        duplicates.push(ratio(ours(stage, publishing, &again).await?, clean));
        poison.push(ratio(fresh(stage, publishing, &poisoned).await?, clean));
    }
    stage.clear().await?;
    Ok((duplicates, poison))
}

/// A backlog by the product, into empty tables; messages a second.
async fn fresh(stage: &Stage, publishing: &Publishing, backlog: &Backlog) -> anyhow::Result<f64> {
    stage.clear().await?;
    lay(stage, publishing, backlog).await?;
    let rate = ours(stage, publishing, backlog).await?;
    everything_is_on_record(stage, backlog).await?;
    Ok(rate)
}

/// Lays a backlog into its queue; when this comes back, all of it waits there.
///
/// # Errors
/// What the broker says.
pub async fn lay(stage: &Stage, publishing: &Publishing, backlog: &Backlog) -> anyhow::Result<()> {
    backlog.lay(stage, &publishing.publisher).await?;
    let queue = stage.topology.inbound_queue(&backlog.payload.source()?);
    stage.broker.wait_for(&queue, backlog.messages.len()).await?;
    database::settle(&stage.store).await;
    Ok(())
}

/// The consumers that the worker has for a source; messages a second until the
/// last commit.
async fn ours(stage: &Stage, publishing: &Publishing, backlog: &Backlog) -> anyhow::Result<f64> {
    let tools = stage.tools(publishing)?;
    let source = backlog.payload.source()?;
    let link = BrokerConnection::open(&stage.config.broker.url, "tallyhook bench worker").await?;
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    // Connected beforehand, as a worker is that has been running.
    warm_up(&tools).await?;
    let before = processed(&tools.metrics, &source);
    let begun = Instant::now();
    for _ in 0..tools.settings.consumers_per_source {
        let lane = SourceConsumer::open(tools.clone(), source.clone(), &link).await?;
        tasks.spawn(lane.run(stop.clone()));
    }
    let expected = u64::try_from(backlog.applicable())?;
    let polling = async {
        while processed(&tools.metrics, &source) - before < expected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Instant::now()
    };
    let last = tokio::select! {
        last = tokio::time::timeout(LONGEST, polling) => last.context("the drain got stuck")?,
        Some(ended) = tasks.join_next() => {
            ended??;
            anyhow::bail!("a lane ended by itself");
        }
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    link.close().await;
    tools.store.close().await;
    Ok(per_second(backlog.messages.len(), last - begun))
}

/// The messages of a source with a final outcome but `dead`, as the worker's
/// metric counts them.
fn processed(metrics: &Metrics, source: &SourceName) -> u64 {
    let outcomes = [Outcome::Applied, Outcome::Duplicate, Outcome::Stale, Outcome::Ignored];
    let count = |outcome: Outcome| {
        metrics.messages.with_label_values(&[source.as_str(), outcome.as_str()]).get()
    };
    outcomes.into_iter().map(count).sum()
}

async fn warm_up(tools: &WorkerContext) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for _ in 0..tools.settings.consumers_per_source {
        held.push(tools.store.connection().await?);
    }
    Ok(())
}

/// Figures of work that was not done are worth nothing.
async fn everything_is_on_record(stage: &Stage, backlog: &Backlog) -> anyhow::Result<()> {
    let found = usize::try_from(database::receipts(&stage.store).await?)?;
    let expected = backlog.applicable()..=backlog.messages.len();
    ensure!(
        expected.contains(&found),
        "{found} of {} messages are on record: this is a bug of tallyhook or of its bench",
        backlog.applicable()
    );
    Ok(())
}
