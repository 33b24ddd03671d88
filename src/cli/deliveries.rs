//! `tallyhook deliveries`: list, show, void and retry deliveries to destinations.

mod filter;
mod list;
mod retry;
mod show;
mod void;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

pub(super) use self::list::table;
use crate::{config::Config, store::Store};

#[derive(Debug, Args)]
#[command(after_help = "\
A retry sends the same request with the same idempotency key. To create a document again that was
deleted at the destination, void the delivery and then re-issue it: tallyhook reissue.")]
pub(super) struct DeliveriesArgs {
    #[command(subcommand)]
    command: DeliveriesCommand,
}

#[derive(Debug, Subcommand)]
enum DeliveriesCommand {
    /// List deliveries, the oldest first.
    List(list::DeliveryListArgs),
    /// Show one delivery: request, response and history.
    Show(show::DeliveryShowArgs),
    /// Void deliveries for good. Their idempotency keys are never used again.
    Void(void::VoidArgs),
    /// Send failed deliveries again, with the idempotency keys they had.
    Retry(retry::RetryArgs),
}

pub(super) async fn run(arguments: &DeliveriesArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match &arguments.command {
        DeliveriesCommand::List(arguments) => list::run(&store, arguments).await?,
        DeliveriesCommand::Show(arguments) => show::run(&store, arguments).await?,
        DeliveriesCommand::Void(arguments) => void::run(&store, arguments).await?,
        DeliveriesCommand::Retry(arguments) => retry::run(&store, arguments).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}
