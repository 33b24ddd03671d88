//! `tallyhook dead`: what waits for a person.

mod actions;
mod filter;
mod queries;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::{config::Config, store::Store};
use actions::Act;
use filter::{Which, reason};

#[derive(Debug, Args)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    act: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, the longest waiting first.
    List {
        #[command(flatten)]
        which: Which,
        /// Dead for this reason.
        #[arg(long, value_name = "CODE", value_parser = reason)]
        reason: Option<String>,
        /// Show at most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter with its payload and history.
    Show {
        /// Its id.
        id: Uuid,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send dead letters in again, with the keys they had. Those of deliveries
    /// are sent to their targets again.
    Replay {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        act: Act,
    },
    /// Close dead letters for good. They stay on record. Those of deliveries
    /// have their deliveries voided.
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        act: Act,
    },
    /// Write dead letters with their payloads as JSON lines.
    Export {
        #[command(flatten)]
        which: Which,
        /// Dead for this reason.
        #[arg(long, value_name = "CODE", value_parser = reason)]
        reason: Option<String>,
        /// The file; default standard output.
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Bring what waits in the broker's dead-letter queue into the table, as
    /// the worker does all the time: for when no worker runs.
    Drain {
        /// Only count what waits.
        #[arg(long)]
        dry_run: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(arguments: DeadArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match arguments.act {
        DeadCommand::List { which, reason, limit, json } => {
            queries::list(&store, &which.filter(reason.as_ref()), limit, json).await?
        }
        DeadCommand::Show { id, json } => queries::show_one(&store, id, json).await?,
        DeadCommand::Replay { which, act } => actions::replay(&store, config, &which, &act).await?,
        DeadCommand::Discard { which, act } => actions::discard(&store, &which, &act).await?,
        DeadCommand::Export { which, reason, output } => {
            queries::export(&store, &which.filter(reason.as_ref()), output).await?
        }
        DeadCommand::Drain { dry_run, json } => {
            actions::drain(&store, config, dry_run, json).await?
        }
    };
    store.close().await;
    Ok(ExitCode::from(code))
}
