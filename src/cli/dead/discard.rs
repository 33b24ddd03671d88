//! `tallyhook dead discard`.

use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    cli::operator::{ActionArgs, Confirmation, PendingAction, exit_code},
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
    if action.json {
        outln!("{}", json!({"selected": selected.len(), "discarded": discarded}));
    } else {
        outln!(
            "{discarded} of {} dead letters were discarded; they stay on record.",
            selected.len()
        );
    }
    let discarded = usize::try_from(discarded).unwrap_or(usize::MAX);
    Ok(exit_code(discarded, selected.len().saturating_sub(discarded)))
}
