//! What the books must show for what was answered.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::tools::send::{
    Sent,
    campaign::Campaign,
    plan::{Part, Step},
    rehearse::Fate,
};

/// What these deliveries add to the receipts, by outcome.
///
/// Counted from the answers: every 2xx is one receipt. Holds if the events
/// are new to the books; of a repeated run all but the dead are duplicates.
///
/// `applied + stale` is exact. How much of it is stale depends on the books:
/// a late webhook is stale if the newer version was applied before it, which
/// workers that consume side by side do not promise. It is sent last, after a
/// pause to settle and for the documents that were sent first, so `stale` is
/// exact too unless the worker was behind by then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Outcome `applied`.
    pub applied: u32,
    /// Outcome `duplicate`.
    pub duplicate: u32,
    /// Outcome `stale`, at the most.
    pub stale: u32,
    /// `applied` and `stale` together, whatever came first.
    pub applied_or_stale: u32,
    /// Outcome `ignored`.
    pub ignored: u32,
    /// Outcome `dead`.
    pub dead: u32,
    /// The dead by reason.
    pub dead_reasons: BTreeMap<&'static str, u32>,
    /// Attempts without an answer that tells whether they were kept: so many
    /// receipts there may be on top, first deliveries or duplicates.
    pub uncertain: u32,
    /// Whether nothing is uncertain.
    pub exact: bool,
}

impl Expected {
    /// Counts a campaign's answers.
    pub fn of(campaign: &Campaign, sent: &Sent) -> Self {
        let mut expected = Self { uncertain: sent.abandoned, ..Self::default() };
        let kept = |wanted: fn(Part) -> bool| {
            sent.answers.iter().filter(move |(step, answer)| {
                wanted(step.part) && answer.status.is_some_and(|status| status.is_success())
            })
        };
        let mut claimed = BTreeSet::new();
        for (step, answer) in &sent.answers {
            expected.uncertain += answer.uncertain;
            // Somebody took what nobody signed: nobody knows what became of it.
            let taken = answer.status.is_some_and(|status| status.is_success());
            expected.uncertain += u32::from(step.part == Part::Forged && taken);
        }
        for (step, _) in kept(|part| matches!(part, Part::Unique | Part::Duplicate | Part::Poison))
        {
            expected.count(campaign, *step, &mut claimed);
        }
        for (step, _) in kept(|part| part == Part::Late) {
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

    fn count(&mut self, campaign: &Campaign, step: Step, claimed: &mut BTreeSet<u32>) {
        match campaign.fate(step) {
            // What is dead never claims its key, so its repeats are dead too.
            Fate::Dead(reason) => {
                self.dead += 1;
                *self.dead_reasons.entry(reason.as_str()).or_default() += 1;
            }
            Fate::Applied | Fate::Ignored if !claimed.insert(step.event) => self.duplicate += 1,
            Fate::Applied => self.applied += 1,
            // It was taken all the same: nobody knows what became of it.
            Fate::Refused => self.uncertain += 1,
            Fate::Ignored => self.ignored += 1,
        }
    }
}
