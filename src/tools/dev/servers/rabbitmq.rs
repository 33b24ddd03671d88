//! A private RabbitMQ node with its own Erlang port mapper.
//!
//! Its directory holds the broker's `data`, its `log`, its start-up output, and configuration
//! files that replace the machine's.

use std::{
    ffi::OsString,
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::{
    Options, POLL_INTERVAL,
    binaries::{self, RabbitMqBinaries},
    data_dir::{self, Logs},
    ports,
    watchdog::{Program, Supervised},
};

/// A start takes about 8 s on two cores, and several times that when tests start a few at once.
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const EPMD_LIMIT: Duration = Duration::from_secs(10);
const CTL_LIMIT: Duration = Duration::from_mins(1);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(2);

/// The first bytes of an AMQP 0-9-1 client.
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A private RabbitMQ node; dropping it ends the process.
#[derive(Debug)]
pub struct RabbitMqServer {
    binaries: RabbitMqBinaries,
    dir: PathBuf,
    /// The node's name without its host. The data directory depends on it, so it never changes.
    node: String,
    ports: Ports,
    pid: u32,
    options: Options,
    // In this order, so that the broker ends before its port mapper.
    broker: Option<Supervised>,
    epmd: Option<Supervised>,
    _lock: File,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    /// For other Erlang nodes, `rabbitmqctl` among them.
    distribution: u16,
    epmd: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        let [amqp, distribution, epmd] = ports::free()?;
        Ok(Self { amqp, distribution, epmd })
    }
}

impl RabbitMqServer {
    /// Starts a node in `dir` on a free loopback port, and waits until it answers AMQP.
    ///
    /// Existing data in `dir` is used again.
    ///
    /// # Errors
    ///
    /// [`MissingServer`](super::MissingServer) is in the chain if there is no RabbitMQ that is
    /// recent enough. Otherwise, why it did not start, with the ends of its logs.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &Options::default()).await
    }

    /// Starts a node in `dir`, with options.
    ///
    /// # Errors
    ///
    /// As [`RabbitMqServer::start`].
    pub async fn start_with(dir: &Path, options: &Options) -> Result<Self> {
        let binaries = binaries::rabbitmq().await?;
        let dir = data_dir::create(dir)?;
        let lock = data_dir::lock(&dir)?;
        let mut server = Self {
            binaries,
            node: node_name(&dir)?,
            dir,
            ports: Ports::free()?,
            pid: 0,
            options: options.clone(),
            broker: None,
            epmd: None,
            _lock: lock,
        };
        let logs = server.logs();
        if let Err(error) = server.launch().await {
            if !ports::taken_according_to(&logs.tails()) {
                return Err(error);
            }
            server.epmd = None;
            server.ports = Ports::free()?;
            server.launch().await?;
        }
        Ok(server)
    }

    /// The URL of the default virtual host, for the user `guest`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// The AMQP port on 127.0.0.1; it stays the same across restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// The process id of the broker; of the last one if it is down.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        self.broker.as_mut().is_some_and(|broker| matches!(broker.ended(), Ok(None)))
    }

    /// Sends SIGKILL to the broker. Its port mapper keeps running.
    ///
    /// # Errors
    ///
    /// If it could not be killed. A broker that is down already is no error.
    pub async fn kill(&mut self) -> Result<()> {
        match self.broker.take() {
            // Its helper processes end when their pipes close.
            Some(broker) => broker.kill().await,
            None => Ok(()),
        }
    }

    /// Restarts the broker on the same ports and data. Stops it first if it is running.
    ///
    /// # Errors
    ///
    /// Why it did not start, with the ends of its logs.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop_broker().await?;
        self.launch().await
    }

    /// Stops the broker cleanly, and its port mapper; kills it if that takes longer than 30 s.
    ///
    /// # Errors
    ///
    /// If a process could not even be killed. A broker that is down already is no error.
    pub async fn stop(&mut self) -> Result<()> {
        self.stop_broker().await?;
        match self.epmd.take() {
            // It has no data and no signal for a clean shutdown.
            Some(epmd) => epmd.kill().await,
            None => Ok(()),
        }
    }

    /// Runs `rabbitmqctl` on this node and returns its output.
    ///
    /// # Errors
    ///
    /// If it fails, with all that it said, or takes longer than 60 s.
    pub async fn rabbitmqctl(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.binaries.ctl)
            .arg("--quiet")
            .args(args)
            .env_clear()
            .envs(self.environment())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(&self.dir)
            .kill_on_drop(true)
            .output();
        let output = timeout(CTL_LIMIT, output)
            .await
            .with_context(|| format!("rabbitmqctl {args:?} took longer than {CTL_LIMIT:?}"))?
            .context("cannot run rabbitmqctl")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("rabbitmqctl {args:?} failed ({}): {printed}{complaint}", output.status);
        }
        Ok(printed)
    }

    async fn stop_broker(&mut self) -> Result<()> {
        match self.broker.take() {
            Some(broker) => broker.stop(Signal::SIGTERM, STOP_LIMIT).await,
            None => Ok(()),
        }
    }

    fn startup_log(&self) -> PathBuf {
        self.dir.join("startup.log")
    }

    fn logs(&self) -> Logs {
        Logs::from_now(&[&self.startup_log(), &self.dir.join("log/rabbitmq.log")])
    }

    async fn launch(&mut self) -> Result<()> {
        self.write_configuration()?;
        let logs = self.logs();
        self.ensure_epmd(&logs).await?;
        let command = vec![self.binaries.server.clone().into()];
        let mut broker = self.supervise(command).await?;
        self.wait_until_ready(&mut broker, &logs).await?;
        self.pid = broker.pid();
        self.broker = Some(broker);
        Ok(())
    }

    async fn supervise(&self, command: Vec<OsString>) -> Result<Supervised> {
        Supervised::spawn(&Program {
            command,
            environment: self.environment(),
            dir: &self.dir,
            log: &self.startup_log(),
            account: None,
            // Quorum queues survive it, and no client waits for a clean shutdown.
            ending: Signal::SIGKILL,
            remove_dir_on_death: self.options.remove_dir_on_death.as_ref(),
        })
        .await
    }

    /// Starts a port mapper, unless ours runs.
    ///
    /// Erlang would start one by itself, in the background, where nothing ends it.
    async fn ensure_epmd(&mut self, logs: &Logs) -> Result<()> {
        if let Some(epmd) = &mut self.epmd
            && epmd.ended()?.is_none()
        {
            return Ok(());
        }
        let command = vec![
            self.binaries.epmd.clone().into(),
            "-address".into(),
            "127.0.0.1".into(),
            "-port".into(),
            self.ports.epmd.to_string().into(),
        ];
        let mut epmd = self.supervise(command).await?;
        let deadline = Instant::now() + EPMD_LIMIT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.epmd)).await.is_err() {
            if let Some(status) = epmd.ended()? {
                bail!("Erlang's port mapper did not start ({status}){}", logs.tails());
            }
            if Instant::now() > deadline {
                bail!("Erlang's port mapper was not ready after {EPMD_LIMIT:?}{}", logs.tails());
            }
            sleep(POLL_INTERVAL).await;
        }
        self.epmd = Some(epmd);
        Ok(())
    }

    async fn wait_until_ready(&self, broker: &mut Supervised, logs: &Logs) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while !self.answers().await {
            if let Some(status) = broker.ended()? {
                bail!("RabbitMQ did not start ({status}){}", logs.tails());
            }
            if Instant::now() > deadline {
                bail!("RabbitMQ was not ready after {START_LIMIT:?}{}", logs.tails());
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Whether this very node answers on its port: its `connection.start` has the name of its
    /// cluster, which begins with that of the node.
    async fn answers(&self) -> bool {
        let handshake = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.amqp)).await?;
            stream.write_all(PROTOCOL_HEADER).await?;
            let mut frame = Vec::new();
            // Read on until the name is there: the frame may come in pieces. The broker says
            // nothing more after it, so the time limit ends a wait for another node.
            while !contains(&frame, self.node.as_bytes()) {
                if stream.read_buf(&mut frame).await? == 0 {
                    return Ok(false);
                }
            }
            Ok::<bool, std::io::Error>(true)
        };
        matches!(timeout(HANDSHAKE_LIMIT, handshake).await, Ok(Ok(true)))
    }

    fn write_configuration(&self) -> Result<()> {
        for folder in ["data", "log", "conf.d"] {
            fs::create_dir_all(self.dir.join(folder))
                .with_context(|| format!("cannot create {folder} in {}", self.dir.display()))?;
        }
        // The alarm of a full disk blocks publishers; by default it asks for as much free space
        // as it wants memory, which laptops and CI machines do not have to spare.
        let configuration = format!(
            "listeners.tcp.private = 127.0.0.1:{}\n\
             loopback_users.guest = true\n\
             disk_free_limit.absolute = 50MB\n\
             log.console = false\n\
             log.file = rabbitmq.log\n\
             log.file.level = info\n",
            self.ports.amqp
        );
        for (name, text) in [
            ("rabbitmq.conf", configuration.as_str()),
            // Empty, but present: without them the node reads those in /etc/rabbitmq.
            ("advanced.config", "[].\n"),
            ("rabbitmq-env.conf", ""),
            ("enabled_plugins", "[].\n"),
        ] {
            let path = self.dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The variables with which the broker, its port mapper and `rabbitmqctl` find this node only.
    fn environment(&self) -> Vec<(&'static str, OsString)> {
        // Without it, Erlang listens for other nodes on every interface.
        const LOOPBACK_ONLY: &str = "-kernel inet_dist_use_interface {127,0,0,1}";
        let inside = |name: &str| self.dir.join(name).into_os_string();
        vec![
            // For the cookie that nodes and `rabbitmqctl` must share.
            ("HOME", self.dir.clone().into_os_string()),
            ("LC_ALL", "C.UTF-8".into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string().into()),
            // `localhost`, because a machine may not be able to resolve its own name.
            ("RABBITMQ_NODENAME", format!("{}@localhost", self.node).into()),
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string().into()),
            ("RABBITMQ_MNESIA_BASE", inside("data")),
            ("RABBITMQ_LOG_BASE", inside("log")),
            ("RABBITMQ_PID_FILE", inside("pid")),
            ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
            ("RABBITMQ_CONFIG_FILE", inside("rabbitmq.conf")),
            ("RABBITMQ_CONFIG_FILES", inside("conf.d")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("enabled_plugins")),
            // No busy waiting: a few nodes and a build share the cores.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!(
                    "{LOOPBACK_ONLY} -start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none"
                )
                .into(),
            ),
            ("RABBITMQ_CTL_ERL_ARGS", LOOPBACK_ONLY.into()),
            // The start script then replaces itself with the broker, so the watchdog has the
            // broker's own process id.
            ("RUNNING_UNDER_SYSTEMD", "true".into()),
        ]
    }
}

/// The name in the file `node` of `dir`; generated at the first start.
fn node_name(dir: &Path) -> Result<String> {
    let path = dir.join("node");
    if path.exists() {
        return fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()));
    }
    let name = format!("tallyhook-{:016x}", rand::random::<u64>());
    fs::write(&path, &name).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(name)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
