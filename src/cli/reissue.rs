//! `tallyhook reissue`: a new delivery for a voided one, with a new idempotency key.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use uuid::Uuid;

use super::{EXIT_DONE, operator::OperatorArgs, output};
use crate::{
    app::Components,
    config::Config,
    review::deliveries::{self, DeliveryError, LookupFinding, ReissueResult},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct ReissueArgs {
    /// The voided delivery.
    id: Uuid,
    /// Confirm that the destination does not have the document. This overrides
    /// the result of the look-up and goes into the audit log.
    #[arg(long)]
    gone: bool,
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(
    arguments: &ReissueArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    arguments.operator.require_comment()?;
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let name = arguments.operator.name();
    let actor = arguments.operator.actor(&name);
    let result =
        deliveries::reissue(&store, &components.destinations, arguments.id, arguments.gone, actor)
            .await;
    store.close().await;
    let result = match result {
        Ok(result) => result,
        Err(
            error
            @ (DeliveryError::StillAtDestination { .. } | DeliveryError::MayStillExist { .. }),
        ) => bail!(
            "{error}. Nothing was re-issued. If you have checked that it is gone there, use --gone"
        ),
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        print(arguments.id, &result)?;
    }
    Ok(ExitCode::from(EXIT_DONE))
}

fn print(voided: Uuid, result: &ReissueResult) -> anyhow::Result<()> {
    let ReissueResult { delivery, key, lookup, .. } = result;
    let destination = &delivery.destination;
    if let LookupFinding::Found { remote_id } = lookup {
        let remote_id = remote_id.as_ref().map_or_else(String::new, |id| format!(" as {id}"));
        eprintln!(
            "WARNING: {destination} still shows it{}. It was re-issued because of --gone; if it \
             is not gone, {destination} will have it twice.",
            output::strip_control_chars(&remote_id)
        );
    }
    outln!(
        "re-issued: delivery {}, issue {}, to {destination}, in place of {voided}",
        delivery.delivery_id,
        delivery.issue
    );
    if let Some(key) = key {
        outln!("Its idempotency key is {key}.");
    }
    outln!(
        "The key is derived from the document and the issue number: {destination} has never seen \
         it.\nEvery attempt of this delivery sends the same key; only another re-issue changes it."
    );
    Ok(())
}
