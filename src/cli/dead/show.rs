//! `tallyhook dead show`.

use clap::Args;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, output},
    review::dead_letters::{self, DeadLetterDetail},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct DeadShowArgs {
    /// The dead letter's id.
    id: Uuid,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(store: &Store, arguments: &DeadShowArgs) -> anyhow::Result<u8> {
    let detail = dead_letters::show(store, arguments.id).await?;
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&detail)?);
    } else {
        print(&detail)?;
    }
    Ok(EXIT_DONE)
}

fn print(detail: &DeadLetterDetail) -> anyhow::Result<()> {
    let summary = &detail.summary;
    let is_delivery = summary.delivery_id.is_some();
    let outcome = summary.outcome.clone().unwrap_or_default();
    outln!(
        "{}",
        output::fields(&[
            ("dead letter", summary.dead_letter_id.to_string()),
            // The dead letter of a delivery has the delivery's id here.
            (if is_delivery { "delivery" } else { "receipt" }, summary.receipt_id.to_string()),
            ("destination", summary.destination.clone().unwrap_or_default()),
            (if is_delivery { "idempotency key" } else { "event key" }, summary.event_key.clone()),
            ("source", summary.source.clone()),
            ("tenant", summary.tenant.clone()),
            ("topic", summary.topic.clone()),
            ("number", summary.business_key.clone().unwrap_or_default()),
            ("reason", summary.reason.clone()),
            ("error", summary.error.clone()),
            ("attempts", summary.attempts.to_string()),
            ("state", format!("{} {outcome}", summary.state)),
            ("received", output::timestamp(detail.received_at)),
            ("first failed", output::timestamp(summary.first_failed_at)),
            ("last failed", output::timestamp(summary.last_failed_at)),
        ])
    );
    output::print_history(&detail.history)?;
    outln!("\nheaders {}", serde_json::to_string_pretty(&detail.headers)?);
    let payload = detail.payload.as_ref().or(detail.payload_base64.as_ref());
    outln!(
        "\n{} ({} bytes)\n{}",
        if is_delivery { "request" } else { "payload" },
        summary.payload_bytes,
        payload.map_or("", String::as_str)
    );
    if let (Some(id), Some(response)) = (summary.delivery_id, detail.headers["response"].as_str()) {
        outln!("\nresponse ({} bytes)\n{}", response.len(), output::strip_control_chars(response));
        outln!("\nFor the whole delivery: tallyhook deliveries show {id}");
    }
    Ok(())
}
