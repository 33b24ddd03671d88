//! `tallyhook quarantine release`.

use clap::Args;
use serde_json::json;

use super::filter::FilterArgs;
use crate::{
    app::Components,
    cli::operator::{
        ActionArgs, Confirmation, PendingAction, error_text, exit_code, print_failures,
    },
    config::Config,
    observability::metrics::Metrics,
    review::{
        OperatorBroker,
        quarantine::{Release, ReleaseReport, select},
    },
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    action: ActionArgs,
}

pub(super) async fn run(
    store: &Store,
    config: &Config,
    components: &Components,
    arguments: &ReleaseArgs,
) -> anyhow::Result<u8> {
    let ReleaseArgs { filter, action } = arguments;
    let selected = select(store, action.selection(filter.filter())?).await?;
    let pending = PendingAction {
        noun: "requests",
        verb: "released",
        named_ids: selected.filter().ids.len(),
        always_needs_comment: false,
    };
    if let Confirmation::End(code) = action.confirm(pending, &selected.summary())? {
        return Ok(code);
    }
    let broker = OperatorBroker::connect(&config.broker, Metrics::new()?).await?;
    let name = action.operator.name();
    let release = Release {
        store,
        sources: &components.sources,
        broker: &broker,
        actor: action.operator.actor(&name),
    };
    let ReleaseReport { released, events, failures } = release.selected(&selected).await;
    let failures: Vec<String> = failures.into_iter().map(error_text).collect();
    if action.json {
        let result = json!({"released": released, "events": events, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        outln!(
            "{released} of {} requests were released, with {events} events.",
            released + failures.len()
        );
        print_failures(&failures);
    }
    Ok(exit_code(released, failures.len()))
}
