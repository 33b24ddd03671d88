//! Acting on quarantined calls: release, discard.

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::{
    app::Components,
    cli::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY, operator},
    config::Config,
    observability::metrics::Metrics,
    review::{
        Actor, OperatorBroker, Selection,
        quarantine::{self, Release, ReleaseReport, SelectedRequests},
    },
    store::{Store, quarantine::QuarantineFilter},
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
async fn selection(
    store: &Store,
    act: &Act,
    reason_always: bool,
) -> anyhow::Result<SelectedRequests> {
    let filter = QuarantineFilter { ids: act.ids.clone(), source: act.source.clone() };
    let found = quarantine::select(store, Selection::new(filter, act.all)?).await?;
    let named = act.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    ensure!(
        named || !(reason_always || found.len() > 1),
        "{} calls are meant; say why with --reason",
        found.len()
    );
    Ok(found)
}

pub(super) async fn release(
    store: &Store,
    config: &Config,
    components: &Components,
    act: &Act,
) -> anyhow::Result<u8> {
    let calls = selection(store, act, false).await?;
    let broker = OperatorBroker::connect(&config.broker, Metrics::new()?).await?;
    let name = operator::actor(act.actor.as_ref());
    let release = Release {
        store,
        sources: &components.sources,
        broker: &broker,
        actor: Actor { name: &name, comment: act.reason.as_deref().unwrap_or("") },
    };
    let ReleaseReport { released, events, failures } = release.selected(&calls).await;
    let failures: Vec<String> =
        failures.into_iter().map(|error| format!("{:#}", anyhow::Error::from(error))).collect();
    let requested = calls.len() + calls.missing_ids().len();
    if act.json {
        let result = json!({"released": released, "events": events, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!("{released} of {requested} calls were released; {events} events were sent in.");
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
    let requested = calls.len() + calls.missing_ids().len();
    if act.json {
        outln!("{}", json!({"selected": requested, "discarded": discarded}));
    } else {
        outln!("{discarded} of {requested} calls were discarded.");
    }
    Ok(match (discarded, requested as u64) {
        (done, all) if done == all => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    })
}
