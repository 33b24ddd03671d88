//! A server's data directory: its owner, its lock, and the ends of its logs.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::unistd::{User, geteuid};

/// Enough for the error and the lines before it.
const TAIL_LINES: usize = 25;
const TAIL_BYTES: u64 = 16 * 1024;

/// Creates `dir` if needed and returns its absolute path: servers change their working directory.
pub(super) fn create(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir)
        .with_context(|| format!("cannot create the folder {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("cannot find the folder {}", dir.display()))
}

/// Locks the directory until the file is closed or the process ends.
///
/// Two RabbitMQ nodes in one directory would not notice each other and corrupt the data.
pub(super) fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another process uses the folder {}", dir.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

pub(super) fn running_as_root() -> bool {
    geteuid().is_root()
}

/// The user that runs a server which refuses to be root.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// The account for a server in `dir`, whose existing data, if any, is in `data`.
    ///
    /// `None` if this program is not root; the server then runs as the same user.
    pub(super) fn for_folder(dir: &Path, data: &Path) -> Result<Option<Self>> {
        if !running_as_root() {
            return Ok(None);
        }
        let account = Self::unprivileged(data)?;
        account.own(dir)?;
        account.require_access_to(dir)?;
        Ok(Some(account))
    }

    fn unprivileged(data: &Path) -> Result<Self> {
        // Data of a run without root keeps its owner.
        if let Ok(metadata) = fs::metadata(data)
            && metadata.uid() != 0
        {
            return Ok(Self {
                name: metadata.uid().to_string(),
                uid: metadata.uid(),
                gid: metadata.gid(),
            });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("cannot read the list of users")? {
                return Ok(Self {
                    name: user.name,
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                });
            }
        }
        bail!(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
        )
    }

    /// Makes the account the owner of `path`.
    pub(super) fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to the user {}", path.display(), self.name))
    }

    fn require_access_to(&self, dir: &Path) -> Result<()> {
        for folder in dir.ancestors().skip(1) {
            let metadata = fs::metadata(folder)
                .with_context(|| format!("cannot look at {}", folder.display()))?;
            let search = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if metadata.permissions().mode() & search == 0 {
                bail!(
                    "PostgreSQL cannot run as root, and the user {user} may not enter {folder}: \
                     choose a folder that it can reach, or run `chmod o+x {folder}`",
                    user = self.name,
                    folder = folder.display(),
                );
            }
        }
        Ok(())
    }
}

/// A server's log files from a position on, without the output of earlier runs.
#[derive(Debug)]
pub(super) struct Logs(Vec<(PathBuf, u64)>);

impl Logs {
    pub(super) fn from_now(paths: &[&Path]) -> Self {
        let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        Self(paths.iter().map(|&path| (path.to_owned(), length(path))).collect())
    }

    /// The ends of the logs with their names, for errors about a server that did not start.
    pub(super) fn tails(&self) -> String {
        let mut tails = String::new();
        for (path, start) in &self.0 {
            if let Ok(tail) = tail(path, *start)
                && !tail.trim().is_empty()
            {
                let path = path.display().to_string();
                tails.extend(["\n--- the end of ", &path, ":\n", &tail]);
            }
        }
        if tails.is_empty() {
            tails.push_str("\nit wrote nothing to its logs");
        }
        tails
    }
}

fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES).max(start)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}
