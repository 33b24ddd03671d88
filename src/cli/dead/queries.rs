//! Looking at dead letters: list, show, export.

use std::{io::IsTerminal as _, path::PathBuf};

use anyhow::Context as _;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, output},
    review::dead_letters,
    store::{
        Store,
        dead_letters::{DeadLetterFilter, DeadLetterSummary},
    },
};

pub(super) async fn list(
    store: &Store,
    filter: &DeadLetterFilter,
    limit: u32,
    json: bool,
) -> anyhow::Result<u8> {
    let letters = dead_letters::list(store, filter, limit).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&letters)?);
        return Ok(EXIT_DONE);
    }
    if letters.is_empty() {
        outln!("No dead letters{}.", filter.state.as_ref().map_or("", |_| " in this state"));
        return Ok(EXIT_DONE);
    }
    print_letters(&letters)?;
    if letters.len() == limit as usize {
        outln!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(EXIT_DONE)
}

fn print_letters(letters: &[DeadLetterSummary]) -> anyhow::Result<()> {
    // Only some are of deliveries.
    let has_target = letters.iter().any(|letter| letter.destination.is_some());
    let mut table = output::table(&[
        "ID",
        "FIRST FAILED",
        if has_target { "SOURCE > TARGET" } else { "SOURCE" },
        "TOPIC",
        "NUMBER",
        "REASON",
        "STATE",
        "ERROR",
    ]);
    for letter in letters {
        table.add_row([
            letter.dead_letter_id.to_string(),
            output::timestamp(letter.first_failed_at),
            letter.destination.as_ref().map_or_else(
                || letter.source.clone(),
                |target| format!("{} > {target}", letter.source),
            ),
            letter.topic.clone(),
            letter.business_key.clone().unwrap_or_default(),
            letter.reason.clone(),
            letter.outcome.as_ref().map_or_else(
                || letter.state.clone(),
                |outcome| format!("{}: {outcome}", letter.state),
            ),
            output::truncate(&letter.error, 60),
        ]);
    }
    outln!("{table}");
    Ok(())
}

pub(super) async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let letter = dead_letters::show(store, id).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&letter)?);
        return Ok(EXIT_DONE);
    }
    let summary = &letter.summary;
    let mut table = output::table(&["", ""]);
    let outcome = summary.outcome.clone().unwrap_or_default();
    let (what, key) = match summary.delivery_id {
        Some(_) => ("delivery", "idempotency key"),
        None => ("receipt", "event key"),
    };
    table.add_row(["dead letter".to_owned(), summary.dead_letter_id.to_string()]);
    // Of a delivery it is the delivery's id.
    table.add_row([what.to_owned(), summary.receipt_id.to_string()]);
    if let Some(target) = &summary.destination {
        table.add_row(["target", target]);
    }
    for (name, value) in [
        (key, summary.event_key.clone()),
        ("source", summary.source.clone()),
        ("tenant", summary.tenant.clone()),
        ("topic", summary.topic.clone()),
        ("number", summary.business_key.clone().unwrap_or_default()),
        ("reason", summary.reason.clone()),
        ("error", summary.error.clone()),
        ("attempts", summary.attempts.to_string()),
        ("state", format!("{} {outcome}", summary.state)),
        ("received", output::timestamp(letter.received_at)),
        ("first failed", output::timestamp(summary.first_failed_at)),
        ("last failed", output::timestamp(summary.last_failed_at)),
    ] {
        table.add_row([name, value.trim_end()]);
    }
    outln!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for act in &letter.history {
        outln!("\n{} {} by {}: {}", output::timestamp(act.at), act.action, act.actor, act.comment);
    }
    outln!("\nheaders {}", serde_json::to_string_pretty(&letter.headers)?);
    let body = if summary.delivery_id.is_some() { "request" } else { "payload" };
    let payload = letter.payload.or(letter.payload_base64).unwrap_or_default();
    outln!("\n{body} ({} bytes)\n{payload}", summary.payload_bytes);
    if let (Some(id), Some(response)) = (summary.delivery_id, letter.headers["response"].as_str()) {
        outln!("\nresponse ({} bytes)\n{}", response.len(), output::strip_control_chars(response));
        outln!("\nAll of it: tallyhook deliveries show {id}");
    }
    Ok(EXIT_DONE)
}

pub(super) async fn export(
    store: &Store,
    filter: &DeadLetterFilter,
    output: Option<PathBuf>,
) -> anyhow::Result<u8> {
    let mut out: Box<dyn std::io::Write> = match &output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    let exported = dead_letters::export(store, filter, &mut out).await?;
    if std::io::stderr().is_terminal() {
        eprintln!("{exported} letters");
    }
    Ok(EXIT_DONE)
}
