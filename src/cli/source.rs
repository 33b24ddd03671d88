//! `tallyhook source`: list the configured sources, or set up another one.

mod add;
mod list;
mod setup_guides;

use std::{path::Path, process::ExitCode};

use clap::{Args, Subcommand};

use super::EXIT_DONE;
use crate::{app::Components, config::Config};

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// Write a source's settings, and list the steps on the platform's side.
    ///
    /// With --config FILE the settings are appended to that file, which is
    /// created if it does not exist; without it they are printed.
    Add(add::AddArgs),
    /// List the configured sources.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// # Errors
/// The file cannot be written, or has the source already.
pub(super) fn run(
    arguments: &SourceArgs,
    file: Option<&Path>,
    load: impl FnOnce() -> anyhow::Result<(Config, Components)>,
) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        SourceCommand::Add(arguments) => add::run(arguments, file)?,
        SourceCommand::List { json } => list::run(&load()?.1, *json)?,
    }
    Ok(ExitCode::from(EXIT_DONE))
}
