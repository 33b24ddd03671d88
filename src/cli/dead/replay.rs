//! `tallyhook dead replay`.

use clap::Args;
use serde_json::json;

use super::{filter::FilterArgs, missing_ids};
use crate::{
    cli::operator::{
        ActionArgs, Confirmation, PendingAction, error_text, exit_code, print_failures,
    },
    config::Config,
    observability::metrics::Metrics,
    review::{
        OperatorBroker,
        dead_letters::{self, ReplayReport},
    },
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    action: ActionArgs,
}

pub(super) async fn run(
    store: &Store,
    config: &Config,
    arguments: &ReplayArgs,
) -> anyhow::Result<u8> {
    let ReplayArgs { filter, action } = arguments;
    let selected = dead_letters::select(store, action.selection(filter.filter())?).await?;
    let pending = PendingAction {
        noun: "dead letters",
        verb: "replayed",
        named_ids: selected.filter().ids.len(),
        always_needs_comment: false,
    };
    if let Confirmation::End(code) = action.confirm(pending, &selected.summary())? {
        return Ok(code);
    }
    if selected.is_empty() {
        let failures = missing_ids(&selected);
        if action.json {
            let result = json!({"replay_id": null, "sent": 0, "failed": failures});
            outln!("{}", serde_json::to_string_pretty(&result)?);
        } else {
            outln!("0 of {} dead letters were sent.", failures.len());
            print_failures(&failures);
        }
        return Ok(exit_code(0, failures.len()));
    }
    let broker = OperatorBroker::connect(&config.broker, Metrics::new()?).await?;
    let name = action.operator.name();
    let ReplayReport { replay_id, sent, failures } =
        dead_letters::replay(store, &broker, &selected, action.operator.actor(&name)).await?;
    let failures: Vec<String> = failures.into_iter().map(error_text).collect();
    if action.json {
        let result = json!({"replay_id": replay_id, "sent": sent, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        let count = sent + failures.len();
        outln!("{sent} of {count} dead letters were sent (replay {replay_id}).");
        outln!("They are resolved once a worker has applied them, or a destination has them:");
        outln!("tallyhook dead list --state all");
        print_failures(&failures);
    }
    Ok(exit_code(sent, failures.len()))
}
