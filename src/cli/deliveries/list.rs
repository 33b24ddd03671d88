//! `tallyhook deliveries list`.

use clap::Args;
use comfy_table::Table;

use super::filter::FilterArgs;
use crate::{
    cli::{EXIT_DONE, operator::ListArgs, output},
    review::deliveries,
    store::{Store, deliveries::Delivery},
};

#[derive(Debug, Args)]
pub(super) struct DeliveryListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    list: ListArgs,
}

pub(super) async fn run(store: &Store, arguments: &DeliveryListArgs) -> anyhow::Result<u8> {
    let rows = deliveries::list(store, &arguments.filter.filter(), arguments.list.limit).await?;
    arguments.list.print(&rows, "No deliveries.", table)?;
    Ok(EXIT_DONE)
}

/// A table of deliveries.
pub(in crate::cli) fn table(rows: &[Delivery]) -> Table {
    let mut table = output::table(&[
        "DELIVERY",
        "CREATED",
        "DESTINATION",
        "EVENT",
        "NUMBER",
        "ISSUE",
        "STATE",
        "REMOTE ID",
        "NOTE",
    ]);
    for row in rows {
        let note = row.void_comment.as_ref().or(row.error.as_ref()).or(row.warning.as_ref());
        let note = output::truncate(note.map_or("", String::as_str), 60);
        table.add_row([
            row.delivery_id.to_string(),
            output::timestamp(row.created_at),
            row.destination.clone(),
            row.event.clone(),
            row.document_number.clone().unwrap_or_default(),
            row.issue.to_string(),
            row.state.clone(),
            output::strip_control_chars(row.remote_id.as_deref().unwrap_or_default()),
            output::strip_control_chars(&note),
        ]);
    }
    table
}
