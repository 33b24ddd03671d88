//! The command line: one file a command family.

/// Prints a line to standard output; whoever reads it may have gone away,
/// which is an error as any other, and told from them in `main`.
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
mod send;
mod source;
mod trace;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    app::{App, Components, Roles, stop_signal},
    config::{Config, LoadOptions},
    observability::telemetry,
    store::Store,
    tools::dev,
};

/// Everything was done.
pub(crate) const EXIT_DONE: u8 = 0;
/// It failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// It was asked for in a way that makes no sense.
pub(crate) const EXIT_USAGE: u8 = 2;
/// Some of it was done.
pub(crate) const EXIT_PARTLY: u8 = 3;

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
    /// The configuration, over the built-in defaults.
    #[arg(long, global = true, env = "TALLYHOOK_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve webhooks: receiver and worker, or only one of them.
    Serve {
        /// Serve this role only.
        #[arg(long, value_enum)]
        only: Option<Role>,
    },
    /// Try it out: private servers, all roles, stopped with Ctrl-C.
    Dev {
        /// Keep the servers' data here; default a temporary folder.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Write the addresses here as JSON, once everything serves.
        #[arg(long, value_name = "PATH")]
        ready_file: Option<PathBuf>,
        /// Also start a mock accounting server and mirror imported invoices to
        /// it; one creation in ten gets no response.
        #[arg(long)]
        with_mock_accounting: bool,
    },
    /// Bring the database's schema up to date.
    Migrate,
    /// Say in plain words what is wrong, and where.
    Check(check::CheckArgs),
    /// Sources: list them, or set one up: its settings and the platform's steps.
    Source(source::SourceArgs),
    /// Sign and post webhooks as a platform would.
    Send(send::SendArgs),
    /// Import a file of invoices, and wait for what becomes of each line.
    Import(import::ImportArgs),
    /// Dead letters: list, show, replay, discard, export, drain.
    Dead(dead::DeadArgs),
    /// What other systems hear: list, show, void, reissue, retry.
    Deliveries(deliveries::DeliveriesArgs),
    /// Issue a voided delivery anew, under another key, as `deliveries reissue`.
    Reissue(deliveries::ReissueArgs),
    /// Forged calls that were kept: list, show, release, discard.
    Quarantine(quarantine::QuarantineArgs),
    /// Prove from tables and queues that no message is missing.
    Audit(audit::AuditArgs),
    /// Tell the story of an order, an invoice, an event key, a receipt or a delivery.
    Trace(trace::TraceArgs),
    Bench(bench::BenchArgs),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    Receiver,
    Worker,
}

impl Arguments {
    /// Carries the command out.
    ///
    /// # Errors
    /// What went wrong; the process exits with 1.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let file = self.config.as_deref();
        // Commands for people know the development sources too, so that they
        // work beside `tallyhook dev` without a file.
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
            Command::Deliveries(arguments) => {
                let (config, components) = load()?;
                deliveries::run(&arguments, &config, &components).await
            }
            Command::Reissue(arguments) => {
                let (config, components) = load()?;
                deliveries::reissue(&arguments, &config, &components).await
            }
            Command::Quarantine(arguments) => {
                let (config, components) = load()?;
                quarantine::run(arguments, &config, &components).await
            }
            Command::Audit(arguments) => audit::run(&arguments, &load_config()?).await,
            Command::Trace(arguments) => trace::run(&arguments, &load_config()?).await,
            // By far the largest of them, and the others need not make room for it.
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
