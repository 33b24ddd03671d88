//! `end-to-end`: the time from when a webhook is due until its rows are
//! visible in the database, at a constant arrival rate, all payloads
//! alternately.

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    BenchOptions,
    commit_probe::{self, Probe},
    environment::BenchEnvironment,
    load::{self, Response},
    measure::Percentiles,
    process::ServeProcess,
    report::{Measured, milliseconds},
    schedule::{Schedule, arrivals},
};
use crate::app::Roles;

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    environment.clear().await?;
    let serve = ServeProcess::start(environment, &options.program, Roles::ALL).await?;
    serve.wait_until_ready().await?;
    let mut runs = Vec::new();
    for run in 1..=options.runs {
        environment.progress(&format!("end to end, {}/s, run {run}", options.rate));
        runs.push(measure(environment, options, &serve).await?);
    }
    serve.stop().await?;
    environment.clear().await?;
    let times = Percentiles::median(&runs);
    let mut figures = serde_json::to_value(times)?;
    figures["rate"] = json!(options.rate);
    let row = [
        "end to end, all payloads, from due to committed".to_owned(),
        options.rate.to_string(),
        milliseconds(times.p50_ms),
        milliseconds(times.p99_ms),
        String::new(),
    ];
    Ok(Measured { figures, rows: vec![row] })
}

async fn measure(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    serve: &ServeProcess,
) -> anyhow::Result<Percentiles> {
    let total = arrivals(options.rate, options.load_duration);
    let requests = load::prepare_mixed(environment, total)?;
    let (responses, mut received) = mpsc::unbounded_channel::<Response>();
    let (probes, requested) = mpsc::unbounded_channel();
    let (commits, mut committed) = mpsc::unbounded_channel();
    let probing = tokio::spawn(commit_probe::run(environment.store.clone(), requested, commits));
    let forwarding = async {
        while let Some(response) = received.recv().await {
            load::ensure_success(response.status)?;
            let receipt_id = response.receipt_id.context("a response has no receipt id")?;
            probes.send(Probe { receipt_id, due: response.due })?;
        }
        drop(probes);
        anyhow::Ok(())
    };
    let address = serve.receiver.context("serve has no receiver")?;
    let schedule = Schedule::starting_now(options.rate, options.load_duration);
    let request = move |number: usize| Ok(requests[number].clone());
    let sending = load::open_loop(address, options.connections, schedule, request, responses);
    tokio::try_join!(sending, forwarding)?;
    probing.await??;
    let mut times = Vec::with_capacity(total);
    while let Some(time) = committed.recv().await {
        ensure!(time < commit_probe::TIMEOUT, "an accepted message was not committed in time");
        times.push(time);
    }
    Ok(Percentiles::of(times))
}
