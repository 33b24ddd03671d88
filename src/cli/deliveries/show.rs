//! `tallyhook deliveries show`.

use clap::Args;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, output},
    review::deliveries::{self, DeliveryDetail},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct DeliveryShowArgs {
    /// The delivery's id.
    id: Uuid,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(store: &Store, arguments: &DeliveryShowArgs) -> anyhow::Result<u8> {
    let detail = deliveries::show(store, arguments.id).await?;
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&detail)?);
    } else {
        print(&detail)?;
    }
    Ok(EXIT_DONE)
}

fn print(detail: &DeliveryDetail) -> anyhow::Result<()> {
    let delivery = &detail.delivery;
    let text =
        |text: &Option<String>| output::strip_control_chars(text.as_deref().unwrap_or_default());
    let time = |at: Option<time::OffsetDateTime>| at.map_or_else(String::new, output::timestamp);
    let is_waiting = matches!(delivery.state.as_str(), "pending" | "uncertain");
    let dead_letter = detail.dead_letter.as_ref().map_or_else(String::new, |row| {
        format!("{} {}, {}", row.dead_letter_id, row.state, row.reason)
    });
    outln!(
        "{}",
        output::fields(&[
            ("delivery", delivery.delivery_id.to_string()),
            ("destination", delivery.destination.clone()),
            ("event", delivery.event.clone()),
            (
                "mirror",
                if delivery.is_mirror {
                    "yes: its success marks the invoice as mirrored"
                } else {
                    ""
                }
                .to_owned(),
            ),
            ("source", delivery.source.clone()),
            ("tenant", delivery.tenant.clone()),
            ("document", delivery.document_id.clone()),
            ("number", delivery.document_number.clone().unwrap_or_default()),
            ("issue", delivery.issue.to_string()),
            ("state", delivery.state.clone()),
            (
                "idempotency key",
                delivery.idempotency_key.map_or_else(String::new, |key| key.to_string()),
            ),
            ("failed attempts", delivery.attempts.to_string()),
            (
                "response status",
                delivery.response_status.map_or_else(String::new, |status| status.to_string()),
            ),
            ("remote id", text(&delivery.remote_id)),
            ("error", text(&delivery.error)),
            ("warning", text(&delivery.warning)),
            ("created", output::timestamp(delivery.created_at)),
            ("first sent", time(delivery.first_sent_at)),
            ("next attempt", time(is_waiting.then_some(delivery.next_attempt_at))),
            ("delivered", time(delivery.delivered_at)),
            ("voided", time(delivery.voided_at)),
            ("dead letter", dead_letter),
        ])
    );
    for issue in detail.issues.iter().filter(|issue| issue.delivery_id != delivery.delivery_id) {
        outln!("\nissue {} is {}: {}", issue.issue, issue.state, issue.delivery_id);
    }
    output::print_history(&detail.history)?;
    outln!("\ndocument {}", serde_json::to_string_pretty(&detail.contents.document)?);
    for (name, body) in
        [("request", &detail.contents.request), ("response", &detail.contents.response)]
    {
        if let Some(body) = body {
            outln!("\n{name} ({} bytes)\n{}", body.len(), output::strip_control_chars(body));
        }
    }
    Ok(())
}
