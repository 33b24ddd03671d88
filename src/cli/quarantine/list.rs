//! `tallyhook quarantine list`.

use clap::Args;
use comfy_table::Table;

use super::filter::FilterArgs;
use crate::{
    cli::{EXIT_DONE, operator::ListArgs, output},
    review::quarantine,
    store::{Store, quarantine::QuarantineSummary},
};

#[derive(Debug, Args)]
pub(super) struct QuarantineListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    list: ListArgs,
}

pub(super) async fn run(store: &Store, arguments: &QuarantineListArgs) -> anyhow::Result<u8> {
    let rows = quarantine::list(store, &arguments.filter.filter(), arguments.list.limit).await?;
    arguments.list.print(&rows, "No quarantined requests.", table)?;
    Ok(EXIT_DONE)
}

fn table(rows: &[QuarantineSummary]) -> Table {
    let mut table = output::table(&["ID", "RECEIVED", "SOURCE", "BYTES", "ERROR"]);
    for row in rows {
        table.add_row([
            row.receipt_id.to_string(),
            output::timestamp(row.received_at),
            row.source.clone(),
            row.payload_bytes.to_string(),
            output::truncate(&row.error, 80),
        ]);
    }
    table
}
