//! `tallyhook audit`: checks promise P3 (conservation) from tables and queues.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{EXIT_DONE, EXIT_FAILED, output};
use crate::{
    app,
    broker::{BrokerConnection, topology::QueueDepth},
    config::Config,
    store::{Store, deliveries, reconciliation},
};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Number of accepted messages, if known; the sum must equal it.
    #[arg(long, value_name = "N")]
    accepted: Option<i64>,
    /// Number of further messages that may exist: requests that were not
    /// answered with 2xx but were published, for example after a late confirm.
    #[arg(long, value_name = "N", requires = "accepted", default_value_t = 0)]
    uncertain: i64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &AuditArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let mut connection = store.connection().await.context("the database cannot be reached")?;
    let sums = reconciliation::totals(&mut connection).await?;
    let counts = deliveries::count_by_state(&mut connection, true).await?;
    drop(connection);
    let connection = BrokerConnection::open(&config.broker.url, "tallyhook audit").await?;
    let depths = app::topology(config).depths(&connection).await?;
    connection.close().await;
    store.close().await;

    // A replayed dead letter waits, although its receipt says dead.
    let waiting = waiting(&depths, sums.retried + sums.replayed);
    let dead = sums.dead - sums.replayed;
    let accounted = sums.applied + sums.duplicate + sums.stale + sums.ignored + dead + waiting;
    let mut wrong = contradictions(&sums);
    let most = |accepted: i64| accepted.saturating_add(arguments.uncertain);
    let sound = |accepted: i64| (accepted..=most(accepted)).contains(&accounted);
    if let Some(accepted) = arguments.accepted.filter(|accepted| !sound(*accepted)) {
        wrong.push(format!("{accepted} were accepted, but {accounted} are accounted for"));
    }
    if arguments.json {
        let result = json!({
            "accounted": accounted,
            "waiting": waiting,
            "refused_in_queue": in_queues(&depths, &["calls"]),
            "sums": sums,
            "deliveries": counts,
            "queues": depths.iter().map(|depth| (depth.queue.clone(), json!(depth.ready)))
                .collect::<serde_json::Map<_, _>>(),
            "wrong": wrong,
        });
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        print(&sums, &depths, waiting, accounted, arguments.accepted)?;
        print_deliveries(&counts)?;
        match wrong.as_slice() {
            [] => outln!("\nEvery message is accounted for."),
            found => outln!("\nWRONG: {}", found.join("\nWRONG: ")),
        }
    }
    Ok(ExitCode::from(if wrong.is_empty() { EXIT_DONE } else { EXIT_FAILED }))
}

/// Messages without a final outcome. A message that waits for its next attempt
/// has a receipt and is in a queue: it counts once. A message in a worker is
/// in no queue: repeat the audit when no worker is busy.
fn waiting(depths: &[QueueDepth], on_record: i64) -> i64 {
    // Rejected requests that are not logged yet were never accepted.
    in_queues(depths, &["inbound", "retry", "dead", "unrouted"]).max(on_record)
}

fn in_queues(depths: &[QueueDepth], roles: &[&str]) -> i64 {
    let ours = depths.iter().filter(|depth| roles.contains(&depth.role));
    ours.filter_map(|depth| depth.ready).map(i64::from).sum()
}

fn contradictions(sums: &reconciliation::Totals) -> Vec<String> {
    let mut wrong = Vec::new();
    for (count, what) in [
        (
            sums.dead_receipts_without_dead_letter,
            "receipts have the outcome dead and no dead letter",
        ),
        (
            sums.dead_letters_without_dead_receipt,
            "dead letters have a receipt with another outcome",
        ),
        (sums.keys_without_receipt, "keys are in the inbox without a receipt that processed them"),
        (sums.processed_without_key, "receipts were processed without their key in the inbox"),
        (sums.documents_without_receipt, "orders or invoices have no applied receipt"),
        (
            sums.mirrored_without_delivery,
            "invoices are marked as mirrored without a delivered mirror at each destination",
        ),
        (
            sums.delivered_not_marked_mirrored,
            "invoices are mirrored at each destination and not marked as mirrored",
        ),
        (
            sums.dead_letters_contradicting_delivery,
            "dead letters contradict the state of their delivery",
        ),
        (
            sums.failed_deliveries_without_dead_letter,
            "deliveries failed and have no open dead letter",
        ),
    ] {
        if count != 0 {
            wrong.push(format!("{count} {what}"));
        }
    }
    wrong
}

fn print(
    sums: &reconciliation::Totals,
    depths: &[QueueDepth],
    waiting: i64,
    accounted: i64,
    accepted: Option<i64>,
) -> anyhow::Result<()> {
    let mut table = output::table(&["OUTCOME", "MESSAGES"]);
    for (name, count) in [
        ("applied", sums.applied),
        ("duplicate", sums.duplicate),
        ("stale", sums.stale),
        ("ignored", sums.ignored),
        ("dead", sums.dead - sums.replayed),
        ("waiting", waiting),
        ("= accounted for", accounted),
    ] {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    if let Some(accepted) = accepted {
        table.add_row(["accepted".to_owned(), accepted.to_string()]);
    }
    // Not part of the sum: these were answered with a 4xx.
    table.add_row(["rejected".to_owned(), sums.rejected.to_string()]);
    if sums.past_retention > 0 {
        // Included in the rows above.
        table.add_row(["past retention".to_owned(), sums.past_retention.to_string()]);
    }
    outln!("{table}");
    for depth in depths.iter().filter(|depth| depth.ready != Some(0)) {
        let Some(ready) = depth.ready else {
            outln!("the queue {} is missing", depth.queue);
            continue;
        };
        outln!("{ready} ready in {}", depth.queue);
    }
    Ok(())
}

/// Not part of the sum: deliveries of applied changes.
fn print_deliveries(counts: &[deliveries::DeliveryCount]) -> anyhow::Result<()> {
    if counts.is_empty() {
        return Ok(());
    }
    let mut table = output::table(&["DESTINATION", "STATE", "DELIVERIES"]);
    for count in counts {
        table.add_row([count.destination.clone(), count.state.clone(), count.count.to_string()]);
    }
    outln!("\n{table}");
    Ok(())
}
