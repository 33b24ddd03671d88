//! `tallyhook quarantine`: forged calls that wait for a mended secret.

mod actions;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::{EXIT_DONE, output};
use crate::{
    app::Components,
    config::Config,
    review::quarantine,
    store::{Store, quarantine::QuarantineFilter},
};
use actions::Act;

#[derive(Debug, Args)]
#[command(after_help = "\
Calls are kept of sources with `quarantine_limit = N`: the newest N, at most one a second, and none with
a body above 256 KiB.")]
pub(super) struct QuarantineArgs {
    #[command(subcommand)]
    act: QuarantineCommand,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List calls that no configured secret had signed, the oldest first.
    List {
        /// Came in at this source.
        #[arg(long)]
        source: Option<String>,
        /// Show at most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one call with its headers and body; never its credentials.
    Show {
        /// The receipt that its answer named.
        id: Uuid,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify calls again with the secrets configured now, and send in those
    /// that are authentic, as the receiver would have. The others stay.
    Release(Act),
    /// Throw calls away.
    Discard(Act),
}

pub(super) async fn run(
    arguments: QuarantineArgs,
    config: &Config,
    components: &Components,
) -> anyhow::Result<ExitCode> {
    let store = Store::without_timeout(&config.database).context("database.url")?;
    let code = match arguments.act {
        QuarantineCommand::List { source, limit, json } => {
            list(&store, source, limit, json).await?
        }
        QuarantineCommand::Show { id, json } => show_one(&store, id, json).await?,
        QuarantineCommand::Release(act) => {
            actions::release(&store, config, components, &act).await?
        }
        QuarantineCommand::Discard(act) => actions::discard(&store, &act).await?,
    };
    store.close().await;
    Ok(ExitCode::from(code))
}

async fn list(store: &Store, source: Option<String>, limit: u32, json: bool) -> anyhow::Result<u8> {
    let filter = QuarantineFilter { source, ids: Vec::new() };
    let calls = quarantine::list(store, &filter, limit).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&calls)?);
        return Ok(EXIT_DONE);
    }
    if calls.is_empty() {
        outln!("No quarantined calls.");
        return Ok(EXIT_DONE);
    }
    let mut table = output::table(&["ID", "RECEIVED", "SOURCE", "BYTES", "ERROR"]);
    for call in &calls {
        table.add_row([
            call.receipt_id.to_string(),
            output::timestamp(call.received_at),
            call.source.clone(),
            call.payload_bytes.to_string(),
            output::truncate(&call.error, 80),
        ]);
    }
    outln!("{table}");
    if calls.len() == limit as usize {
        outln!("\nOnly the first {limit} are shown; see --limit.");
    }
    Ok(EXIT_DONE)
}

async fn show_one(store: &Store, id: Uuid, json: bool) -> anyhow::Result<u8> {
    let call = quarantine::show(store, id).await?;
    if json {
        outln!("{}", serde_json::to_string_pretty(&call)?);
        return Ok(EXIT_DONE);
    }
    let mut table = output::table(&["", ""]);
    for (name, value) in [
        ("receipt", call.receipt_id.to_string()),
        ("source", call.source),
        ("received", output::timestamp(call.received_at)),
        ("error", call.error),
        ("parameters", call.parameters.join(", ")),
    ] {
        table.add_row([name.to_owned(), output::strip_control_chars(&value)]);
    }
    outln!("{}", table.to_string().trim_start_matches([' ', '\n']));
    for field in call.headers.as_array().into_iter().flatten() {
        let name = field["name"].as_str().unwrap_or_default();
        let value = match (field["value"].as_str(), field["base64"].as_str()) {
            (Some(text), _) => output::strip_control_chars(text),
            (None, Some(base64)) => format!("{base64} (base64)"),
            (None, None) => "(kept, not shown)".to_owned(),
        };
        outln!("{name}: {value}");
    }
    let payload = call.payload.or(call.payload_base64).unwrap_or_default();
    outln!("\npayload ({} bytes)\n{}", call.payload_bytes, output::strip_control_chars(&payload));
    Ok(EXIT_DONE)
}
