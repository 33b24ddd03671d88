//! `memory`: what `tallyhook serve` keeps resident, receiver and worker in one
//! process: when nothing has come, and at the most while 28 kB bodies come as
//! fast as it takes them.
//!
//! A process of its own, so that nothing of the load generator is counted.

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
    task::JoinSet,
    time::timeout,
};

use super::{
    Settings,
    load::{self, Target},
    measure::round,
    payload::Payload,
    progress::Progress,
    report::Memory,
    stage::{SECRET, SOURCES, Stage},
};
use crate::config::Config;

/// How long it may take to serve.
const START: Duration = Duration::from_mins(1);
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
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.toml");
    std::fs::write(&file, SOURCES)?;
    let serving = Serving::start(stage, &settings.program, &file).await?;
    tokio::time::sleep(settings.length).await;
    let idle = serving.resident()?;
    let target = Target {
        address: serving.address,
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

/// A `tallyhook serve` of our own, killed when this is dropped.
pub struct Serving {
    child: Child,
    /// Where its receiver listens.
    pub address: SocketAddr,
    /// Its log is read, so that it can write.
    _log: JoinSet<()>,
}

impl Serving {
    /// Starts it with these sources, and waits until it takes webhooks.
    ///
    /// # Errors
    /// It does not.
    pub async fn start(stage: &Stage, program: &Path, file: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg("--config").arg(file).arg("serve").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // The user's settings are in `stage`, and nowhere else.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TALLYHOOK") {
                command.env_remove(name);
            }
        }
        command.envs(environment(&stage.config)).env(SECRET, &stage.secret).env_remove("RUST_LOG");
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let log = child.stderr.take().context("the log of serve cannot be read")?;
        let mut lines = BufReader::new(log).lines();
        let address = timeout(START, address_in(&mut lines))
            .await
            .context("serve did not say where it listens")??;
        let mut reading = JoinSet::new();
        reading.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let serving = Self { child, address, _log: reading };
        timeout(START, serving.ready()).await.context("serve did not get ready")?;
        Ok(serving)
    }

    /// Until its receiver takes something.
    async fn ready(&self) {
        crate::tls::install_crypto();
        let url = format!("http://{}/readyz", self.address);
        loop {
            if reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What it keeps resident, in KiB.
    ///
    /// # Errors
    /// It is gone, or the kernel is not Linux.
    pub fn resident(&self) -> anyhow::Result<u32> {
        let id = self.child.id().context("serve ended by itself")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))
            .context("memory is read from /proc, which is Linux's")?;
        resident_in(&status).context("the kernel does not tell the resident memory")
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// It does not.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let terminate = nix::sys::signal::Signal::SIGTERM;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), terminate)?;
        }
        timeout(START, self.child.wait()).await.context("serve did not stop")??;
        Ok(())
    }
}

/// The settings under which it serves: ours, and the user's sizes.
fn environment(config: &Config) -> Vec<(&'static str, String)> {
    let Config { receiver, broker, database, worker, .. } = config;
    vec![
        ("TALLYHOOK__RECEIVER__LISTEN", "127.0.0.1:0".to_owned()),
        ("TALLYHOOK__OPERATIONS__LISTEN", "127.0.0.1:0".to_owned()),
        (
            "TALLYHOOK__RECEIVER__MAX_CONCURRENT_REQUESTS",
            receiver.max_concurrent_requests.to_string(),
        ),
        ("TALLYHOOK__BROKER__URL", broker.url.clone()),
        ("TALLYHOOK__BROKER__PREFIX", broker.prefix.clone()),
        ("TALLYHOOK__BROKER__PUBLISH_CHANNELS", broker.publish_channels.to_string()),
        ("TALLYHOOK__BROKER__PUBLISH_WINDOW", broker.publish_window.to_string()),
        ("TALLYHOOK__BROKER__DELIVERY_LIMIT", broker.delivery_limit.to_string()),
        ("TALLYHOOK__DATABASE__URL", database.url.clone()),
        ("TALLYHOOK__DATABASE__CONNECTIONS", database.connections.to_string()),
        ("TALLYHOOK__WORKER__BATCH_SIZE", worker.batch_size.to_string()),
        ("TALLYHOOK__WORKER__BATCH_WAIT_MS", worker.batch_wait_ms.to_string()),
        ("TALLYHOOK__WORKER__CONSUMERS", worker.consumers.to_string()),
        ("TALLYHOOK__LOG__FILTER", "info".to_owned()),
        ("TALLYHOOK__LOG__FORMAT", "json".to_owned()),
    ]
}

/// Reads a log until it says where the receiver listens.
async fn address_in(lines: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<SocketAddr> {
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = receiver_in(&line) {
            return Ok(address);
        }
        last = line;
    }
    bail!("serve ended at once: {last}")
}

fn receiver_in(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    line.get("receiver")?.as_str()?.parse().ok()
}

fn resident_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// KiB as MiB, to a tenth.
pub fn mebibytes(kibibytes: u32) -> f64 {
    round(f64::from(kibibytes) / 1024.0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_the_log_are_read() {
        assert_eq!(resident_in("Name:\tx\nVmHWM:\t 99 kB\nVmRSS:\t   12345 kB\n"), Some(12_345));
        assert_eq!(resident_in("Name:\tx\n"), None);
        let line = r#"{"message":"serving","receiver":"127.0.0.1:4711","operations":"x"}"#;
        assert_eq!(receiver_in(line), "127.0.0.1:4711".parse().ok());
        assert_eq!(receiver_in("error: no"), None);
        assert_eq!(receiver_in(r#"{"message":"other"}"#), None);
    }
}
