//! Finds the servers' programs and checks their versions.
//!
//! `deploy/setup.sh` searches in the same order; keep both in step.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use thiserror::Error;
use tokio::process::Command;

/// The oldest PostgreSQL that Tallyhook is tested on.
const POSTGRES_MIN: u32 = 15;
/// The oldest RabbitMQ that has a message time-to-live on quorum queues.
const RABBITMQ_MIN: (u32, u32) = (3, 10);

const POSTGRES_OVERRIDE: &str = "TALLYHOOK_POSTGRES_BIN";
const RABBITMQ_OVERRIDE: &str = "TALLYHOOK_RABBITMQ_BIN";

/// A server that is not installed, or in a version that is too old.
#[derive(Debug, Error)]
#[error("{what}; {hint}")]
pub struct MissingServer {
    /// What is missing, or what was found instead.
    pub what: String,
    /// What to install, or which variable to set.
    pub hint: String,
}

/// The folder of `postgres` and `initdb`.
#[derive(Debug)]
pub(super) struct PostgresBinaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

/// The programs of a RabbitMQ installation.
#[derive(Debug)]
pub(super) struct RabbitMqBinaries {
    pub(super) server: PathBuf,
    pub(super) ctl: PathBuf,
    /// Erlang's port mapper.
    pub(super) epmd: PathBuf,
}

pub(super) async fn postgres() -> Result<PostgresBinaries> {
    let hint = format!(
        "install the server package of PostgreSQL {POSTGRES_MIN} or later (Debian and Ubuntu: `postgresql`; \
         Homebrew: `postgresql@17`), or set {POSTGRES_OVERRIDE} to the folder that holds `postgres` and `initdb`"
    );
    let Some(folder) = postgres_folder().await else {
        return Err(missing("found no PostgreSQL server".to_owned(), hint));
    };
    let version = output_of(Command::new(folder.join("postgres")).arg("--version")).await?;
    let major = leading_numbers(&version).first().copied().unwrap_or(0);
    if major < POSTGRES_MIN {
        let what = format!("{} in {} is too old", version.trim(), folder.display());
        return Err(missing(what, hint));
    }
    Ok(PostgresBinaries { folder, major })
}

async fn postgres_folder() -> Option<PathBuf> {
    if let Some(folder) = env::var_os(POSTGRES_OVERRIDE) {
        return Some(PathBuf::from(folder)).filter(|folder| holds_postgres(folder));
    }
    if let Some(folder) = newest_debian_postgres() {
        return Some(folder);
    }
    let configured = output_of(Command::new("pg_config").arg("--bindir"))
        .await
        .map(|folder| PathBuf::from(folder.trim()))
        .ok()
        .filter(|folder| holds_postgres(folder));
    configured.or_else(|| search_path().into_iter().find(|folder| holds_postgres(folder)))
}

/// Debian installs each major version in its own folder, outside `PATH`.
fn newest_debian_postgres() -> Option<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let major: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            holds_postgres(&folder).then_some((major, folder))
        })
        .max()
        .map(|(_, folder)| folder)
}

/// A `postgres` without `initdb` cannot create its data.
fn holds_postgres(folder: &Path) -> bool {
    folder.join("postgres").is_file() && folder.join("initdb").is_file()
}

pub(super) async fn rabbitmq() -> Result<RabbitMqBinaries> {
    let hint = format!(
        "install RabbitMQ {}.{} or later (Debian, Ubuntu: `rabbitmq-server`; Homebrew: `rabbitmq`), \
         or set {RABBITMQ_OVERRIDE} to the folder that holds `rabbitmq-server` and `rabbitmqctl`",
        RABBITMQ_MIN.0, RABBITMQ_MIN.1
    );
    let Some(folder) = rabbitmq_folder() else {
        return Err(missing("found no RabbitMQ server".to_owned(), hint));
    };
    let Some(epmd) = epmd() else {
        let what = format!("found RabbitMQ in {}, but no `epmd` of Erlang", folder.display());
        return Err(missing(what, "install Erlang, or put its `bin` folder on PATH".to_owned()));
    };
    let (server, ctl) = (folder.join("rabbitmq-server"), folder.join("rabbitmqctl"));
    let version = match version_by_plugin(&server) {
        Some(version) => version,
        None => output_of(Command::new(&ctl).arg("version")).await?,
    };
    let found = match leading_numbers(&version)[..] {
        [major, minor, ..] => (major, minor),
        _ => (0, 0),
    };
    if found < RABBITMQ_MIN {
        let what = format!("RabbitMQ {} in {} is too old", version.trim(), folder.display());
        return Err(missing(what, hint));
    }
    Ok(RabbitMqBinaries { server, ctl, epmd })
}

fn rabbitmq_folder() -> Option<PathBuf> {
    let holds_rabbitmq = |folder: &PathBuf| {
        folder.join("rabbitmq-server").is_file() && folder.join("rabbitmqctl").is_file()
    };
    if let Some(folder) = env::var_os(RABBITMQ_OVERRIDE) {
        return Some(PathBuf::from(folder)).filter(holds_rabbitmq);
    }
    // Before PATH, where Debian keeps a wrapper that insists on the user `rabbitmq`.
    let debian = PathBuf::from("/usr/lib/rabbitmq/bin");
    std::iter::once(debian).chain(search_path()).find(holds_rabbitmq)
}

fn epmd() -> Option<PathBuf> {
    search_path().into_iter().map(|folder| folder.join("epmd")).find(|program| program.is_file())
}

/// The version in the file name of the server's own plugin; `rabbitmqctl version` would have to
/// start Erlang.
fn version_by_plugin(server: &Path) -> Option<String> {
    let home = server.canonicalize().ok()?.parent()?.parent()?.to_owned();
    fs::read_dir(home.join("plugins")).ok()?.find_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let version = name.strip_prefix("rabbit-")?;
        version.starts_with(|first: char| first.is_ascii_digit()).then(|| version.to_owned())
    })
}

fn search_path() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// The first run of dotted numbers: `postgres (PostgreSQL) 15.13 (Debian 15.13-1)` gives 15, 13.
fn leading_numbers(version: &str) -> Vec<u32> {
    version
        .trim_start_matches(|first: char| !first.is_ascii_digit())
        .split(|end: char| end != '.' && !end.is_ascii_digit())
        .next()
        .unwrap_or_default()
        .split('.')
        .map_while(|number| number.parse().ok())
        .collect()
}

async fn output_of(command: &mut Command) -> Result<String> {
    let program = command.as_std().get_program().to_owned();
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(what: String, hint: String) -> anyhow::Error {
    MissingServer { what, hint }.into()
}

#[cfg(test)]
mod tests {
    use super::leading_numbers;

    #[test]
    fn version_numbers_are_read_from_program_output() {
        let cases: [(&str, &[u32]); 7] = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", &[15, 18]),
            ("postgres (PostgreSQL) 18beta2", &[18]),
            ("3.10.8", &[3, 10, 8]),
            ("3.9.13.ez", &[3, 9, 13]),
            ("4.1.0-rc.1", &[4, 1, 0]),
            ("no numbers", &[]),
            ("", &[]),
        ];
        for (output, numbers) in cases {
            assert_eq!(leading_numbers(output), numbers, "{output}");
        }
    }
}
