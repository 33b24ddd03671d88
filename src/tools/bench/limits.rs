//! `baseline`: the limits of the servers themselves, with the 2 kB payload.

use serde_json::json;

use super::{
    BenchOptions,
    backlog::Backlog,
    baseline::{broker::Broker, publish},
    drain,
    environment::BenchEnvironment,
    load::{self, Target},
    measure::{per_second, rounded_median},
    payload::Payload,
    receive::{self, HttpServer},
    report::{Measured, rate, row},
};

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    let publisher = environment.start_publisher().await?;
    let backlog = Backlog::generate(environment, Payload::Generic, options.messages, options.mix)?;
    let broker = Broker::open(&environment.config.broker.url).await?;
    let server = HttpServer::bare(environment, &broker).await?;
    let target = Target {
        address: server.address,
        requests: load::prepare(environment, Payload::Generic, receive::PREPARED)?.into(),
        connections: options.connections,
    };
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        environment.progress(&format!("baseline, run {run}"));
        environment.clear().await?;
        let time = publish::run(environment, &backlog).await?;
        environment.purge_queues().await?;
        let responses = receive::maximum(environment, options, &target).await?;
        runs.push([
            per_second(backlog.messages.len(), time),
            per_second(responses.len(), options.load_duration),
            drain::set_insert(environment, &backlog).await?,
            drain::row_at_a_time(environment, &publisher, &backlog).await?,
        ]);
    }
    environment.clear().await?;
    broker.close().await;
    let [publish, http_publish, set_insert, row_at_a_time] =
        [0, 1, 2, 3].map(|limit| rounded_median(runs.iter().map(|run| run[limit]), 0));
    let limit = |(what, limit)| row(format!("limit: {what}, 2 kB"), rate(limit), String::new());
    let limits = [
        ("confirmed publish from memory", publish),
        ("confirmed publish behind HTTP", http_publish),
        ("set insert from memory", set_insert),
        ("one transaction a message", row_at_a_time),
    ];
    Ok(Measured {
        figures: json!({
            "publish_per_second": publish,
            "http_publish_per_second": http_publish,
            "set_insert_per_second": set_insert,
            "row_at_a_time_per_second": row_at_a_time,
        }),
        rows: limits.map(limit).into(),
    })
}
