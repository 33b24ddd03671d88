//! `tallyhook dead list`.

use clap::Args;
use comfy_table::Table;

use super::filter::FilterArgs;
use crate::{
    cli::{EXIT_DONE, operator::ListArgs, output},
    review::dead_letters,
    store::{Store, dead_letters::DeadLetterSummary},
};

#[derive(Debug, Args)]
pub(super) struct DeadListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    list: ListArgs,
}

pub(super) async fn run(store: &Store, arguments: &DeadListArgs) -> anyhow::Result<u8> {
    let filter = arguments.filter.filter();
    let rows = dead_letters::list(store, &filter, arguments.list.limit).await?;
    let none = filter.state.map_or_else(
        || "No dead letters.".to_owned(),
        |state| format!("No dead letters in state {state}."),
    );
    arguments.list.print(&rows, &none, table)?;
    Ok(EXIT_DONE)
}

fn table(rows: &[DeadLetterSummary]) -> Table {
    // Only dead letters of deliveries have a destination.
    let has_destination = rows.iter().any(|row| row.destination.is_some());
    let mut table = output::table(&[
        "ID",
        "FIRST FAILED",
        if has_destination { "SOURCE > DESTINATION" } else { "SOURCE" },
        "TOPIC",
        "NUMBER",
        "REASON",
        "STATE",
        "ERROR",
    ]);
    for row in rows {
        table.add_row([
            row.dead_letter_id.to_string(),
            output::timestamp(row.first_failed_at),
            row.destination.as_ref().map_or_else(
                || row.source.clone(),
                |destination| format!("{} > {destination}", row.source),
            ),
            row.topic.clone(),
            row.business_key.clone().unwrap_or_default(),
            row.reason.clone(),
            row.outcome
                .as_ref()
                .map_or_else(|| row.state.clone(), |outcome| format!("{}: {outcome}", row.state)),
            output::truncate(&row.error, 60),
        ]);
    }
    table
}
