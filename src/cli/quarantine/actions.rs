//! Acting on quarantined calls: release, discard.

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY, operator},
    config::Config,
    review::{quarantine, quarantine::Release},
    store::{Store, audit_log::Actor, quarantine::QuarantineFilter},
};

/// Which calls, and how an act of a person is carried out.
#[derive(Debug, Args)]
pub(super) struct Act {
    /// These calls only.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Every call that came in at this source.
    #[arg(long)]
    source: Option<String>,
    /// Every call, when neither ids nor a source are given.
    #[arg(long)]
    all: bool,
    /// Why; goes on record. Needed for discarding, and for releasing more
    /// than one.
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The calls that an act means, frozen.
async fn selection(store: &Store, act: &Act, reason_always: bool) -> anyhow::Result<Vec<Uuid>> {
    ensure!(
        !act.ids.is_empty() || act.source.is_some() || act.all,
        "this would mean every call; name some, give --source, or say --all"
    );
    let filter = QuarantineFilter { ids: act.ids.clone(), source: act.source.clone() };
    let calls = quarantine::list(store, &filter, u32::MAX).await?;
    let found: Vec<Uuid> = calls.into_iter().map(|call| call.receipt_id).collect();
    let named = act.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    ensure!(
        named || !(reason_always || found.len() > 1),
        "{} calls are meant; say why with --reason",
        found.len()
    );
    // What was named and is not there must be told, not passed over.
    let missing = act.ids.iter().filter(|id| !found.contains(id)).copied();
    let missing: Vec<Uuid> = missing.collect();
    Ok(found.into_iter().chain(missing).collect())
}

pub(super) async fn release(store: &Store, config: &Config, act: &Act) -> anyhow::Result<u8> {
    let calls = selection(store, act, false).await?;
    let (publisher, topology, _stop) = operator::connect_publisher(config).await?;
    let name = operator::actor(act.actor.as_ref());
    let release = Release {
        store,
        sources: &config.sources,
        publisher: &publisher,
        topology: &topology,
        actor: Actor { name: &name, comment: act.reason.as_deref().unwrap_or("") },
    };
    let mut released = 0;
    let mut events = 0;
    let mut failures = Vec::new();
    for id in &calls {
        match release.request(*id).await {
            Ok(sent) => {
                released += 1;
                events += sent;
            }
            Err(error) => failures.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    if act.json {
        let result = json!({"released": released, "events": events, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!("{released} of {} calls were released; {events} events were sent in.", calls.len());
        for failure in &failures {
            eprintln!("failed: {failure}");
        }
    }
    Ok(match (released, failures.len()) {
        (_, 0) => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    })
}

pub(super) async fn discard(store: &Store, act: &Act) -> anyhow::Result<u8> {
    let calls = selection(store, act, true).await?;
    let name = operator::actor(act.actor.as_ref());
    let actor = Actor { name: &name, comment: act.reason.as_deref().unwrap_or("") };
    let discarded = quarantine::discard(store, &calls, actor).await?;
    if act.json {
        outln!("{}", json!({"selected": calls.len(), "discarded": discarded}));
    } else {
        outln!("{discarded} of {} calls were discarded.", calls.len());
    }
    Ok(match (discarded, calls.len() as u64) {
        (done, all) if done == all => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    })
}
