//! `tallyhook serve` as a process of its own on our stage, so that nothing of
//! the bench is taken for the program's.
//!
//! Beneath a watchdog: however the bench ends, `kill -9` included, so does the
//! process. Ctrl-C reaches the bench alone.

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

use super::stage::{SECRET, SOURCES, Stage};
use crate::{
    app::Roles,
    config::Config,
    tools::dev::servers::watchdog::{Program, Supervised},
};

/// How long it may take to serve, to get ready, and to stop.
const LIMIT: Duration = Duration::from_mins(1);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// A `tallyhook serve` of our own, killed when this is dropped.
pub struct Process {
    running: Supervised,
    /// Where it takes webhooks, if it does.
    pub receiver: Option<SocketAddr>,
    /// Where its probes are.
    operations: SocketAddr,
    log: PathBuf,
    // Declared last: the folder goes after the process that writes to it.
    _folder: TempDir,
}

impl Process {
    /// Starts the program, and waits until it says where it listens. Its
    /// servers, sources and secret are the stage's, its sizes the user's.
    ///
    /// # Errors
    /// It does not serve; told with the end of its log.
    pub async fn start(stage: &Stage, program: &Path, roles: Roles) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (file, log) = (folder.path().join("bench.toml"), folder.path().join("log"));
        std::fs::write(&file, SOURCES)?;
        let running = Supervised::spawn(&Program {
            command: command(program, &file, roles),
            environment: environment(stage),
            dir: folder.path(),
            log: &log,
            account: None,
            // Whatever it has in hand comes again, to nobody.
            ending: Signal::SIGKILL,
            remove_dir_on_death: Some(&folder.path().to_owned()),
        })
        .await?;
        let mut starting = Starting { running, log };
        let (receiver, operations) = timeout(LIMIT, starting.addresses())
            .await
            .context("serve did not say where it listens")??;
        let Starting { running, log } = starting;
        Ok(Self { running, receiver, operations, log, _folder: folder })
    }

    /// Waits until its roles can do their work.
    ///
    /// # Errors
    /// It does not get there.
    pub async fn ready(&self) -> anyhow::Result<()> {
        crate::net::tls::install_crypto_provider();
        let url = format!("http://{}/readyz", self.receiver.unwrap_or(self.operations));
        let ready = async {
            while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
                sleep(LOOK).await;
            }
        };
        timeout(LIMIT, ready).await.context("serve did not get ready")
    }

    /// Makes sure that it still runs.
    ///
    /// # Errors
    /// It ended by itself; told with the end of its log.
    pub fn must_run(&mut self) -> anyhow::Result<()> {
        must_run(&mut self.running, &self.log)
    }

    /// What it keeps resident, in KiB.
    ///
    /// # Errors
    /// It ended by itself, or the kernel does not tell.
    pub fn resident(&self) -> anyhow::Result<u32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.pid()))
            .context("memory is read from /proc, which is Linux's, of a process that runs")?;
        resident_in(&status).context("the kernel does not tell the resident memory")
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    /// It does not stop, or says that something went wrong.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.must_run()?;
        self.running.signal(Signal::SIGTERM)?;
        let status = self.running.wait(LIMIT).await?.context("serve did not stop")?;
        ensure!(status.success(), "serve ended with {status}: {}", last_line(&self.log));
        Ok(())
    }
}

/// A process that has not said yet where it listens.
struct Starting {
    running: Supervised,
    log: PathBuf,
}

impl Starting {
    async fn addresses(&mut self) -> anyhow::Result<(Option<SocketAddr>, SocketAddr)> {
        loop {
            // Asked for first: what ended wrote its last line before.
            let alive = must_run(&mut self.running, &self.log);
            let told = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(addresses) = told.lines().find_map(addresses_in) {
                return Ok(addresses);
            }
            alive?;
            sleep(LOOK).await;
        }
    }
}

fn must_run(running: &mut Supervised, log: &Path) -> anyhow::Result<()> {
    if let Some(status) = running.ended()? {
        bail!("serve ended by itself with {status}: {}", last_line(log));
    }
    Ok(())
}

fn last_line(log: &Path) -> String {
    let told = std::fs::read_to_string(log).unwrap_or_default();
    told.lines().next_back().unwrap_or("it logged nothing").to_owned()
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

/// What surrounds it: what surrounds us, and in the place of all settings those
/// of the stage.
fn environment(stage: &Stage) -> Vec<(OsString, OsString)> {
    let ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("TALLYHOOK") || name == "RUST_LOG"
    };
    let around = std::env::vars_os().filter(|(name, _)| !ours(name));
    let settings = settings(&stage.config).into_iter().map(|(name, value)| (name, value.into()));
    let secret = (SECRET, OsString::from(&stage.secret));
    around.chain(settings.chain([secret]).map(|(name, value)| (name.into(), value))).collect()
}

/// The settings under which it serves: ours, and the user's sizes.
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

/// Where the receiver, if there is one, and the operations listen.
fn addresses_in(line: &str) -> Option<(Option<SocketAddr>, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |key: &str| line.get(key)?.as_str()?.parse().ok();
    Some((address("receiver"), address("operations")?))
}

fn resident_in(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_and_the_log_are_read() {
        assert_eq!(resident_in("Name:\tx\nVmHWM:\t 99 kB\nVmRSS:\t   12345 kB\n"), Some(12_345));
        assert_eq!(resident_in("Name:\tx\n"), None);
        let (door, probes) = ("127.0.0.1:4711".parse().unwrap(), "127.0.0.1:1".parse().unwrap());
        for (line, expected) in [
            (
                r#"{"message":"serving","receiver":"127.0.0.1:4711","operations":"127.0.0.1:1"}"#,
                Some((Some(door), probes)),
            ),
            (r#"{"message":"serving","operations":"127.0.0.1:1"}"#, Some((None, probes))),
            (r#"{"message":"serving","receiver":"127.0.0.1:4711"}"#, None),
            (r#"{"message":"other"}"#, None),
            ("error: no", None),
            // A line that is being written.
            (r#"{"message":"serving","operat"#, None),
        ] {
            assert_eq!(addresses_in(line), expected, "{line}");
        }
    }

    #[test]
    fn a_role_is_named_where_it_is_the_only_one() {
        let words = |roles| {
            let command = command(Path::new("t"), Path::new("f"), roles);
            command.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(words(Roles::ALL), "t --config f serve");
        let worker = Roles { receiver: false, worker: true };
        assert_eq!(words(worker), "t --config f serve --only worker");
    }
}
