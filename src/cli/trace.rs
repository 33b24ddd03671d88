//! `tallyhook trace`: the timeline of a document.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{EXIT_DONE, EXIT_FAILED, output};
use crate::{
    config::Config,
    store::{Store, timeline},
};

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// An order or invoice number, a platform's or destination's id, an event or
    /// idempotency key, a receipt, or a delivery.
    what: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &TraceArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut connection = store.connection().await.context("the database cannot be reached")?;
    let documents = timeline::documents(&mut connection, &arguments.what).await?;
    let entries = timeline::entries(&mut connection, &arguments.what).await?;
    let deliveries =
        timeline::deliveries(&mut connection, &arguments.what, &documents, &entries).await?;
    drop(connection);
    store.close().await;
    let found = !documents.is_empty() || !entries.is_empty() || !deliveries.is_empty();
    if arguments.json {
        let result = json!({"documents": documents, "messages": entries, "deliveries": deliveries});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else if found {
        print(&documents, &entries)?;
        if !deliveries.is_empty() {
            outln!("\ndeliveries\n{}", super::deliveries::table(&deliveries));
        }
    } else {
        outln!("Nothing is on record for {:?}.", arguments.what);
    }
    Ok(ExitCode::from(if found { EXIT_DONE } else { EXIT_FAILED }))
}

fn print(
    documents: &[timeline::DocumentState],
    entries: &[timeline::TimelineEntry],
) -> anyhow::Result<()> {
    for document in documents {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        outln!(
            "{} {} of {} {}: {} ({}), {} {}, version {}{}",
            document.kind,
            text(&document.number),
            document.source,
            document.tenant,
            text(&document.status),
            text(&document.platform_status),
            text(&document.total),
            text(&document.currency),
            document.version.map_or_else(|| "-".to_owned(), output::timestamp),
            document
                .deleted_at
                .map_or_else(String::new, |at| { format!(", deleted {}", output::timestamp(at)) }),
        );
    }
    if entries.is_empty() {
        return Ok(());
    }
    let mut table =
        output::table(&["RECEIVED", "TOPIC", "OUTCOME", "ATTEMPTS", "RECEIPT", "ERROR"]);
    for entry in entries {
        table.add_row([
            output::timestamp(entry.received_at),
            entry.topic.clone(),
            entry.outcome.clone(),
            entry.attempts.to_string(),
            entry.receipt_id.to_string(),
            output::truncate(entry.error.as_deref().unwrap_or_default(), 60),
        ]);
    }
    outln!("{table}");
    Ok(())
}
