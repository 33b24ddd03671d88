//! Looking at deliveries: list, show.

use comfy_table::Table;
use uuid::Uuid;

use crate::{
    cli::{DONE, show},
    review::deliveries::{self, Shown},
    store::{
        Store,
        deliveries::{Delivery, Filter},
    },
};

pub(super) async fn list(
    store: &Store,
    filter: &Filter,
    limit: u32,
    json: bool,
) -> anyhow::Result<u8> {
    let found = deliveries::list(store, filter, limit).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(DONE);
    }
    if found.is_empty() {
        say!("No such deliveries.");
        return Ok(DONE);
    }
    say!("{}", table(&found));
    if found.len() == limit as usize {
        say!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(DONE)
}

/// Deliveries, one a row.
pub(in crate::cli) fn table(deliveries: &[Delivery]) -> Table {
    let mut table = show::table(&[
        "DELIVERY", "WRITTEN", "TARGET", "EVENT", "NUMBER", "ISSUE", "STATE", "THERE AS", "NOTE",
    ]);
    for delivery in deliveries {
        let note = delivery.void_reason.as_ref().or(delivery.error.as_ref());
        let note = note.or(delivery.warning.as_ref()).map_or("", String::as_str);
        table.add_row([
            delivery.delivery_id.to_string(),
            show::moment(delivery.created_at),
            delivery.target.clone(),
            delivery.event.clone(),
            delivery.document_number.clone().unwrap_or_default(),
            delivery.generation.to_string(),
            delivery.state.clone(),
            show::harmless(delivery.remote_id.as_deref().unwrap_or_default()),
            show::harmless(&show::brief(note, 60)),
        ]);
    }
    table
}

pub(super) async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let shown = deliveries::show(store, id).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(DONE);
    }
    print(&shown)?;
    Ok(DONE)
}

fn print(shown: &Shown) -> anyhow::Result<()> {
    let delivery = &shown.delivery;
    let text = |text: &Option<String>| show::harmless(text.as_deref().unwrap_or_default());
    let moment = |at: Option<time::OffsetDateTime>| at.map_or_else(String::new, show::moment);
    let mut table = show::table(&["", ""]);
    for (name, value) in [
        ("delivery", delivery.delivery_id.to_string()),
        ("target", delivery.target.clone()),
        ("event", delivery.event.clone()),
        ("mirror", if delivery.mirror { "it ticks the invoice off" } else { "" }.to_owned()),
        ("source", delivery.source.clone()),
        ("tenant", delivery.tenant.clone()),
        ("document", delivery.document_id.clone()),
        ("number", delivery.document_number.clone().unwrap_or_default()),
        ("issue", delivery.generation.to_string()),
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
        ("written", show::moment(delivery.created_at)),
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
    say!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for issue in shown.issues.iter().filter(|issue| issue.delivery_id != delivery.delivery_id) {
        say!("\nissue {} of it is {}: {}", issue.generation, issue.state, issue.delivery_id);
    }
    for act in &shown.acts {
        say!("\n{} {} by {}: {}", show::moment(act.at), act.act, act.actor, act.reason);
        if act.detail.as_object().is_some_and(|detail| !detail.is_empty()) {
            say!("  {}", act.detail);
        }
    }
    say!("\ndocument {}", serde_json::to_string_pretty(&shown.contents.document)?);
    for (name, body) in
        [("request", &shown.contents.request), ("response", &shown.contents.response)]
    {
        if let Some(body) = body {
            say!("\n{name} ({} bytes)\n{}", body.len(), show::harmless(body));
        }
    }
    Ok(())
}

/// When it is tried next, while it waits.
fn next_attempt(delivery: &Delivery) -> String {
    match delivery.state.as_str() {
        "pending" | "uncertain" => show::moment(delivery.next_attempt_at),
        _ => String::new(),
    }
}

fn letter(shown: &Shown) -> String {
    let letter = shown.dead_letter.as_ref();
    letter.map_or_else(String::new, |letter| {
        format!("{} {}, {}", letter.dead_letter_id, letter.state, letter.reason)
    })
}
