//! `tallyhook quarantine`: list, show, release and discard requests whose
//! signature did not verify.

mod discard;
mod filter;
mod list;
mod release;
mod show;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::{app::Components, config::Config, store::Store};

#[derive(Debug, Args)]
#[command(after_help = "\
Requests are stored for sources with `quarantine_limit = N`: the newest N, at most one per second,
and none with a body above 256 KiB.")]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List requests that no configured secret had signed, the oldest first.
    List(list::QuarantineListArgs),
    /// Show one request with its headers and body, without credentials.
    Show(show::QuarantineShowArgs),
    /// Verify requests again with the current secrets and publish those that
    /// are authentic. The others stay.
    Release(release::ReleaseArgs),
    /// Delete requests.
    Discard(discard::DiscardArgs),
}

pub(super) async fn run(
    arguments: QuarantineArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match arguments.command {
        QuarantineCommand::List(arguments) => list::run(&store, &arguments).await?,
        QuarantineCommand::Show(arguments) => show::run(&store, &arguments).await?,
        QuarantineCommand::Release(arguments) => {
            release::run(&store, config, components, &arguments).await?
        }
        QuarantineCommand::Discard(arguments) => discard::run(&store, &arguments).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}
