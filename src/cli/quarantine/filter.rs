//! Which quarantined requests: the conditions that the `quarantine` commands share.

use clap::Args;
use uuid::Uuid;

use crate::store::quarantine::QuarantineFilter;

/// Which quarantined requests; all conditions must hold.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only these requests, by their receipts.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// From this source.
    #[arg(long)]
    source: Option<String>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> QuarantineFilter {
        QuarantineFilter { ids: self.ids.clone(), source: self.source.clone() }
    }
}
