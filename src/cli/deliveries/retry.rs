//! `tallyhook deliveries retry`.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    cli::{
        UsageError,
        operator::{ActionArgs, Confirmation, PendingAction, exit_code, print_failures},
    },
    domain::DeliveryState,
    review::deliveries,
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    action: ActionArgs,
}

pub(super) async fn run(store: &Store, arguments: &RetryArgs) -> anyhow::Result<u8> {
    let RetryArgs { filter, action } = arguments;
    let mut filter = filter.filter();
    if filter.state.is_some_and(|state| state != DeliveryState::Failed) {
        bail!(UsageError::new(
            "only failed deliveries can be retried; waiting ones are retried automatically"
        ));
    }
    filter.state = Some(DeliveryState::Failed);
    let selected = deliveries::select(store, action.selection(filter)?).await?;
    let pending = PendingAction {
        noun: "deliveries",
        verb: "retried",
        named_ids: selected.filter().ids.len(),
        always_needs_comment: false,
    };
    if let Confirmation::End(code) = action.confirm(pending, &selected.summary())? {
        return Ok(code);
    }
    let name = action.operator.name();
    let result = deliveries::retry(store, &selected, action.operator.actor(&name)).await?;
    let failures: Vec<String> = result.refused.iter().map(ToString::to_string).collect();
    let retried = result.deliveries.len();
    if action.json {
        let result = json!({
            "replay_id": result.replay_id, "retried": result.deliveries, "failed": failures,
        });
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        let all = retried + failures.len();
        outln!("{retried} of {all} deliveries are retried, with the idempotency keys they had.");
        print_failures(&failures);
    }
    Ok(exit_code(retried, failures.len()))
}
