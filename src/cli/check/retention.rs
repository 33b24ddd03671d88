//! How long keys are remembered, and whether that is long enough (P6).

use super::{Finding, Verdict};
use crate::{
    config::{Config, retention::Span},
    store::{Store, StoreError, inbox::generations},
};

/// What the settings say, and what they are made of.
pub(super) fn settings(config: &Config) -> Finding {
    let retention = &config.retention;
    let kept = match retention.keys {
        Some(keys) => format!("keys are remembered for {}", Span(keys)),
        None => "keys are remembered for ever".to_owned(),
    };
    Finding::new("retention", Ok(format!("{kept}; needed: {}", retention.needed)))
}

/// What is in the inbox, and what of it is only kept for the dead.
pub(super) async fn inbox(store: &Store, config: &Config) -> Result<Vec<Finding>, StoreError> {
    let mut connection = store.connection().await?;
    let now = generations::now(&mut connection).await?;
    let plan = generations::Plan { keep: config.retention.keys, now };
    let state = generations::look(&mut connection, &plan).await?;
    let mut findings = vec![Finding {
        what: "inbox",
        verdict: Verdict::Ok,
        told: format!(
            "{} generations, {} MB; every key is remembered since {}",
            state.generations.len(),
            state.generations.iter().map(|one| one.bytes).sum::<i64>() / 1_000_000,
            state.since.date()
        ),
    }];
    let letters: i64 = state.held.iter().map(|held| held.letters).sum();
    if letters > 0 {
        let told = format!(
            "{} generations are past the horizon and kept: the keys of {letters} dead letters are \
             in them; replay or discard these (`tallyhook dead list`)",
            state.held.len()
        );
        findings.push(Finding { what: "inbox", verdict: Verdict::Warn, told });
    }
    Ok(findings)
}
