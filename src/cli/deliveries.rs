//! `tallyhook deliveries`: what other systems hear, and what became of it.

mod actions;
mod queries;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::{
    app::Components,
    config::Config,
    domain::DeliveryState,
    store::{Store, deliveries::DeliveryFilter},
};
pub(super) use actions::ReissueArgs;
pub(super) use queries::table;

#[derive(Debug, Args)]
#[command(after_help = "\
A retry sends the same again under the key it had. A re-issue is another delivery under another
key: for what the target made and somebody deleted there. Void first, then re-issue.")]
pub(super) struct DeliveriesArgs {
    #[command(subcommand)]
    act: DeliveriesCommand,
}

#[derive(Debug, Subcommand)]
enum DeliveriesCommand {
    /// List deliveries, the oldest first.
    List {
        #[command(flatten)]
        which: Which,
        /// In this state.
        #[arg(long, value_parser = state)]
        state: Option<DeliveryState>,
        /// Show at most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one delivery: what was sent and answered, and its history.
    Show {
        /// Its id.
        id: Uuid,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take deliveries back, for good. Its key is never used again.
    Void(actions::VoidArgs),
    /// Issue a voided delivery anew, of the document as it is now, under
    /// another key.
    Reissue(ReissueArgs),
    /// Have failed deliveries tried again, under the keys they had.
    Retry(actions::RetryArgs),
}

/// Which deliveries: every condition must hold.
#[derive(Debug, Args)]
struct Which {
    /// To this target.
    #[arg(long)]
    target: Option<String>,
    /// Of documents of this source.
    #[arg(long)]
    source: Option<String>,
    /// The document's number or id, the target's id of it, the key, the receipt
    /// that made it, or the delivery's id.
    #[arg(long)]
    number: Option<String>,
}

impl Which {
    fn filter(&self, ids: &[Uuid], state: Option<DeliveryState>) -> DeliveryFilter {
        let Self { target, source, number } = self;
        DeliveryFilter {
            ids: ids.to_vec(),
            state,
            destination: target.clone(),
            source: source.clone(),
            reason: None,
            number: number.clone(),
        }
    }
}

fn state(word: &str) -> Result<DeliveryState, String> {
    word.parse::<DeliveryState>().map_err(|_| {
        let words: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
        format!("no such state; one of {}", words.join(", "))
    })
}

/// A reason that is one.
fn why(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("it goes on record: say why".to_owned()),
        reason => Ok(reason.to_owned()),
    }
}

pub(super) async fn run(
    arguments: &DeliveriesArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match &arguments.act {
        DeliveriesCommand::List { which, state, limit, json } => {
            queries::list(&store, &which.filter(&[], *state), *limit, *json).await?
        }
        DeliveriesCommand::Show { id, json } => queries::show_one(&store, *id, *json).await?,
        DeliveriesCommand::Void(arguments) => actions::void(&store, arguments).await?,
        DeliveriesCommand::Reissue(arguments) => {
            actions::reissue(&store, components, arguments).await?
        }
        DeliveriesCommand::Retry(arguments) => actions::retry(&store, arguments).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}

/// `tallyhook reissue`, which is the same as `tallyhook deliveries reissue`.
pub(super) async fn reissue(
    arguments: &ReissueArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = actions::reissue(&store, components, arguments).await?;
    store.close().await;
    Ok(ExitCode::from(code))
}
