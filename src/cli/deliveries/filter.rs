//! Which deliveries: the conditions that the `deliveries` commands share.

use clap::Args;
use uuid::Uuid;

use crate::{cli::reason_code, domain::DeliveryState, store::deliveries::DeliveryFilter};

/// Which deliveries; all conditions must hold.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only these deliveries.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// In this state.
    #[arg(long, value_parser = state)]
    state: Option<DeliveryState>,
    /// With a dead letter of this reason.
    #[arg(long, value_name = "CODE", value_parser = reason_code)]
    reason: Option<String>,
    /// To this destination.
    #[arg(long)]
    destination: Option<String>,
    /// Of documents of this source.
    #[arg(long)]
    source: Option<String>,
    /// With this document number or id, id at the destination, idempotency
    /// key, receipt, or delivery id.
    #[arg(long)]
    number: Option<String>,
}

fn state(word: &str) -> Result<DeliveryState, String> {
    word.parse().map_err(|_| {
        let words: Vec<_> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
        format!("unknown state; one of {}", words.join(", "))
    })
}

impl FilterArgs {
    pub(super) fn filter(&self) -> DeliveryFilter {
        DeliveryFilter {
            ids: self.ids.clone(),
            state: self.state,
            reason: self.reason.clone(),
            destination: self.destination.clone(),
            source: self.source.clone(),
            number: self.number.clone(),
        }
    }
}
