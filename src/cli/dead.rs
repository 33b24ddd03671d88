//! `tallyhook dead`: list, show, replay, discard, export and archive dead letters.

mod discard;
mod drain;
mod export;
mod filter;
mod list;
mod replay;
mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::operator::error_text;
use crate::{
    config::Config,
    review::dead_letters::{ReviewError, SelectedDeadLetters},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List dead letters, the oldest first.
    List(list::DeadListArgs),
    /// Show one dead letter with its payload and history.
    Show(show::DeadShowArgs),
    /// Publish dead letters again, with the event keys they had. The dead
    /// letter of a delivery has its delivery sent again.
    Replay(replay::ReplayArgs),
    /// Close dead letters for good. They stay on record. The dead letter of a
    /// delivery has its delivery voided.
    Discard(discard::DiscardArgs),
    /// Write dead letters with their payloads as JSON lines.
    Export(export::ExportArgs),
    /// Move messages from the broker's dead-letter queue into the table, as
    /// the worker does: for when no worker runs.
    Drain(drain::DrainArgs),
}

pub(super) async fn run(arguments: DeadArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match arguments.command {
        DeadCommand::List(arguments) => list::run(&store, &arguments).await?,
        DeadCommand::Show(arguments) => show::run(&store, &arguments).await?,
        DeadCommand::Replay(arguments) => replay::run(&store, config, &arguments).await?,
        DeadCommand::Discard(arguments) => discard::run(&store, &arguments).await?,
        DeadCommand::Export(arguments) => export::run(&store, &arguments).await?,
        DeadCommand::Drain(arguments) => drain::run(&store, config, &arguments).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}

/// A failure for each id that the operator named and the selection did not find.
fn missing_ids(selected: &SelectedDeadLetters) -> Vec<String> {
    selected.missing_ids().into_iter().map(|id| error_text(ReviewError::NotSelected(id))).collect()
}
