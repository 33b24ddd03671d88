//! `tallyhook serve` as a child process, so that the bench's own work is not
//! measured with it.
//!
//! It runs under the watchdog: it ends with the bench, also after `kill -9`.
//! Ctrl-C reaches only the bench.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::environment::{BenchEnvironment, SECRET, SOURCES};
use crate::{
    app::Roles,
    config::Config,
    tools::dev::servers::watchdog::{Program, Supervised},
};

/// Time limit for starting, becoming ready and stopping, each.
const TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A running `tallyhook serve`; dropping it kills the process.
pub(super) struct ServeProcess {
    process: Supervised,
    log: PathBuf,
    /// The receiver's address, if it has that role.
    pub(super) receiver: Option<SocketAddr>,
    operations: SocketAddr,
    // Declared last: the folder goes after the process that writes to it.
    _folder: TempDir,
}

impl ServeProcess {
    /// Starts the program and waits until it logs its addresses. Servers,
    /// sources and secret are the environment's, batch sizes and limits the user's.
    pub(super) async fn start(
        environment: &BenchEnvironment,
        program: &Path,
        roles: Roles,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("bench.toml"), folder.path().join("log"));
        std::fs::write(&file, SOURCES)?;
        let process = Supervised::spawn(&Program {
            command: command(program, &file, roles),
            environment: variables(environment),
            dir: folder.path(),
            log: &log,
            account: None,
            ending: Signal::SIGKILL,
            remove_dir_on_death: Some(&folder.path().to_owned()),
        })
        .await?;
        // The port 0 is never served; the log has the addresses.
        let operations = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut serve = Self { process, log, receiver: None, operations, _folder: folder };
        (serve.receiver, serve.operations) = timeout(TIMEOUT, serve.addresses())
            .await
            .context("serve did not log its addresses in time")??;
        Ok(serve)
    }

    async fn addresses(&mut self) -> anyhow::Result<(Option<SocketAddr>, SocketAddr)> {
        loop {
            // Checked before the log is read: an ended process has written its last line.
            let running = self.ensure_running();
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(addresses) = log.lines().find_map(addresses_in) {
                return Ok(addresses);
            }
            running?;
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        crate::net::tls::install_crypto_provider();
        let url = format!("http://{}/readyz", self.receiver.unwrap_or(self.operations));
        let ready = async {
            while !reqwest::get(&url).await.is_ok_and(|response| response.status().is_success()) {
                sleep(POLL_INTERVAL).await;
            }
        };
        timeout(TIMEOUT, ready).await.context("serve did not become ready in time")
    }

    /// Fails with the last line of its log if it has ended.
    pub(super) fn ensure_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.process.ended()? {
            bail!("serve ended with {status}: {}", self.last_line());
        }
        Ok(())
    }

    fn last_line(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().next_back().unwrap_or("it logged nothing").to_owned()
    }

    /// Its resident memory, in KiB.
    pub(super) fn resident_kib(&self) -> anyhow::Result<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))
            .context("cannot read /proc/PID/status of serve: not Linux, or it has ended")?;
        resident_in(&status).context("/proc/PID/status has no VmRSS")
    }

    /// Stops it with SIGTERM, as a service manager would.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.ensure_running()?;
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(TIMEOUT).await?.context("serve did not stop")?;
        ensure!(status.success(), "serve ended with {status}: {}", self.last_line());
        Ok(())
    }
}

fn command(program: &Path, file: &Path, roles: Roles) -> Vec<OsString> {
    let mut command: Vec<OsString> =
        vec![program.into(), "--config".into(), file.into(), "serve".into()];
    let only = match roles {
        Roles { receiver: true, worker: false } => Some("receiver"),
        Roles { receiver: false, worker: true } => Some("worker"),
        _ => None,
    };
    command.extend(only.into_iter().flat_map(|role| ["--only".into(), role.into()]));
    command
}

/// The bench's own variables, with the environment's settings instead of the
/// user's `TALLYHOOK*` ones.
fn variables(environment: &BenchEnvironment) -> Vec<(OsString, OsString)> {
    let replaced = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("TALLYHOOK") || name == "RUST_LOG"
    };
    let inherited = std::env::vars_os().filter(|(name, _)| !replaced(name));
    let secret = (SECRET, environment.secret.clone());
    let settings = settings(&environment.config).into_iter().chain([secret]);
    inherited.chain(settings.map(|(name, value)| (name.into(), value.into()))).collect()
}

fn settings(config: &Config) -> Vec<(&'static str, String)> {
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
        ("TALLYHOOK__BROKER__MAX_UNCONFIRMED", broker.max_unconfirmed.to_string()),
        ("TALLYHOOK__BROKER__DELIVERY_LIMIT", broker.delivery_limit.to_string()),
        ("TALLYHOOK__DATABASE__URL", database.url.clone()),
        ("TALLYHOOK__DATABASE__MAX_CONNECTIONS", database.max_connections.to_string()),
        ("TALLYHOOK__WORKER__BATCH_SIZE", worker.batch_size.to_string()),
        ("TALLYHOOK__WORKER__BATCH_WAIT_MS", worker.batch_wait_ms.to_string()),
        ("TALLYHOOK__WORKER__CONSUMERS_PER_SOURCE", worker.consumers_per_source.to_string()),
        ("TALLYHOOK__LOG__FILTER", "info".to_owned()),
        ("TALLYHOOK__LOG__FORMAT", "json".to_owned()),
    ]
}

/// The addresses of the receiver, if there is one, and the operations server.
fn addresses_in(line: &str) -> Option<(Option<SocketAddr>, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |key: &str| line.get(key)?.as_str()?.parse().ok();
    Some((address("receiver"), address("operations")?))
}

fn resident_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
