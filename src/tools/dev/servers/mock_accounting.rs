//! The mock accounting server of `tests/mock_accounting`, as a child process.
//!
//! Its data directory holds `invoices.wal` and `mock-accounting.log`.

use std::{
    env,
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::{
    MissingServer, Options, POLL_INTERVAL,
    data_dir::{self, Logs},
    ports,
    watchdog::{Program, Supervised},
};

/// The name of the example in `Cargo.toml`.
const PROGRAM: &str = "mock-accounting";
/// Its source file, relative to the root of a checkout.
const SOURCE: &str = "tests/mock_accounting/main.rs";
const START_LIMIT: Duration = Duration::from_secs(20);

/// How to run the mock accounting server.
#[derive(Clone, Debug)]
pub struct MockAccountingOptions {
    /// The program; see [`MockAccountingServer::program`].
    pub program: PathBuf,
    /// The bearer token that clients must send.
    pub token: String,
    /// Faults from the start: the JSON body of `POST /faults`.
    pub faults: String,
}

/// A mock accounting server; dropping it kills the process.
#[derive(Debug)]
pub struct MockAccountingServer {
    dir: PathBuf,
    mock: MockAccountingOptions,
    options: Options,
    port: u16,
    pid: u32,
    running: Option<Supervised>,
}

impl MockAccountingServer {
    /// Finds the program: cargo puts it into `examples` beside this one. In a checkout
    /// it is built if it is missing.
    ///
    /// # Errors
    ///
    /// [`MissingServer`], with the command that builds it, if it is neither there nor
    /// can be built.
    pub fn program() -> Result<PathBuf> {
        let running = env::current_exe().context("cannot find the path of this program")?;
        let profile_dir = profile_dir(&running);
        let program = profile_dir.join("examples").join(PROGRAM);
        if !program.is_file() && Path::new(SOURCE).is_file() {
            build(profile_dir)?;
        }
        if !program.is_file() {
            return Err(MissingServer {
                what: format!("found no mock accounting server at {}", program.display()),
                hint: format!("build it in a checkout with `cargo build --example {PROGRAM}`"),
            }
            .into());
        }
        Ok(program)
    }

    /// Starts a server in `dir` on a free loopback port, and waits until it listens.
    /// It loads the data of an earlier run in `dir`. The error ends with the server's log.
    pub async fn start_with(
        dir: &Path,
        mock: &MockAccountingOptions,
        options: &Options,
    ) -> Result<Self> {
        let dir = data_dir::create(dir)?;
        let [port] = ports::free()?;
        let (mock, options) = (mock.clone(), options.clone());
        let mut server = Self { dir, mock, options, port, pid: 0, running: None };
        let logs = server.logs();
        if let Err(error) = server.launch().await {
            if !ports::taken_according_to(&logs.tails()) {
                return Err(error);
            }
            [server.port] = ports::free()?;
            server.launch().await?;
        }
        Ok(server)
    }

    /// The base URL; the port stays the same across restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The process id; of the last process if the server is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.ended(), Ok(None)))
    }

    /// Sends SIGKILL. Does nothing if the server is down.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Restarts it on the same port and data, with its initial faults.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch().await
    }

    /// Stops it with SIGKILL: its write-ahead log is always consistent.
    pub async fn stop(&mut self) -> Result<()> {
        self.kill().await
    }

    fn log(&self) -> PathBuf {
        self.dir.join("mock-accounting.log")
    }

    fn logs(&self) -> Logs {
        Logs::from_now(&[&self.log()])
    }

    async fn launch(&mut self) -> Result<()> {
        let ready = self.dir.join("ready");
        match fs::remove_file(&ready) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", ready.display()));
            }
            _ => {}
        }
        let logs = self.logs();
        let mut running = Supervised::spawn(&Program {
            command: self.command(&ready),
            environment: vec![("MOCK_ACCOUNTING_TOKEN", self.mock.token.clone().into())],
            dir: &self.dir,
            log: &self.log(),
            account: None,
            ending: Signal::SIGKILL,
            remove_dir_on_death: self.options.remove_dir_on_death.as_ref(),
        })
        .await?;
        let deadline = Instant::now() + START_LIMIT;
        while !ready.exists() {
            if let Some(status) = running.ended()? {
                bail!("the mock accounting server did not start ({status}){}", logs.tails());
            }
            if Instant::now() > deadline {
                bail!(
                    "the mock accounting server was not ready after {START_LIMIT:?}{}",
                    logs.tails()
                );
            }
            sleep(POLL_INTERVAL).await;
        }
        self.pid = running.pid();
        self.running = Some(running);
        Ok(())
    }

    fn command(&self, ready: &Path) -> Vec<OsString> {
        vec![
            self.mock.program.clone().into(),
            "--listen".into(),
            format!("{}:{}", Ipv4Addr::LOCALHOST, self.port).into(),
            "--data".into(),
            self.dir.join("invoices.wal").into(),
            "--ready-file".into(),
            ready.into(),
            "--faults".into(),
            self.mock.faults.clone().into(),
        ]
    }
}

/// Cargo's output directory of this build. Test programs are in its folder `deps`.
fn profile_dir(running: &Path) -> &Path {
    let dir = running.parent().unwrap_or(Path::new(""));
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }
}

/// Builds the program for the same profile and target directory as this one.
fn build(profile_dir: &Path) -> Result<()> {
    eprintln!("building the mock accounting server...");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--locked", "--example", PROGRAM]);
    cargo.arg("--target-dir").arg(profile_dir.parent().unwrap_or(profile_dir));
    if profile_dir.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cannot run cargo to build the mock accounting server")?;
    ensure!(status.success(), "building the mock accounting server failed ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_dir_of_programs_and_tests() {
        for running in ["/t/debug/tallyhook", "/t/debug/deps/it-0123"] {
            assert_eq!(profile_dir(Path::new(running)), Path::new("/t/debug"));
        }
    }
}
