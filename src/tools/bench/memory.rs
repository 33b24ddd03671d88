//! `memory`: resident memory of `tallyhook serve` with both roles: idle, and
//! the maximum while 28 kB bodies arrive as fast as it accepts them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::{
    BenchOptions, backlog,
    environment::BenchEnvironment,
    load::{self, Target},
    measure::round,
    payload::Payload,
    process::ServeProcess,
    report::{Measured, row},
};
use crate::app::Roles;

const POLL_INTERVAL: Duration = Duration::from_millis(20);

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    environment.progress("memory, idle and with 28 kB bodies");
    environment.clear().await?;
    // Different events, so that the worker applies them.
    let count = backlog::affordable(options.messages, Payload::Shopify);
    let requests = load::prepare(environment, Payload::Shopify, count)?;
    let serve = ServeProcess::start(environment, &options.program, Roles::ALL).await?;
    serve.wait_until_ready().await?;
    tokio::time::sleep(options.load_duration).await;
    let idle = serve.resident_kib()?;
    let target = Target {
        address: serve.receiver.context("serve has no receiver")?,
        requests: Arc::new(requests),
        connections: options.connections,
    };
    let mut max = idle;
    let load = load::closed_loop(&target, options.load_duration * 2);
    tokio::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => {
                done?;
                break;
            }
            () = tokio::time::sleep(POLL_INTERVAL) => max = max.max(serve.resident_kib()?),
        }
    }
    serve.stop().await?;
    environment.clear().await?;
    let [idle, full] = [idle, max].map(mebibytes);
    let compared = format!("{idle} MiB idle, {full} MiB with 28 kB bodies");
    Ok(Measured {
        figures: json!({"idle_mib": idle, "full_mib": full}),
        rows: vec![row("memory of serve", String::new(), compared)],
    })
}

/// KiB as MiB with one decimal.
pub(super) fn mebibytes(kibibytes: u32) -> f64 {
    round(f64::from(kibibytes) / 1024.0, 1)
}
