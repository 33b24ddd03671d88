//! `memory`: what `tallyhook serve` keeps resident, receiver and worker in one
//! process: when nothing has come, and at the most while 28 kB bodies come as
//! fast as it takes them.
//!
//! A process of its own, so that nothing of the load generator is counted.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{
    Settings,
    load::{self, Target},
    measure::round,
    payload::Payload,
    process::Process,
    progress::Progress,
    report::Memory,
    stage::Stage,
};
use crate::app::Roles;

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Runs the scenario.
///
/// # Errors
/// The process does not serve, or a request is refused.
pub async fn run(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<Memory> {
    progress.step("memory, idle and with 28 kB bodies");
    stage.clear().await?;
    // Each another event: the worker shall have its work.
    let requests = load::prepare(stage, Payload::Shopify, settings.distinct_bodies())?;
    let serving = Process::start(stage, &settings.program, Roles::ALL).await?;
    serving.ready().await?;
    tokio::time::sleep(settings.length).await;
    let idle = serving.resident()?;
    let target = Target {
        address: serving.receiver.context("serve takes no webhooks")?,
        requests: Arc::new(requests),
        connections: settings.connections,
    };
    let mut most = idle;
    let load = load::closed(&target, settings.length * 2);
    tokio::pin!(load);
    loop {
        tokio::select! {
            done = &mut load => {
                done?;
                break;
            }
            () = tokio::time::sleep(LOOK) => most = most.max(serving.resident()?),
        }
    }
    serving.stop().await?;
    stage.clear().await?;
    Ok(Memory { idle_mib: mebibytes(idle), full_mib: mebibytes(most) })
}

/// KiB as MiB, to a tenth.
pub fn mebibytes(kibibytes: u32) -> f64 {
    round(f64::from(kibibytes) / 1024.0, 1)
}
