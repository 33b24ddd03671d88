//! How long event keys are remembered (promise P6).

use super::{CheckStatus, Finding};
use crate::{
    config::{Retention, retention::HumanDuration},
    store::{Store, StoreError, inbox::partitions},
};

/// The dedupe window and what requires it.
pub(super) fn settings_finding(retention: &Retention) -> Finding {
    let window = match retention.dedupe_window {
        Some(keys) => format!("keys are remembered for {}", HumanDuration(keys)),
        None => "keys are remembered forever".to_owned(),
    };
    Finding::new("retention", Ok(format!("{window}; needed: {}", retention.required_window)))
}

/// The partitions of the inbox, and those retained for dead letters.
pub(super) async fn inbox_findings(
    store: &Store,
    retention: &Retention,
) -> Result<Vec<Finding>, StoreError> {
    let mut connection = store.connection().await?;
    let now = partitions::database_now(&mut connection).await?;
    let plan = partitions::InboxRetention { dedupe_window: retention.dedupe_window, now };
    let state = partitions::status(&mut connection, &plan).await?;
    let mut findings = vec![Finding {
        subject: "inbox",
        status: CheckStatus::Ok,
        message: format!(
            "{} partitions, {} MB; every key is remembered since {}",
            state.partitions.len(),
            state.partitions.iter().map(|partition| partition.bytes).sum::<i64>() / 1_000_000,
            state.remembered_since.date()
        ),
    }];
    let dead_letters: i64 = state.retained.iter().map(|partition| partition.dead_letters).sum();
    if dead_letters > 0 {
        let message = format!(
            "{} partitions are past the dedupe window and retained: they have the keys of {dead_letters} \
             dead letters; replay or discard these (`tallyhook dead list`)",
            state.retained.len()
        );
        findings.push(Finding { subject: "inbox", status: CheckStatus::Warning, message });
    }
    Ok(findings)
}
