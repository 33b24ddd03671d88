//! How long keys are remembered, and whether that is long enough (P6).

use super::{CheckStatus, Finding};
use crate::{
    config::{Retention, retention::HumanDuration},
    store::{Store, StoreError, inbox::partitions},
};

/// What the settings say, and what they are made of.
pub(super) fn settings_finding(retention: &Retention) -> Finding {
    let kept = match retention.dedupe_window {
        Some(keys) => format!("keys are remembered for {}", HumanDuration(keys)),
        None => "keys are remembered for ever".to_owned(),
    };
    Finding::new("retention", Ok(format!("{kept}; needed: {}", retention.required_window)))
}

/// What is in the inbox, and what of it is only kept for the dead.
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
            "{} generations, {} MB; every key is remembered since {}",
            state.partitions.len(),
            state.partitions.iter().map(|one| one.bytes).sum::<i64>() / 1_000_000,
            state.remembered_since.date()
        ),
    }];
    let letters: i64 = state.retained.iter().map(|held| held.dead_letters).sum();
    if letters > 0 {
        let told = format!(
            "{} generations are past the horizon and kept: the keys of {letters} dead letters are \
             in them; replay or discard these (`tallyhook dead list`)",
            state.retained.len()
        );
        findings.push(Finding { subject: "inbox", status: CheckStatus::Warning, message: told });
    }
    Ok(findings)
}
