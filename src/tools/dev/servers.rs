//! Private PostgreSQL and RabbitMQ servers, started from the installed binaries.
//!
//! `tallyhook dev`, the integration tests and the demo run on them. Each has its own ports and
//! data directory, and reads nothing of the machine's configuration. A server can be killed like in
//! a crash, and restarted on the same port and data. Servers end with the program that started
//! them, even after `kill -9`: see `watchdog`.
//!
//! | Module            | Content                                                      |
//! |-------------------|--------------------------------------------------------------|
//! | `postgres`        | a PostgreSQL server                                          |
//! | `rabbitmq`        | a RabbitMQ node with its port mapper                         |
//! | `mock_accounting` | the mock accounting server                                   |
//! | `binaries`        | finding the programs and checking their versions             |
//! | `watchdog`        | a child process that ends with this one                      |
//! | `data_dir`        | a server's data directory: lock, owner, ends of its logs     |
//! | `ports`           | free loopback ports                                          |

mod binaries;
mod data_dir;
mod mock_accounting;
mod ports;
mod postgres;
mod rabbitmq;
pub(crate) mod watchdog;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

pub use self::{
    binaries::MissingServer,
    mock_accounting::{MockAccountingOptions, MockAccountingServer},
    postgres::PostgresServer,
    rabbitmq::RabbitMqServer,
};

/// Interval of readiness checks.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Options of private servers.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A folder to delete, with all that is in it, if this program dies without stopping the
    /// server. `None`, the default, keeps everything.
    pub remove_dir_on_death: Option<PathBuf>,
    /// A mock accounting server to start as well. `None`, the default, starts none.
    pub mock_accounting: Option<MockAccountingOptions>,
}

/// A private PostgreSQL and a private RabbitMQ, with a mock accounting server if requested.
///
/// Dropping it kills them; [`Servers::stop`] shuts them down cleanly.
#[derive(Debug)]
pub struct Servers {
    /// The database, in the folder `postgres`.
    pub postgres: PostgresServer,
    /// The broker, in the folder `rabbitmq`.
    pub rabbitmq: RabbitMqServer,
    /// The mock accounting server, if requested, in the folder `mock_accounting`.
    pub mock_accounting: Option<MockAccountingServer>,
    // Declared last, so that it is deleted after the servers ended.
    temporary: Option<TempDir>,
}

impl Servers {
    /// Starts both servers at once in `dir`, and keeps their data there for the next start.
    ///
    /// # Errors
    ///
    /// [`MissingServer`] is in the chain if a server is not installed or too old. Otherwise, a
    /// server that did not start, with the end of its log.
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_with(dir, &Options::default()).await
    }

    /// Starts both servers in a new temporary folder, which goes when they stop or when this
    /// program dies.
    ///
    /// # Errors
    ///
    /// As [`Servers::start`].
    pub async fn start_temporary() -> Result<Self> {
        Self::start_temporary_with(Options::default()).await
    }

    /// Starts them in a new temporary folder, with options; it goes in any case.
    ///
    /// # Errors
    ///
    /// As [`Servers::start`].
    pub async fn start_temporary_with(options: Options) -> Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("tallyhook-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        let remove_dir_on_death = Some(temporary.path().to_owned());
        let options = Options { remove_dir_on_death, ..options };
        let mut servers = Self::start_with(temporary.path(), &options).await?;
        servers.temporary = Some(temporary);
        Ok(servers)
    }

    /// Starts both servers in `dir`.
    ///
    /// # Errors
    ///
    /// As [`Servers::start`].
    pub async fn start_with(dir: &Path, options: &Options) -> Result<Self> {
        let dir = data_dir::create(dir)?;
        if data_dir::running_as_root() {
            // PostgreSQL runs as another user then, and has to get to its folder inside.
            let mode = fs::metadata(&dir)?.permissions().mode();
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode | 0o011))
                .with_context(|| format!("cannot open {} to others", dir.display()))?;
        }
        let (postgres_dir, rabbitmq_dir) = (dir.join("postgres"), dir.join("rabbitmq"));
        let mock_accounting = async {
            match &options.mock_accounting {
                Some(mock_accounting) => {
                    let dir = dir.join("mock_accounting");
                    MockAccountingServer::start_with(&dir, mock_accounting, options).await.map(Some)
                }
                None => Ok(None),
            }
        };
        let (postgres, rabbitmq, mock_accounting) = tokio::try_join!(
            PostgresServer::start_with(&postgres_dir, options),
            RabbitMqServer::start_with(&rabbitmq_dir, options),
            mock_accounting,
        )?;
        Ok(Self { postgres, rabbitmq, mock_accounting, temporary: None })
    }

    /// Stops all of them cleanly, and deletes their folder if it is a temporary one.
    ///
    /// # Errors
    ///
    /// A server that could not even be killed, or a temporary folder that could not be deleted.
    /// One failure does not keep another server running.
    pub async fn stop(&mut self) -> Result<()> {
        let mock_accounting = async {
            match &mut self.mock_accounting {
                Some(mock_accounting) => mock_accounting.stop().await,
                None => Ok(()),
            }
        };
        let (postgres, rabbitmq, mock_accounting) =
            tokio::join!(self.postgres.stop(), self.rabbitmq.stop(), mock_accounting);
        postgres?;
        rabbitmq?;
        mock_accounting?;
        if let Some(temporary) = self.temporary.take() {
            temporary.close().context("cannot delete the temporary folder of the servers")?;
        }
        Ok(())
    }
}
