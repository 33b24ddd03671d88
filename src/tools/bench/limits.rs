//! `baseline`: the raw limits of these servers, with the 2 kB payload.

use super::{
    Settings,
    backlog::{Backlog, Mix},
    baseline::{broker::Broker, consume, publish},
    drain,
    load::{self, Target},
    measure::per_second,
    payload::Payload,
    progress::Progress,
    receive::{self, Serving},
    report::{Limits, settled},
    stage::Stage,
};

/// Runs the scenario.
///
/// # Errors
/// A server that fails.
pub async fn run(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<Limits> {
    let publishing = stage.publishing().await?;
    let backlog = Backlog::make(stage, Payload::Generic, settings.messages, settings.mix)?;
    let new = Backlog::make(stage, Payload::Generic, settings.messages, Mix::default())?;
    let broker = Broker::open(&stage.config.broker.url).await?;
    let serving = Serving::bare(stage, &broker).await?;
    let target = Target {
        address: serving.address,
        requests: load::prepare(stage, Payload::Generic, receive::PREPARED)?.into(),
        connections: settings.connections,
    };
    let queue = stage.topology.inbound_queue(&Payload::Generic.source()?);
    let count = new.messages.len();
    let mut runs = Vec::new();
    for nth in 0..settings.runs {
        progress.step(&format!("baseline, run {}", nth + 1));
        stage.clear().await?;
        let publish_per_second = per_second(count, publish::run(stage, &new).await?);
        stage.broker.wait_for(&queue, count).await?;
        let consume_per_second = per_second(count, consume::run(stage, &new).await?);
        let answered = receive::maximum(stage, settings, &target).await?;
        runs.push(Limits {
            publish_per_second,
            http_publish_per_second: per_second(answered.len(), settings.length),
            consume_per_second,
            set_insert_per_second: drain::from_memory(stage, &backlog).await?,
            one_by_one_per_second: drain::by_hand(stage, &publishing, &backlog).await?,
        });
    }
    stage.clear().await?;
    broker.close().await;
    let of = |limit: fn(&Limits) -> f64| settled(runs.iter().map(limit), 0);
    Ok(Limits {
        publish_per_second: of(|run| run.publish_per_second),
        http_publish_per_second: of(|run| run.http_publish_per_second),
        consume_per_second: of(|run| run.consume_per_second),
        set_insert_per_second: of(|run| run.set_insert_per_second),
        one_by_one_per_second: of(|run| run.one_by_one_per_second),
    })
}
