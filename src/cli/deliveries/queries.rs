//! Looking at deliveries: list, show.

use comfy_table::Table;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, output},
    review::{deliveries, deliveries::DeliveryDetail},
    store::{
        Store,
        deliveries::{Delivery, DeliveryFilter},
    },
};

pub(super) async fn list(
    store: &Store,
    filter: &DeliveryFilter,
    limit: u32,
    json: bool,
) -> anyhow::Result<u8> {
    let found = deliveries::list(store, filter, limit).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(EXIT_DONE);
    }
    if found.is_empty() {
        outln!("No such deliveries.");
        return Ok(EXIT_DONE);
    }
    outln!("{}", table(&found));
    if found.len() == limit as usize {
        outln!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(EXIT_DONE)
}

/// Deliveries, one a row.
pub(in crate::cli) fn table(deliveries: &[Delivery]) -> Table {
    let mut table = output::table(&[
        "DELIVERY", "WRITTEN", "TARGET", "EVENT", "NUMBER", "ISSUE", "STATE", "THERE AS", "NOTE",
    ]);
    for delivery in deliveries {
        let note = delivery.void_comment.as_ref().or(delivery.error.as_ref());
        let note = note.or(delivery.warning.as_ref()).map_or("", String::as_str);
        table.add_row([
            delivery.delivery_id.to_string(),
            output::timestamp(delivery.created_at),
            delivery.destination.clone(),
            delivery.event.clone(),
            delivery.document_number.clone().unwrap_or_default(),
            delivery.issue.to_string(),
            delivery.state.clone(),
            output::strip_control_chars(delivery.remote_id.as_deref().unwrap_or_default()),
            output::strip_control_chars(&output::truncate(note, 60)),
        ]);
    }
    table
}

pub(super) async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let shown = deliveries::show(store, id).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(EXIT_DONE);
    }
    print(&shown)?;
    Ok(EXIT_DONE)
}

fn print(shown: &DeliveryDetail) -> anyhow::Result<()> {
    let delivery = &shown.delivery;
    let text =
        |text: &Option<String>| output::strip_control_chars(text.as_deref().unwrap_or_default());
    let moment = |at: Option<time::OffsetDateTime>| at.map_or_else(String::new, output::timestamp);
    let mut table = output::table(&["", ""]);
    for (name, value) in [
        ("delivery", delivery.delivery_id.to_string()),
        ("target", delivery.destination.clone()),
        ("event", delivery.event.clone()),
        ("mirror", if delivery.is_mirror { "it ticks the invoice off" } else { "" }.to_owned()),
        ("source", delivery.source.clone()),
        ("tenant", delivery.tenant.clone()),
        ("document", delivery.document_id.clone()),
        ("number", delivery.document_number.clone().unwrap_or_default()),
        ("issue", delivery.issue.to_string()),
        ("state", delivery.state.clone()),
        ("key", delivery.idempotency_key.map_or_else(String::new, |key| key.to_string())),
        ("attempts failed", delivery.attempts.to_string()),
        (
            "answered",
            delivery.response_status.map_or_else(String::new, |status| status.to_string()),
        ),
        ("there as", text(&delivery.remote_id)),
        ("error", text(&delivery.error)),
        ("warning", text(&delivery.warning)),
        ("written", output::timestamp(delivery.created_at)),
        ("first sent", moment(delivery.first_sent_at)),
        ("next attempt", next_attempt(delivery)),
        ("delivered", moment(delivery.delivered_at)),
        ("voided", moment(delivery.voided_at)),
        ("dead letter", letter(shown)),
    ] {
        if !value.is_empty() {
            table.add_row([name.to_owned(), value]);
        }
    }
    outln!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for issue in shown.issues.iter().filter(|issue| issue.delivery_id != delivery.delivery_id) {
        outln!("\nissue {} of it is {}: {}", issue.issue, issue.state, issue.delivery_id);
    }
    for act in &shown.history {
        outln!("\n{} {} by {}: {}", output::timestamp(act.at), act.action, act.actor, act.comment);
        if act.detail.as_object().is_some_and(|detail| !detail.is_empty()) {
            outln!("  {}", act.detail);
        }
    }
    outln!("\ndocument {}", serde_json::to_string_pretty(&shown.contents.document)?);
    for (name, body) in
        [("request", &shown.contents.request), ("response", &shown.contents.response)]
    {
        if let Some(body) = body {
            outln!("\n{name} ({} bytes)\n{}", body.len(), output::strip_control_chars(body));
        }
    }
    Ok(())
}

/// When it is tried next, while it waits.
fn next_attempt(delivery: &Delivery) -> String {
    match delivery.state.as_str() {
        "pending" | "uncertain" => output::timestamp(delivery.next_attempt_at),
        _ => String::new(),
    }
}

fn letter(shown: &DeliveryDetail) -> String {
    let letter = shown.dead_letter.as_ref();
    letter.map_or_else(String::new, |letter| {
        format!("{} {}, {}", letter.dead_letter_id, letter.state, letter.reason)
    })
}
