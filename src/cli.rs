//! The command line: one file per command.

/// Prints a line to standard output. A closed pipe is an error, which `main`
/// recognises.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        writeln!(std::io::stdout(), $($text)*)?;
    }};
}

mod audit;
mod bench;
mod check;
mod dead;
mod deliveries;
mod import;
mod operator;
mod output;
mod quarantine;
mod receiver_url;
mod reissue;
mod send;
mod source;
mod trace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    app::{App, Components, Roles, stop_signal},
    config::{Config, LoadOptions},
    domain::ReasonCode,
    observability::telemetry,
    store::Store,
    tools::dev,
};

/// Exit code: everything was done.
pub(crate) const EXIT_DONE: u8 = 0;
/// Exit code: nothing was done.
pub(crate) const EXIT_FAILED: u8 = 1;
/// Exit code: the arguments are wrong or incomplete, and nothing was done.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Exit code: a part was done.
pub(crate) const EXIT_PARTLY: u8 = 3;

/// Wrong or incomplete arguments that clap cannot detect. Nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    fn new(message: &(impl ToString + ?Sized)) -> Self {
        Self(message.to_string())
    }
}

/// Parses the code of a dead letter's reason.
fn reason_code(text: &str) -> Result<String, String> {
    if text.parse::<ReasonCode>().is_ok() {
        return Ok(text.to_owned());
    }
    let codes = ReasonCode::ALL.map(ReasonCode::as_str).join(", ");
    Err(format!("unknown reason; one of {codes}"))
}

/// Tallyhook: a webhook inbox. Orders and invoices in, exactly once.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 partly done.
Every setting can be given as TALLYHOOK__SECTION__KEY in the environment."
)]
pub struct Arguments {
    /// The configuration file; it overrides the built-in defaults.
    #[arg(long, global = true, env = "TALLYHOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service: receiver and worker, or only one of them.
    Serve {
        /// Run only this role.
        #[arg(long, value_enum)]
        only: Option<Role>,
    },
    /// Run everything for development, with private servers, until Ctrl-C.
    Dev {
        /// Folder for the servers' data [default: a temporary folder]
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Write the addresses to this file as JSON, once everything runs.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
        /// Also start a mock accounting server and mirror imported invoices to
        /// it; one creation in ten gets no response.
        #[arg(long)]
        with_mock_accounting: bool,
    },
    /// Update the database's schema.
    Migrate,
    /// Check configuration, database and broker.
    Check(check::CheckArgs),
    /// List the configured sources, or set up another one.
    Source(source::SourceArgs),
    /// Sign and post webhooks as a platform does.
    Send(send::SendArgs),
    Import(import::ImportArgs),
    /// Dead letters: list, show, replay, discard, export, drain.
    Dead(dead::DeadArgs),
    /// Deliveries to destinations: list, show, void, retry.
    Deliveries(deliveries::DeliveriesArgs),
    /// Issue a voided delivery again, with a new idempotency key.
    Reissue(reissue::ReissueArgs),
    /// Requests with an invalid signature: list, show, release, discard.
    Quarantine(quarantine::QuarantineArgs),
    /// Check from tables and queues that no message is missing.
    Audit(audit::AuditArgs),
    /// Show the timeline of an order, invoice, event key, receipt or delivery.
    Trace(trace::TraceArgs),
    Bench(bench::BenchArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Receiver,
    Worker,
}

impl Arguments {
    /// Runs the command.
    ///
    /// # Errors
    /// [`UsageError`]: exit code 2. Any other error: exit code 1.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let file = self.config.as_deref();
        // Without a file, operators' commands know the development sources, so
        // that they work beside `tallyhook dev`.
        let mock_accounting = std::env::var(dev::ACCOUNTING_URL).ok().filter(|_| file.is_none());
        let load = || {
            let mock_accounting = mock_accounting.as_deref();
            Components::load(LoadOptions { file, development: file.is_none(), mock_accounting })
        };
        let load_config = || load().map(|(config, _)| config);
        match self.command {
            Command::Serve { only } => {
                serve(&Config::load(LoadOptions { file, ..LoadOptions::default() })?, only).await
            }
            Command::Dev { dir, ready_file, with_mock_accounting } => {
                let config = self.config;
                dev::run(dev::DevOptions { config, dir, ready_file, with_mock_accounting }).await?;
                Ok(ExitCode::from(EXIT_DONE))
            }
            Command::Migrate => migrate(&load_config()?).await,
            Command::Check(arguments) => {
                let loaded = Components::load(LoadOptions { file, ..LoadOptions::default() });
                check::run(&arguments, loaded).await
            }
            Command::Source(arguments) => source::run(&arguments, file, load),
            Command::Send(arguments) => {
                let (config, components) = load()?;
                send::run(arguments, &config, &components).await
            }
            Command::Import(arguments) => {
                let (config, components) = load()?;
                import::run(arguments, &config, &components).await
            }
            Command::Dead(arguments) => dead::run(arguments, &load_config()?).await,
            Command::Deliveries(arguments) => deliveries::run(&arguments, &load_config()?).await,
            Command::Reissue(arguments) => {
                let (config, components) = load()?;
                reissue::run(&arguments, &config, &components).await
            }
            Command::Quarantine(arguments) => {
                let (config, components) = load()?;
                quarantine::run(arguments, &config, &components).await
            }
            Command::Audit(arguments) => audit::run(&arguments, &load_config()?).await,
            Command::Trace(arguments) => trace::run(&arguments, &load_config()?).await,
            // Boxed because its future is much larger than the others.
            Command::Bench(arguments) => Box::pin(bench::run(&arguments, load_config()?)).await,
        }
    }
}

async fn serve(config: &Config, only: Option<Role>) -> anyhow::Result<ExitCode> {
    telemetry::init(&config.log)?;
    let roles = match only {
        None => Roles::ALL,
        Some(Role::Receiver) => Roles { receiver: true, worker: false },
        Some(Role::Worker) => Roles { receiver: false, worker: true },
    };
    let service = App::start(config, roles).await?;
    stop_signal().await?;
    service.stop().await;
    Ok(ExitCode::from(EXIT_DONE))
}

async fn migrate(config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let version = store.server_version().await.context("the database cannot be reached")?;
    if version < check::MIN_POSTGRES_VERSION {
        bail!("PostgreSQL 15 or later is needed; this is {}", version / 10_000);
    }
    let pending = store.pending_migrations().await?;
    store.migrate().await.context("a migration failed")?;
    match pending.as_slice() {
        [] => outln!("The schema is up to date."),
        names => outln!("applied {}", names.join("\napplied ")),
    }
    store.close().await;
    Ok(ExitCode::from(EXIT_DONE))
}
