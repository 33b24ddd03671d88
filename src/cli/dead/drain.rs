//! `tallyhook dead drain`.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::{cli::EXIT_DONE, config::Config, review::dead_letter_queue, store::Store};

/// The dead-letter queue counts as empty when no message has come for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// Count the messages in the queue and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    store: &Store,
    config: &Config,
    arguments: &DrainArgs,
) -> anyhow::Result<u8> {
    if arguments.dry_run {
        let waiting = dead_letter_queue::count(&config.broker).await?;
        if arguments.json {
            outln!("{}", json!({"waiting": waiting}));
        } else {
            outln!("{waiting} messages are in the dead-letter queue.");
        }
    } else {
        let drained = dead_letter_queue::drain(&config.broker, store, IDLE_TIMEOUT).await?;
        if arguments.json {
            outln!("{}", json!({"drained": drained}));
        } else {
            outln!("{drained} messages were moved from the dead-letter queue into the table.");
        }
    }
    Ok(EXIT_DONE)
}
