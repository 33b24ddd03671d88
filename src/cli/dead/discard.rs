//! `tallyhook dead discard`.

use clap::Args;
use serde_json::json;

use super::{filter::FilterArgs, missing_ids};
use crate::{
    cli::operator::{ActionArgs, Confirmation, PendingAction, exit_code, print_failures},
    review::dead_letters,
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    action: ActionArgs,
}

pub(super) async fn run(store: &Store, arguments: &DiscardArgs) -> anyhow::Result<u8> {
    let DiscardArgs { filter, action } = arguments;
    let selected = dead_letters::select(store, action.selection(filter.filter())?).await?;
    let pending = PendingAction {
        noun: "dead letters",
        verb: "discarded",
        named_ids: selected.filter().ids.len(),
        always_needs_comment: true,
    };
    if let Confirmation::End(code) = action.confirm(pending, &selected.summary())? {
        return Ok(code);
    }
    let name = action.operator.name();
    let discarded = dead_letters::discard(store, &selected, action.operator.actor(&name)).await?;
    let failures = missing_ids(&selected);
    let count = selected.len() + failures.len();
    if action.json {
        let result = json!({"selected": count, "discarded": discarded, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!("{discarded} of {count} dead letters were discarded; they stay on record.");
        print_failures(&failures);
    }
    let discarded = usize::try_from(discarded).unwrap_or(usize::MAX);
    Ok(exit_code(discarded, count.saturating_sub(discarded)))
}
