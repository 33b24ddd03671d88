//! A child process that ends with this one.
//!
//! The server is started by a small shell, the watchdog, whose standard input is a pipe that this
//! program holds open and never writes to. However this program ends, `kill -9` included, the
//! kernel closes the pipe, and the watchdog ends the server. The write end is close-on-exec, so
//! that no other child can hold it open.
//!
//! Watchdog and server are in a process group of their own: Ctrl-C in a terminal reaches this
//! program alone, which then stops the server in order.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::{Instant, sleep, timeout},
};

use super::{POLL_INTERVAL, data_dir::Account};

/// Arguments: the log, the signal that ends the server, the folder to remove (or nothing), then
/// the command.
const SCRIPT: &str = r#"
log=$1 ending=$2 remove=$3
shift 3
# A background job gets /dev/null as its standard input; the pipe has to come by another number.
exec 3<&0 0</dev/null
"$@" >>"$log" 2>&1 3<&- &
server=$!
(
    # Nothing is ever written to the pipe: this returns when its other end is gone.
    read -r _ <&3
    # The server's end is expected from here on; ignore the TERM of the main shell.
    trap '' TERM
    kill -s "$ending" "$server"
    seconds=0
    while kill -s 0 "$server" && [ "$seconds" -lt 10 ]; do
        sleep 1
        seconds=$((seconds + 1))
    done
    kill -s KILL "$server"
    exit 0
) >/dev/null 2>&1 &
watcher=$!
echo "$server"
exec 3<&- >/dev/null 2>&1
wait "$server"
status=$?
kill "$watcher"
# The watcher succeeds only if it saw the pipe close. Otherwise the program is still running and
# keeps the folder.
if wait "$watcher" && [ -n "$remove" ]; then
    cd /
    rm -rf -- "$remove"
fi
exit "$status"
"#;

/// Time limit for the shell to start the server and print its process id.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Time limit for a process to disappear after SIGKILL; only a hanging disk delays it.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A program to run beneath a watchdog.
#[derive(Debug)]
pub(crate) struct Program<'a, K> {
    pub(crate) command: Vec<OsString>,
    /// The whole environment of the program, so that the developer's shell does not configure it.
    pub(crate) environment: Vec<(K, OsString)>,
    pub(crate) dir: &'a Path,
    pub(crate) log: &'a Path,
    /// The user that runs it, if not the current one.
    pub(crate) account: Option<&'a Account>,
    /// The signal that ends the program quickly and safely if this one dies.
    pub(crate) ending: Signal,
    pub(crate) remove_dir_on_death: Option<&'a PathBuf>,
}

/// A running program that ends, at the latest, when this value is dropped.
#[derive(Debug)]
pub(crate) struct Supervised {
    pid: Pid,
    watchdog: Child,
    // Never written to; closing it makes the watchdog end the program.
    _lifeline: ChildStdin,
}

impl Supervised {
    pub(crate) async fn spawn<K: AsRef<OsStr>>(program: &Program<'_, K>) -> Result<Self> {
        let name = program.command.first().map(PathBuf::from).unwrap_or_default();
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("tallyhook-watchdog")
            .arg(program.log)
            .arg(program.ending.as_str().trim_start_matches("SIG"))
            .arg(program.remove_dir_on_death.map_or(Path::new(""), PathBuf::as_path))
            .args(&program.command)
            .env_clear()
            .envs(program.environment.iter().map(|(name, value)| (name, value)))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(program.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(account) = program.account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut watchdog =
            command.spawn().with_context(|| format!("cannot start {}", name.display()))?;
        // Taken out, because `Child::wait` closes a standard input that it still holds.
        let (Some(lifeline), Some(output)) = (watchdog.stdin.take(), watchdog.stdout.take()) else {
            bail!("the watchdog of {} has no pipes", name.display());
        };
        let mut line = String::new();
        timeout(START_LIMIT, BufReader::new(output).read_line(&mut line))
            .await
            .context("the watchdog said nothing in time")
            .and_then(|read| read.context("cannot read from the watchdog"))
            .with_context(|| format!("cannot start {}", name.display()))?;
        let pid = line.trim().parse().map(Pid::from_raw).with_context(|| {
            format!("the watchdog of {} did not say its process id", name.display())
        })?;
        Ok(Self { pid, watchdog, _lifeline: lifeline })
    }

    /// The process id of the program itself, not of its watchdog.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// How the program ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.watchdog.try_wait().context("cannot ask for a process")
    }

    /// Sends `signal` to the program, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        // Once the watchdog is gone the number may belong to another process.
        if self.ended()?.is_some() {
            return Ok(());
        }
        match kill(self.pid, signal) {
            Ok(()) | Err(nix::Error::ESRCH) => Ok(()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot send {signal} to process {}", self.pid))
            }
        }
    }

    /// Waits until the program ends by itself; `None` if it has not after `limit`.
    pub(crate) async fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        match timeout(limit, self.watchdog.wait()).await {
            Ok(status) => Ok(Some(status.context("cannot wait for a process")?)),
            Err(_) => Ok(None),
        }
    }

    /// Kills the program and its child processes at once, like a crash of the machine.
    pub(super) async fn kill_with_children(mut self) -> Result<()> {
        // A stopped program cannot start more children, and dead ones remain its children as
        // zombies, so exactly its own processes are killed.
        self.signal(Signal::SIGSTOP)?;
        let deadline = Instant::now() + KILL_LIMIT;
        while self.ended()?.is_none() {
            let children = live_children_of(self.pid)?;
            if children.is_empty() {
                break;
            }
            if Instant::now() > deadline {
                bail!("processes {children:?} are still there after SIGKILL");
            }
            for child in children {
                // It may have ended already.
                let _ = kill(child, Signal::SIGKILL);
            }
            sleep(POLL_INTERVAL).await;
        }
        self.kill().await
    }

    pub(super) async fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if self.wait(KILL_LIMIT).await?.is_none() {
            bail!("process {} is still there after SIGKILL", self.pid);
        }
        Ok(())
    }

    /// Ends the program with `signal`, or with SIGKILL if that takes longer than `limit`.
    pub(super) async fn stop(mut self, signal: Signal, limit: Duration) -> Result<()> {
        self.signal(signal)?;
        if self.wait(limit).await?.is_none() {
            tracing::warn!(
                pid = self.pid(),
                limit_s = limit.as_secs(),
                "killing a server that does not stop"
            );
            return self.kill().await;
        }
        Ok(())
    }
}

fn live_children_of(parent: Pid) -> Result<Vec<Pid>> {
    // Slim containers have no `ps`.
    let processes =
        if Path::new("/proc/self/stat").exists() { processes_in_proc() } else { processes_by_ps() };
    Ok(processes
        .context("cannot list the processes")?
        .into_iter()
        .filter(|process| process.parent == parent.as_raw() && !process.zombie)
        .map(|process| Pid::from_raw(process.pid))
        .collect())
}

struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
}

fn processes_in_proc() -> io::Result<Vec<Process>> {
    let parse = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // `pid (name) state parent ...`, where the name may hold spaces and parentheses.
        let (_, after_name) = stat.rsplit_once(')')?;
        let mut fields = after_name.split_whitespace();
        let zombie = fields.next()?.starts_with('Z');
        let parent = fields.next()?.parse().ok()?;
        Some(Process { pid, parent, zombie })
    };
    Ok(fs::read_dir("/proc")?.filter_map(parse).collect())
}

fn processes_by_ps() -> io::Result<Vec<Process>> {
    let output =
        std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output()?;
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let pid = fields.next()?.parse().ok()?;
        let parent = fields.next()?.parse().ok()?;
        let zombie = fields.next()?.starts_with('Z');
        Some(Process { pid, parent, zombie })
    };
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(listed.lines().filter_map(parse).collect())
}
