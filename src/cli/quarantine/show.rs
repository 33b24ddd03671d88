//! `tallyhook quarantine show`.

use clap::Args;
use uuid::Uuid;

use crate::{
    cli::{EXIT_DONE, output},
    review::quarantine::{self, QuarantinedRequestDetail},
    store::Store,
};

#[derive(Debug, Args)]
pub(super) struct QuarantineShowArgs {
    /// The receipt id that the response carried.
    id: Uuid,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(store: &Store, arguments: &QuarantineShowArgs) -> anyhow::Result<u8> {
    let request = quarantine::show(store, arguments.id).await?;
    if arguments.json {
        outln!("{}", serde_json::to_string_pretty(&request)?);
    } else {
        print(&request)?;
    }
    Ok(EXIT_DONE)
}

fn print(request: &QuarantinedRequestDetail) -> anyhow::Result<()> {
    outln!(
        "{}",
        output::fields(&[
            ("receipt", request.receipt_id.to_string()),
            ("source", request.source.clone()),
            ("received", output::timestamp(request.received_at)),
            ("error", output::strip_control_chars(&request.error)),
            ("parameters", output::strip_control_chars(&request.parameters.join(", "))),
        ])
    );
    for header in request.headers.as_array().into_iter().flatten() {
        let name = header["name"].as_str().unwrap_or_default();
        let value = match (header["value"].as_str(), header["base64"].as_str()) {
            (Some(text), _) => output::strip_control_chars(text),
            (None, Some(base64)) => format!("{base64} (base64)"),
            (None, None) => "(hidden)".to_owned(),
        };
        outln!("{name}: {value}");
    }
    let payload = request.payload.as_ref().or(request.payload_base64.as_ref());
    outln!(
        "\npayload ({} bytes)\n{}",
        request.payload_bytes,
        output::strip_control_chars(payload.map_or("", String::as_str))
    );
    Ok(())
}
