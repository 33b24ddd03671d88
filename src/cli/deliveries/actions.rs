//! Acting on deliveries: void, re-issue, retry.

use anyhow::{bail, ensure};
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::{Which, queries, state, why};
use crate::{
    app::Components,
    cli::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY, operator, output},
    domain::DeliveryState,
    review::{
        Actor, Selection,
        deliveries::{self, DeliveryError, LookupFinding, ReissueResult},
    },
    store::{
        Store,
        deliveries::{Delivery, DeliveryFilter},
    },
};

#[derive(Debug, Args)]
pub(super) struct VoidArgs {
    /// These deliveries.
    #[arg(value_name = "ID", required_unless_present = "number")]
    ids: Vec<Uuid>,
    /// The one delivery of this number (or document, or target's id, or key).
    #[arg(long, conflicts_with = "ids")]
    number: Option<String>,
    /// To this target.
    #[arg(long, requires = "number")]
    target: Option<String>,
    /// Why; goes on record.
    #[arg(long, value_name = "WHY", value_parser = why)]
    reason: String,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReissueArgs {
    /// The voided delivery.
    id: Uuid,
    /// Why; goes on record.
    #[arg(long, value_name = "WHY", value_parser = why)]
    reason: String,
    /// You have looked at the target, and it does not have it: outweighs what
    /// it says when it is asked. Goes on record.
    #[arg(long)]
    gone: bool,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// These deliveries.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    #[command(flatten)]
    which: Which,
    /// Those in this state: only what failed is tried again.
    #[arg(long, value_parser = state)]
    state: Option<DeliveryState>,
    /// Why; goes on record. Needed for more than one.
    #[arg(long, value_name = "WHY", value_parser = why)]
    reason: Option<String>,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Only show which deliveries would be meant.
    #[arg(long)]
    dry_run: bool,
    /// Take every failed delivery, when no condition is given.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn void(store: &Store, arguments: &VoidArgs) -> anyhow::Result<u8> {
    let ids = match &arguments.number {
        Some(number) => vec![the_one(store, number, arguments.target.as_ref()).await?],
        None => arguments.ids.clone(),
    };
    let name = operator::actor(arguments.actor.as_ref());
    let actor = Actor { name: &name, comment: &arguments.reason };
    let mut voided = Vec::new();
    let mut failures = Vec::new();
    for id in &ids {
        match deliveries::void(store, *id, actor).await {
            Ok(delivery) => voided.push(delivery),
            Err(error) => failures.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    if arguments.json {
        let result = json!({"voided": voided, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        for delivery in &voided {
            print_voided(delivery)?;
        }
        for failure in &failures {
            eprintln!("failed: {failure}");
        }
    }
    Ok(code(voided.len(), failures.len()))
}

/// The only delivery of a number that can still be voided.
async fn the_one(store: &Store, number: &str, target: Option<&String>) -> anyhow::Result<Uuid> {
    let filter = DeliveryFilter {
        number: Some(number.to_owned()),
        destination: target.cloned(),
        ..DeliveryFilter::default()
    };
    let mut found = deliveries::list(store, &filter, u32::MAX).await?;
    found.retain(|delivery| delivery.state != DeliveryState::Voided.as_str());
    match found.as_slice() {
        [one] => Ok(one.delivery_id),
        [] => bail!("no delivery of {number:?} is left to void"),
        several => bail!(
            "{} deliveries are meant; name one by its id\n{}",
            several.len(),
            queries::table(several)
        ),
    }
}

fn print_voided(delivery: &Delivery) -> anyhow::Result<()> {
    let Delivery { delivery_id, event, destination: target, .. } = delivery;
    let number = delivery.document_number.as_ref().unwrap_or(&delivery.document_id);
    outln!("voided: {delivery_id}, {event} of {number} to {target}");
    match (&delivery.remote_id, delivery.first_sent_at, delivery.delivered_at) {
        (Some(remote_id), ..) => {
            outln!(
                "It was there as {}. Nothing was deleted there.",
                output::strip_control_chars(remote_id)
            );
        }
        (None, Some(_), None) => {
            outln!(
                "It was sent, and never confirmed: {target} may have it all the same; look there."
            );
        }
        _ => {}
    }
    outln!("To issue it anew, under another key: tallyhook reissue {delivery_id} --reason WHY");
    Ok(())
}

pub(super) async fn reissue(
    store: &Store,
    components: &Components,
    arguments: &ReissueArgs,
) -> anyhow::Result<u8> {
    let name = operator::actor(arguments.actor.as_ref());
    let actor = Actor { name: &name, comment: &arguments.reason };
    let reissued =
        deliveries::reissue(store, &components.destinations, arguments.id, arguments.gone, actor)
            .await;
    let reissued = match reissued {
        Ok(reissued) => reissued,
        Err(
            error
            @ (DeliveryError::StillAtDestination { .. } | DeliveryError::MayStillExist { .. }),
        ) => bail!(
            "{error}. Nothing was re-issued. If you have looked, and it is gone there: --gone"
        ),
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&reissued)?);
    } else {
        print_reissued(arguments.id, &reissued)?;
    }
    Ok(EXIT_DONE)
}

fn print_reissued(old: Uuid, reissued: &ReissueResult) -> anyhow::Result<()> {
    let ReissueResult { delivery, key, lookup, .. } = reissued;
    let target = &delivery.destination;
    if let LookupFinding::Found { remote_id } = lookup {
        let shown = remote_id.as_ref().map_or_else(String::new, |id| format!(" as {id}"));
        eprintln!(
            "WARNING: {target} still shows it{}. It was re-issued because you said that it is \
             gone; if it is not, {target} will have it twice.",
            output::strip_control_chars(&shown)
        );
    }
    outln!(
        "re-issued: delivery {}, generation {}, to {target}, instead of {old}",
        delivery.delivery_id,
        delivery.issue
    );
    if let Some(key) = key {
        outln!("Its key is {key}.");
    }
    outln!(
        "The key is made of the document and the generation: {target} has never seen it and takes \
         it as new,\nand every attempt of this delivery sends the same one. Only another re-issue \
         changes it."
    );
    Ok(())
}

pub(super) async fn retry(store: &Store, arguments: &RetryArgs) -> anyhow::Result<u8> {
    let RetryArgs { ids, which, state, all, dry_run, json, .. } = arguments;
    ensure!(
        state.is_none_or(|state| state == DeliveryState::Failed),
        "only what failed is tried again; what waits is tried by itself"
    );
    let filter = which.filter(ids, Some(DeliveryState::Failed));
    let selected = deliveries::select(store, Selection::new(filter, *all)?).await?;
    if *dry_run {
        if *json {
            let ids: Vec<Uuid> = selected.rows().iter().map(|row| row.delivery_id).collect();
            outln!("{}", json!({"dry_run": true, "deliveries": ids}));
        } else {
            outln!(
                "{} deliveries would be tried again.\n{}",
                selected.len(),
                queries::table(selected.rows())
            );
        }
        return Ok(EXIT_DONE);
    }
    let meant = selected.len() + selected.missing_ids().len();
    let reason = arguments.reason.as_deref().unwrap_or_default();
    ensure!(meant < 2 || !reason.is_empty(), "{meant} deliveries are meant; say why with --reason");
    let name = operator::actor(arguments.actor.as_ref());
    let actor = Actor { name: &name, comment: reason };
    let retried = deliveries::retry(store, &selected, actor).await?;
    let refused: Vec<String> = retried.refused.iter().map(ToString::to_string).collect();
    if *json {
        let result = json!({
            "replay_id": retried.replay_id, "retried": retried.deliveries, "failed": refused,
        });
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        let done = retried.deliveries.len();
        outln!("{done} of {meant} deliveries are tried again, under the keys they had.");
        for failure in &refused {
            eprintln!("failed: {failure}");
        }
    }
    Ok(code(retried.deliveries.len(), refused.len()))
}

fn code(done: usize, failed: usize) -> u8 {
    match (done, failed) {
        (_, 0) => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    }
}
