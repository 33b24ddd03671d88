//! `tallyhook dead replay`.

use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    cli::operator::{
        ActionArgs, Confirmation, PendingAction, error_text, exit_code, print_failures,
    },
    config::Config,
    observability::metrics::Metrics,
    review::{OperatorBroker, dead_letters},
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
    let broker = OperatorBroker::connect(&config.broker, Metrics::new()?).await?;
    let name = action.operator.name();
    let report =
        dead_letters::replay(store, &broker, &selected, action.operator.actor(&name)).await?;
    let failures: Vec<String> = report.failures.into_iter().map(error_text).collect();
    if action.json {
        let result =
            json!({"replay_id": report.replay_id, "sent": report.sent, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!(
            "{} of {} dead letters were sent (replay {}).",
            report.sent,
            selected.len(),
            report.replay_id
        );
        outln!("They are resolved once a worker has applied them, or a destination has them:");
        outln!("tallyhook dead list --state all");
        print_failures(&failures);
    }
    Ok(exit_code(report.sent, failures.len()))
}
