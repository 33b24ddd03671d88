//! `tallyhook quarantine discard`.

use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    cli::operator::{ActionArgs, Confirmation, PendingAction, exit_code},
    review::quarantine,
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
    let selected = quarantine::select(store, action.selection(filter.filter())?).await?;
    let pending = PendingAction {
        noun: "requests",
        verb: "discarded",
        named_ids: selected.filter().ids.len(),
        always_needs_comment: true,
    };
    if let Confirmation::End(code) = action.confirm(pending, &selected.summary())? {
        return Ok(code);
    }
    let name = action.operator.name();
    let discarded = quarantine::discard(store, &selected, action.operator.actor(&name)).await?;
    let count = selected.len() + selected.missing_ids().len();
    if action.json {
        outln!("{}", json!({"selected": count, "discarded": discarded}));
    } else {
        outln!("{discarded} of {count} requests were discarded.");
    }
    let discarded = usize::try_from(discarded).unwrap_or(usize::MAX);
    Ok(exit_code(discarded, count.saturating_sub(discarded)))
}
