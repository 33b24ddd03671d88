//! The outcomes that must be on record after the responses.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::tools::send::{
    Sent,
    plan::{Step, StepKind},
    predict::PredictedOutcome,
    scenario::SendScenario,
};

/// New receipts by outcome: every 2xx is one. Assumes that the events are new; in a
/// repeated run all but the dead-lettered ones are duplicates.
///
/// `applied + stale` is exact. A late webhook is stale if the newer version was applied
/// before it, which concurrent consumers do not guarantee. It is sent last, after
/// a pause, so `stale` is exact unless the worker was behind by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ExpectedOutcomes {
    pub(crate) applied: u32,
    pub(crate) duplicate: u32,
    /// At most.
    pub(crate) stale: u32,
    pub(crate) applied_or_stale: u32,
    pub(crate) ignored: u32,
    pub(crate) dead: u32,
    /// Dead letters by reason.
    pub(crate) dead_reasons: BTreeMap<&'static str, u32>,
    /// Attempts that may or may not have been published: so many more receipts are
    /// possible.
    pub(crate) uncertain: u32,
    pub(crate) exact: bool,
}

impl ExpectedOutcomes {
    pub(crate) fn new(scenario: &SendScenario, sent: &Sent) -> Self {
        let mut expected = Self { uncertain: sent.abandoned, ..Self::default() };
        let accepted = |wanted: fn(StepKind) -> bool| {
            sent.results.iter().filter(move |(step, result)| {
                wanted(step.kind) && result.status.is_some_and(|status| status.is_success())
            })
        };
        let mut claimed = BTreeSet::new();
        for (step, result) in &sent.results {
            expected.uncertain += result.uncertain;
            // An accepted forged webhook has no predictable outcome.
            let accepted = result.status.is_some_and(|status| status.is_success());
            expected.uncertain += u32::from(step.kind == StepKind::Forged && accepted);
        }
        let first =
            |kind| matches!(kind, StepKind::Unique | StepKind::Duplicate | StepKind::Poison);
        for (step, _) in accepted(first) {
            expected.count(scenario, *step, &mut claimed);
        }
        for (step, _) in accepted(|kind| kind == StepKind::Late) {
            if claimed.contains(&step.event) {
                expected.stale += 1;
            } else {
                expected.applied += 1;
            }
        }
        expected.applied_or_stale = expected.applied + expected.stale;
        expected.exact = expected.uncertain == 0;
        expected
    }

    fn count(&mut self, scenario: &SendScenario, step: Step, claimed: &mut BTreeSet<u32>) {
        match scenario.predicted_outcome(step) {
            // A dead letter does not claim its key, so its duplicates are dead too.
            PredictedOutcome::Dead(reason) => {
                self.dead += 1;
                *self.dead_reasons.entry(reason.as_str()).or_default() += 1;
            }
            PredictedOutcome::Applied | PredictedOutcome::Ignored
                if !claimed.insert(step.event) =>
            {
                self.duplicate += 1;
            }
            PredictedOutcome::Applied => self.applied += 1,
            // It was accepted against the prediction.
            PredictedOutcome::Rejected => self.uncertain += 1,
            PredictedOutcome::Ignored => self.ignored += 1,
        }
    }
}
