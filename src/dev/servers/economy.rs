//! The stand-in economy system of `tests/economy`, for trying mirrors out.
//!
//! In its folder: the `journal` that it remembers by, and `economy.log`.

use std::{
    env,
    ffi::OsString,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::folder::{self, Logs};
use super::watchdog::{Program, Supervised};
use super::{MissingServer, Options, POLL, ports};

/// It has nothing to do but to read its journal.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How the stand-in is to run.
#[derive(Clone, Debug)]
pub struct EconomyOptions {
    /// The program; see [`EconomyServer::program`].
    pub program: PathBuf,
    /// What its callers must send as a bearer token.
    pub token: String,
    /// What goes wrong in it from the start: the JSON that `POST /faults` takes.
    pub faults: String,
}

/// A stand-in economy system, which ends when this value is dropped.
#[derive(Debug)]
pub struct EconomyServer {
    dir: PathBuf,
    economy: EconomyOptions,
    options: Options,
    port: u16,
    pid: u32,
    running: Option<Supervised>,
}

impl EconomyServer {
    /// Where the program is: beside the one that runs.
    ///
    /// # Errors
    ///
    /// [`MissingServer`], with the command that builds it, if it is not there.
    pub fn program() -> Result<PathBuf> {
        let running = env::current_exe().context("cannot tell where this program is")?;
        let program = running.with_file_name("economy");
        if !program.is_file() {
            return Err(MissingServer {
                what: format!(
                    "found no stand-in economy system: {} is not there",
                    program.display()
                ),
                hint: "build it beside tallyhook with `cargo build --bin economy` \
                       (`cargo build --release --bin economy` for a release build)"
                    .to_owned(),
            }
            .into());
        }
        Ok(program)
    }

    /// Starts one in `dir` on a free loopback port, and waits until it listens.
    ///
    /// What an earlier run made there is there again.
    ///
    /// # Errors
    ///
    /// What kept it from starting, with the end of its log.
    pub async fn start_with(
        dir: &Path,
        economy: &EconomyOptions,
        options: &Options,
    ) -> Result<Self> {
        let dir = folder::create(dir)?;
        let [port] = ports::free()?;
        let (economy, options) = (economy.clone(), options.clone());
        let mut server = Self { dir, economy, options, port, pid: 0, running: None };
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

    /// Its URL, the same as long as this value lives.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Its process id: of the last one, if it is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it is up, as far as its process tells.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.ended(), Ok(None)))
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it could not be killed. One that is down already is no error.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill().await,
            None => Ok(()),
        }
    }

    /// Starts it again, on the same port and data, with the faults it first
    /// had. If it runs, it is killed first.
    ///
    /// # Errors
    ///
    /// What kept it from starting, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch().await
    }

    /// Ends it. It is as safe to kill as to ask: its journal is always whole.
    ///
    /// # Errors
    ///
    /// As [`EconomyServer::kill`].
    pub async fn stop(&mut self) -> Result<()> {
        self.kill().await
    }

    fn log(&self) -> PathBuf {
        self.dir.join("economy.log")
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
            environment: vec![("ECONOMY_TOKEN", self.economy.token.clone().into())],
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
                bail!("the stand-in economy system did not start ({status}){}", logs.tails());
            }
            if Instant::now() > deadline {
                bail!(
                    "the stand-in economy system was not ready after {START_LIMIT:?}{}",
                    logs.tails()
                );
            }
            sleep(POLL).await;
        }
        self.pid = running.pid();
        self.running = Some(running);
        Ok(())
    }

    fn command(&self, ready: &Path) -> Vec<OsString> {
        vec![
            self.economy.program.clone().into(),
            "--listen".into(),
            format!("{}:{}", Ipv4Addr::LOCALHOST, self.port).into(),
            "--data".into(),
            self.dir.join("journal").into(),
            "--ready-file".into(),
            ready.into(),
            "--faults".into(),
            self.economy.faults.clone().into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_told_with_the_command_that_builds_it() {
        // Nothing of that name is beside the program of the unit tests.
        let error = EconomyServer::program().unwrap_err();
        assert!(error.downcast_ref::<MissingServer>().is_some(), "{error:?}");
        assert!(error.to_string().contains("cargo build --bin economy"), "{error}");
    }
}
