//! Looking at dead letters: list, show, export.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use uuid::Uuid;

use crate::{
    cli::{DONE, show},
    review,
    store::{
        Store,
        dead_letters::{Filter, Summary},
    },
};

pub(super) async fn list(
    store: &Store,
    filter: &Filter,
    limit: u32,
    json: bool,
) -> anyhow::Result<u8> {
    let letters = review::list(store, filter, limit).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&letters)?);
        return Ok(DONE);
    }
    if letters.is_empty() {
        say!("No dead letters{}.", filter.state.as_ref().map_or("", |_| " in this state"));
        return Ok(DONE);
    }
    print_letters(&letters)?;
    if letters.len() == limit as usize {
        say!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(DONE)
}

fn print_letters(letters: &[Summary]) -> anyhow::Result<()> {
    // Only some are of deliveries.
    let has_target = letters.iter().any(|letter| letter.target.is_some());
    let mut table = show::table(&[
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
            show::moment(letter.first_failed_at),
            letter.target.as_ref().map_or_else(
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
            show::brief(&letter.error, 60),
        ]);
    }
    say!("{table}");
    Ok(())
}

pub(super) async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let letter = review::show(store, id).await?;
    if json {
        say!("{}", serde_json::to_string_pretty(&letter)?);
        return Ok(DONE);
    }
    let summary = &letter.summary;
    let mut table = show::table(&["", ""]);
    let outcome = summary.outcome.clone().unwrap_or_default();
    let (what, key) = match summary.delivery_id {
        Some(_) => ("delivery", "idempotency key"),
        None => ("receipt", "event key"),
    };
    table.add_row(["dead letter".to_owned(), summary.dead_letter_id.to_string()]);
    // Of a delivery it is the delivery's id.
    table.add_row([what.to_owned(), summary.receipt_id.to_string()]);
    if let Some(target) = &summary.target {
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
        ("received", show::moment(letter.received_at)),
        ("first failed", show::moment(summary.first_failed_at)),
        ("last failed", show::moment(summary.last_failed_at)),
    ] {
        table.add_row([name, value.trim_end()]);
    }
    say!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for act in &letter.acts {
        say!("\n{} {} by {}: {}", show::moment(act.at), act.act, act.actor, act.reason);
    }
    say!("\nheaders {}", serde_json::to_string_pretty(&letter.headers)?);
    let body = if summary.delivery_id.is_some() { "request" } else { "payload" };
    let payload = letter.payload.or(letter.payload_base64).unwrap_or_default();
    say!("\n{body} ({} bytes)\n{payload}", summary.payload_bytes);
    if let (Some(id), Some(response)) = (summary.delivery_id, letter.headers["response"].as_str()) {
        say!("\nresponse ({} bytes)\n{}", response.len(), show::harmless(response));
        say!("\nAll of it: tallyhook deliveries show {id}");
    }
    Ok(DONE)
}

pub(super) async fn export(
    store: &Store,
    filter: &Filter,
    output: Option<PathBuf>,
) -> anyhow::Result<u8> {
    let letters = review::select(store, filter).await?;
    let mut out: Box<dyn std::io::Write> = match &output {
        Some(path) => Box::new(std::io::BufWriter::new(
            std::fs::File::create(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
        )),
        None => Box::new(std::io::stdout().lock()),
    };
    for letter in &letters {
        let letter = review::show(store, letter.dead_letter_id).await?;
        serde_json::to_writer(&mut out, &letter)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    if std::io::stderr().is_terminal() {
        eprintln!("{} letters", letters.len());
    }
    Ok(DONE)
}
