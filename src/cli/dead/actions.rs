//! Acting on dead letters: replay, discard, drain.

use std::{collections::BTreeMap, time::Duration};

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::filter::{Which, reason};
use crate::{
    cli::{EXIT_DONE, EXIT_FAILED, EXIT_PARTLY, operator},
    config::Config,
    observability::metrics::Metrics,
    review::{
        Actor, OperatorBroker, Selection, dead_letter_queue,
        dead_letters::{self, SelectedDeadLetters},
    },
    store::Store,
};

/// The dead-letter queue counts as empty when no message has come for this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How an act of a person is carried out.
#[derive(Debug, Args)]
pub(super) struct Act {
    /// Dead for this reason.
    #[arg(long, value_name = "CODE", value_parser = reason)]
    reason_code: Option<String>,
    /// Why; goes on record. Needed for discarding, and for replaying more
    /// than one.
    #[arg(long, value_name = "WHY")]
    reason: Option<String>,
    /// Who; goes on record. Default: the user of this session.
    #[arg(long = "by", value_name = "WHO", env = "TALLYHOOK_OPERATOR")]
    actor: Option<String>,
    /// Only show which letters would be meant.
    #[arg(long)]
    dry_run: bool,
    /// Take every open letter, when no condition is given.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The letters that an act means, frozen, and the reason given for it.
async fn selection(
    store: &Store,
    which: &Which,
    act: &Act,
    reason_always: bool,
) -> anyhow::Result<SelectedDeadLetters> {
    let selection = Selection::new(which.filter(act.reason_code.as_ref()), act.all)?;
    let letters = dead_letters::select(store, selection).await?;
    let named = act.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    let needs_reason = reason_always || letters.len() > 1;
    ensure!(
        act.dry_run || !needs_reason || named,
        "{} letters are meant; say why with --reason",
        letters.len()
    );
    Ok(letters)
}

/// Shows what an act would mean, counted by reason.
fn preview(verb: &str, letters: &SelectedDeadLetters, json: bool) -> anyhow::Result<u8> {
    let by_reason: BTreeMap<String, usize> = letters.summary().reasons.into_iter().collect();
    if json {
        let preview = json!({"dry_run": true, "letters": letters.len(), "by_reason": by_reason});
        outln!("{}", serde_json::to_string_pretty(&preview)?);
        return Ok(EXIT_DONE);
    }
    outln!("{} letters would be {verb}:", letters.len());
    for (reason, count) in by_reason {
        outln!("{count:>8}  {reason}");
    }
    Ok(EXIT_DONE)
}

pub(super) async fn replay(
    store: &Store,
    config: &Config,
    which: &Which,
    act: &Act,
) -> anyhow::Result<u8> {
    let letters = selection(store, which, act, false).await?;
    if act.dry_run {
        return preview("replayed", &letters, act.json);
    }
    let broker = OperatorBroker::connect(&config.broker, Metrics::new()?).await?;
    let name = operator::actor(act.actor.as_ref());
    let reason = act.reason.as_deref().unwrap_or("");
    let actor = Actor { name: &name, comment: reason };
    let run = dead_letters::replay(store, &broker, &letters, actor).await?;
    let sent = run.sent;
    let failures: Vec<String> =
        run.failures.into_iter().map(|error| format!("{:#}", anyhow::Error::from(error))).collect();
    if act.json {
        let result = json!({"replay_id": run.replay_id, "sent": sent, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!("{sent} of {} letters were sent in again (run {}).", letters.len(), run.replay_id);
        outln!("They are resolved once a worker has applied them, or a target has them:");
        outln!("tallyhook dead list --state all");
        for failure in &failures {
            eprintln!("failed: {failure}");
        }
    }
    Ok(match (sent, failures.len()) {
        (_, 0) => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    })
}

pub(super) async fn discard(store: &Store, which: &Which, act: &Act) -> anyhow::Result<u8> {
    let letters = selection(store, which, act, true).await?;
    if act.dry_run {
        return preview("discarded", &letters, act.json);
    }
    let name = operator::actor(act.actor.as_ref());
    let actor = Actor { name: &name, comment: act.reason.as_deref().unwrap_or("") };
    let discarded = dead_letters::discard(store, &letters, actor).await?;
    if act.json {
        outln!("{}", json!({"selected": letters.len(), "discarded": discarded}));
    } else {
        outln!("{discarded} of {} letters were discarded; they stay on record.", letters.len());
    }
    Ok(match (discarded, letters.len() as u64) {
        (done, all) if done == all => EXIT_DONE,
        (0, _) => EXIT_FAILED,
        _ => EXIT_PARTLY,
    })
}

pub(super) async fn drain(
    store: &Store,
    config: &Config,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<u8> {
    if dry_run {
        let waiting = dead_letter_queue::count(&config.broker).await?;
        if json {
            outln!("{}", json!({"waiting": waiting}));
        } else {
            outln!("{waiting} messages wait in the dead-letter queue.");
        }
        return Ok(EXIT_DONE);
    }
    let drained = dead_letter_queue::drain(&config.broker, store, IDLE_TIMEOUT).await?;
    if json {
        outln!("{}", json!({"drained": drained}));
    } else {
        outln!("{drained} messages were moved from the dead-letter queue into the table.");
    }
    Ok(EXIT_DONE)
}
