//! `tallyhook trace`: one document's story.

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
    /// An order or invoice number, a platform's or a target's id, an event or
    /// idempotency key, a receipt or a delivery.
    what: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &TraceArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut connection = store.connection().await.context("the database cannot be reached")?;
    let documents = timeline::documents(&mut connection, &arguments.what).await?;
    let steps = timeline::entries(&mut connection, &arguments.what).await?;
    let deliveries =
        timeline::deliveries(&mut connection, &arguments.what, &documents, &steps).await?;
    drop(connection);
    store.close().await;
    let found = !documents.is_empty() || !steps.is_empty() || !deliveries.is_empty();
    if arguments.json {
        let told = json!({"documents": documents, "messages": steps, "deliveries": deliveries});
        outln!("{}", serde_json::to_string_pretty(&told)?);
    } else if found {
        print(&documents, &steps)?;
        if !deliveries.is_empty() {
            outln!("\ndeliveries\n{}", super::deliveries::table(&deliveries));
        }
    } else {
        outln!("Nothing is known of {:?}.", arguments.what);
    }
    Ok(ExitCode::from(if found { EXIT_DONE } else { EXIT_FAILED }))
}

fn print(
    documents: &[timeline::DocumentState],
    steps: &[timeline::TimelineEntry],
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
    if steps.is_empty() {
        return Ok(());
    }
    let mut table =
        output::table(&["RECEIVED", "TOPIC", "OUTCOME", "ATTEMPTS", "RECEIPT", "ERROR"]);
    for step in steps {
        table.add_row([
            output::timestamp(step.received_at),
            step.topic.clone(),
            step.outcome.clone(),
            step.attempts.to_string(),
            step.receipt_id.to_string(),
            output::truncate(step.error.as_deref().unwrap_or_default(), 60),
        ]);
    }
    outln!("{table}");
    Ok(())
}
