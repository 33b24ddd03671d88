//! A private PostgreSQL server.
//!
//! Its directory holds `data`, the `password` of the user `postgres`, and `postgres.log`.

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::{
    Options, POLL_INTERVAL,
    binaries::{self, PostgresBinaries},
    data_dir::{self, Account, Logs},
    ports,
    watchdog::{Program, Supervised},
};

/// Long enough to recover from a crash in the middle of a load test on a slow disk.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// As long as a watchdog lets an immediate shutdown take.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(10);
const INITDB_LIMIT: Duration = Duration::from_mins(2);

/// A private PostgreSQL server; dropping it ends the process.
#[derive(Debug)]
pub struct PostgresServer {
    binaries: PostgresBinaries,
    dir: PathBuf,
    account: Option<Account>,
    password: String,
    port: u16,
    pid: u32,
    options: Options,
    running: Option<Supervised>,
    _lock: File,
}

impl PostgresServer {
    /// Starts a server in `dir` on a free loopback port, and waits until it accepts connections.
    ///
    /// Existing data in `dir` is used again. As root, the server runs as the user `postgres` or
    /// `nobody`, which becomes the owner of `dir`.
    ///
    /// # Errors
    ///
    /// [`MissingServer`](super::MissingServer) is in the chain if there is no PostgreSQL that is
    /// recent enough. Otherwise, why it did not start, with the end of its log.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &Options::default()).await
    }

    /// Starts a server in `dir`, with options.
    ///
    /// # Errors
    ///
    /// As [`PostgresServer::start`].
    pub async fn start_with(dir: &Path, options: &Options) -> Result<Self> {
        let binaries = binaries::postgres().await?;
        let dir = data_dir::create(dir)?;
        let lock = data_dir::lock(&dir)?;
        let account = Account::for_folder(&dir, &dir.join("data"))?;
        let [port] = ports::free()?;
        let mut server = Self {
            binaries,
            dir,
            account,
            password: String::new(),
            port,
            pid: 0,
            options: options.clone(),
            running: None,
            _lock: lock,
        };
        server.prepare_data().await?;
        server.wait_for_predecessor().await;
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

    /// The URL of a database of this server, for its superuser `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let Self { password, port, .. } = self;
        format!("postgres://postgres:{password}@127.0.0.1:{port}/{database}")
    }

    /// The port on 127.0.0.1; it stays the same across restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster; of the last one if the server is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        self.running.as_mut().is_some_and(|running| matches!(running.ended(), Ok(None)))
    }

    /// Sends SIGKILL to the server and all its sessions. Unlike a power failure, this keeps all
    /// file writes.
    ///
    /// # Errors
    ///
    /// If the processes could not be killed. A server that is down already is no error.
    pub async fn kill(&mut self) -> Result<()> {
        match self.running.take() {
            Some(running) => running.kill_with_children().await,
            None => Ok(()),
        }
    }

    /// Restarts the server on the same port and data. Stops it first if it is running.
    ///
    /// # Errors
    ///
    /// Why it did not start, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.launch().await
    }

    /// Stops the server cleanly, ending open sessions; kills it if that takes longer than 30 s.
    ///
    /// # Errors
    ///
    /// If it could not even be killed. A server that is down already is no error.
    pub async fn stop(&mut self) -> Result<()> {
        match self.running.take() {
            // SIGINT is PostgreSQL's "fast" shutdown; SIGTERM would wait for the clients to leave.
            Some(running) => running.stop(Signal::SIGINT, STOP_LIMIT).await,
            None => Ok(()),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    fn logs(&self) -> Logs {
        Logs::from_now(&[&self.log()])
    }

    async fn prepare_data(&mut self) -> Result<()> {
        let password = self.dir.join("password");
        let version = self.data().join("PG_VERSION");
        if version.exists() {
            self.require_same_major(&version)?;
            self.password = fs::read_to_string(&password)
                .with_context(|| format!("cannot read {}", password.display()))?;
            return Ok(());
        }
        self.password = format!("{:032x}", rand::random::<u128>());
        write_private(&password, &self.password)?;
        if let Some(account) = &self.account {
            account.own(&password)?;
        }
        self.initdb(&password).await
    }

    fn require_same_major(&self, version: &Path) -> Result<()> {
        let made_by = fs::read_to_string(version)
            .with_context(|| format!("cannot read {}", version.display()))?;
        if made_by.trim() != self.binaries.major.to_string() {
            bail!(
                "the data in {} is of PostgreSQL {}, but {} is of version {}: set TALLYHOOK_POSTGRES_BIN \
                 to the right programs, or delete the folder if its data may go",
                self.data().display(),
                made_by.trim(),
                self.binaries.folder.display(),
                self.binaries.major,
            );
        }
        Ok(())
    }

    async fn initdb(&self, password: &Path) -> Result<()> {
        // Renamed when complete, so that a run that dies here leaves nothing that looks like data.
        let unfinished = self.dir.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .with_context(|| format!("cannot delete {}", unfinished.display()))?;
        }
        let mut command: Vec<OsString> = vec![self.binaries.folder.join("initdb").into()];
        command.extend(["--pgdata".into(), unfinished.clone().into()]);
        command.extend(["--pwfile".into(), password.into()]);
        // `--no-sync`: only a power failure within the next seconds would notice.
        // `--locale=C`: the one that every system has, and that sorts alike on all of them.
        // A password, because 127.0.0.1 is open to every user of the machine.
        command.extend(
            [
                "--no-sync",
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ]
            .map(OsString::from),
        );
        let logs = self.logs();
        let mut initdb = self.supervise(command, Signal::SIGKILL).await?;
        match initdb.wait(INITDB_LIMIT).await? {
            Some(status) if status.success() => {}
            Some(_) => bail!("initdb failed{}", logs.tails()),
            None => bail!("initdb took longer than {INITDB_LIMIT:?}{}", logs.tails()),
        }
        fs::rename(&unfinished, self.data())
            .with_context(|| format!("cannot rename {}", unfinished.display()))
    }

    /// Waits for a server of an earlier run that its watchdog is still ending; otherwise the start
    /// would fail because the data directory is in use.
    async fn wait_for_predecessor(&self) {
        let deadline = Instant::now() + PREDECESSOR_LIMIT;
        let alive = |pid| !matches!(kill(Pid::from_raw(pid), None), Err(nix::Error::ESRCH));
        while let Some(pid) = self.pid_in_file()
            && alive(pid)
            && Instant::now() < deadline
        {
            sleep(POLL_INTERVAL).await;
        }
    }

    fn pid_in_file(&self) -> Option<i32> {
        let file = fs::read_to_string(self.pid_file()).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    async fn launch(&mut self) -> Result<()> {
        let mut command: Vec<OsString> = vec![self.binaries.folder.join("postgres").into()];
        command.extend(["-D".into(), self.data().into()]);
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".to_owned(),
            // A socket's path may have 107 bytes, and temporary folders can be longer.
            "unix_socket_directories=".to_owned(),
            // The tests run side by side, each with pools of its own.
            "max_connections=200".to_owned(),
            "cluster_name=tallyhook".to_owned(),
        ] {
            command.extend(["-c".into(), setting.into()]);
        }
        let logs = self.logs();
        // SIGQUIT: the "immediate" shutdown, which takes the sessions along and recovers later.
        let mut running = self.supervise(command, Signal::SIGQUIT).await?;
        self.wait_until_ready(&mut running, &logs).await?;
        self.pid = running.pid();
        self.running = Some(running);
        Ok(())
    }

    async fn supervise(&self, command: Vec<OsString>, ending: Signal) -> Result<Supervised> {
        Supervised::spawn(&Program {
            command,
            environment: vec![("LC_ALL", "C".into())],
            dir: &self.dir,
            log: &self.log(),
            account: self.account.as_ref(),
            ending,
            remove_dir_on_death: self.options.remove_dir_on_death.as_ref(),
        })
        .await
    }

    async fn wait_until_ready(&self, running: &mut Supervised, logs: &Logs) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.ready(running.pid()) {
            if let Some(status) = running.ended()? {
                bail!("PostgreSQL did not start ({status}){}", logs.tails());
            }
            if Instant::now() > deadline {
                bail!("PostgreSQL was not ready after {START_LIMIT:?}{}", logs.tails());
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Reads the PID file like `pg_ctl`: a response on the port could be from another server.
    fn ready(&self, pid: u32) -> bool {
        const PID_LINE: usize = 0;
        const STATUS_LINE: usize = 7;
        let Ok(file) = fs::read_to_string(self.pid_file()) else {
            return false;
        };
        let lines: Vec<&str> = file.lines().map(str::trim).collect();
        lines.get(PID_LINE) == Some(&pid.to_string().as_str())
            && lines.get(STATUS_LINE) == Some(&"ready")
    }
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    // Permissions are set before the content is written.
    File::create(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("cannot write {}", path.display()))
}
