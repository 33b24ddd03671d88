//! `tallyhook deliveries void`.

use anyhow::bail;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::{
    cli::{
        deliveries::table,
        operator::{OperatorArgs, error_text, exit_code, print_failures},
        output,
    },
    domain::DeliveryState,
    review::{Selection, deliveries},
    store::{
        Store,
        deliveries::{Delivery, DeliveryFilter},
    },
};

#[derive(Debug, Args)]
pub(super) struct VoidArgs {
    /// These deliveries.
    #[arg(value_name = "ID", required_unless_present = "number")]
    ids: Vec<Uuid>,
    /// The only delivery with this document number or id, id at the
    /// destination, or idempotency key.
    #[arg(long, conflicts_with = "ids")]
    number: Option<String>,
    /// To this destination.
    #[arg(long, requires = "number")]
    destination: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(store: &Store, arguments: &VoidArgs) -> anyhow::Result<u8> {
    arguments.operator.require_comment()?;
    let ids = match &arguments.number {
        Some(number) => {
            vec![only_delivery(store, number, arguments.destination.as_ref()).await?]
        }
        None => arguments.ids.clone(),
    };
    let name = arguments.operator.name();
    let actor = arguments.operator.actor(&name);
    let mut voided = Vec::new();
    let mut failures = Vec::new();
    for id in &ids {
        match deliveries::void(store, *id, actor).await {
            Ok(delivery) => voided.push(delivery),
            Err(error) => failures.push(error_text(error)),
        }
    }
    if arguments.json {
        let result = json!({"voided": voided, "failed": failures});
        outln!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        for delivery in &voided {
            print(delivery)?;
        }
        print_failures(&failures);
    }
    Ok(exit_code(voided.len(), failures.len()))
}

/// The only delivery with a number that is not voided yet.
async fn only_delivery(
    store: &Store,
    number: &str,
    destination: Option<&String>,
) -> anyhow::Result<Uuid> {
    let filter = DeliveryFilter {
        number: Some(number.to_owned()),
        destination: destination.cloned(),
        ..DeliveryFilter::default()
    };
    let selected = deliveries::select(store, Selection::new(filter, false)?).await?;
    let mut rows = selected.rows().to_vec();
    rows.retain(|row| row.state != DeliveryState::Voided.as_str());
    match rows.as_slice() {
        [row] => Ok(row.delivery_id),
        [] => bail!("no delivery of {number:?} is left to void"),
        rows => {
            bail!("{} deliveries have this number; give the id of one\n{}", rows.len(), table(rows))
        }
    }
}

fn print(delivery: &Delivery) -> anyhow::Result<()> {
    let Delivery { delivery_id, event, destination, .. } = delivery;
    let number = delivery.document_number.as_ref().unwrap_or(&delivery.document_id);
    outln!("voided: {delivery_id}, {event} of {number} to {destination}");
    match (&delivery.remote_id, delivery.first_sent_at, delivery.delivered_at) {
        (Some(remote_id), ..) => outln!(
            "The destination has it as {}; tallyhook deleted nothing there.",
            output::strip_control_chars(remote_id)
        ),
        (None, Some(_), None) => {
            outln!("It was sent and never confirmed: {destination} may have it; check there.");
        }
        _ => {}
    }
    outln!(
        "To issue it again with a new idempotency key: \
         tallyhook reissue {delivery_id} --comment TEXT"
    );
    Ok(())
}
