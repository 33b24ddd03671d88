//! The webhooks of a run and their order.

use std::str::FromStr;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive as _};
use serde::Serialize;

/// A share of all webhooks: `0.1` or `10%`, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(Decimal);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is 0 to 1, such as 0.1, or 0% to 100%, such as 10%")]
pub(crate) struct InvalidShare;

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = |digits: &str| Decimal::from_str(digits.trim()).map_err(|_| InvalidShare);
        let share = match text.trim().strip_suffix('%') {
            Some(percent) => parse(percent)?.checked_div(Decimal::ONE_HUNDRED),
            None => Some(parse(text)?),
        };
        share
            .filter(|share| (Decimal::ZERO..=Decimal::ONE).contains(share))
            .map(Self)
            .ok_or(InvalidShare)
    }
}

impl Share {
    /// This share of a count, rounded half up.
    pub(crate) fn of(self, count: u32) -> u32 {
        (self.0 * Decimal::from(count))
            .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero)
            .to_u32()
            .unwrap_or(count)
    }
}

/// Webhooks of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    /// Valid events, each of a different document; all events of files.
    pub(crate) unique: u32,
    /// Repeats of these: same event id, same bytes.
    pub(crate) duplicates: u32,
    /// Older versions of a document, sent after the newer one.
    pub(crate) late: u32,
    /// Authentic webhooks that cannot be applied.
    pub(crate) poison: u32,
    /// Webhooks with an invalid signature.
    pub(crate) forged: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPlan {
    #[error("duplicates, late and poison webhooks together exceed all {0} webhooks")]
    TooMany(u32),
    #[error("none of {0} webhooks is new, so none can be a duplicate or late")]
    NothingNew(u32),
    #[error("there is nothing to send")]
    Nothing,
}

impl Counts {
    /// Splits `count` webhooks by shares; forged ones are additional.
    pub(crate) fn split(
        count: u32,
        duplicates: Share,
        late: Share,
        poison: Share,
        forged: u32,
    ) -> Result<Self, InvalidPlan> {
        let [duplicates, late, poison] = [duplicates, late, poison].map(|share| share.of(count));
        let unique = [duplicates, late, poison]
            .into_iter()
            .try_fold(count, u32::checked_sub)
            .ok_or(InvalidPlan::TooMany(count))?;
        if count == 0 && forged == 0 {
            return Err(InvalidPlan::Nothing);
        }
        if unique == 0 && (duplicates > 0 || late > 0) {
            return Err(InvalidPlan::NothingNew(count));
        }
        Ok(Self { unique, duplicates, late, poison, forged })
    }

    /// All webhooks.
    pub(crate) fn total(&self) -> u32 {
        let Self { unique, duplicates, late, poison, forged } = self;
        [duplicates, late, poison, forged]
            .into_iter()
            .fold(*unique, |sum, n| sum.saturating_add(*n))
    }
}

/// The kind of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// The first webhook of an event.
    Unique,
    /// A repeat.
    Duplicate,
    /// An older version of the event's document.
    Late,
    /// Authentic, but cannot be applied.
    Poison,
    /// With the signature of another body.
    Forged,
}

/// One webhook of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) kind: StepKind,
    /// The number of the event within the run.
    pub(crate) event: u32,
    /// How many versions older than the event; 0 unless late.
    pub(crate) age: u32,
}

/// All webhooks in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) counts: Counts,
    /// Sent first.
    pub(crate) first: Vec<Step>,
    /// The late ones, of the documents that were sent first. They are sent after
    /// all other responses and a pause.
    pub(crate) late: Vec<Step>,
}

impl Plan {
    /// The webhooks of a generated run; the same for the same seed.
    ///
    /// Events are numbered from 0: unique, then poison, then forged. Half of the
    /// duplicates follow their event directly, so that both are in flight at once.
    pub(crate) fn generated(counts: Counts, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let Counts { unique, duplicates, late, poison, forged } = counts;
        let step = |kind, event| Step { kind, event, age: 0 };
        // Sorted by position; equal positions keep the order of this list.
        let mut positioned: Vec<(u32, Step)> =
            (0..unique).map(|event| (event, step(StepKind::Unique, event))).collect();
        for nth in 0..duplicates {
            let event = rng.random_range(0..unique);
            let position = if nth % 2 == 0 { event } else { rng.random_range(event..unique) };
            positioned.push((position, step(StepKind::Duplicate, event)));
        }
        for (kind, from, count) in
            [(StepKind::Poison, unique, poison), (StepKind::Forged, unique + poison, forged)]
        {
            for event in from..from + count {
                positioned.push((rng.random_range(0..=unique), step(kind, event)));
            }
        }
        positioned.sort_by_key(|(position, _)| *position);
        let late = (0..late)
            .map(|nth| Step { kind: StepKind::Late, event: nth % unique, age: 1 + nth / unique })
            .collect();
        Self { counts, first: positioned.into_iter().map(|(_, step)| step).collect(), late }
    }

    /// Every file `count` times. `events` has the number of each file's event;
    /// two files may have the same one.
    pub(crate) fn files(events: &[u32], count: u32) -> Self {
        let mut counts = Counts::default();
        let mut seen = std::collections::HashSet::new();
        let mut first = Vec::new();
        for _ in 0..count {
            for event in events.iter().copied() {
                let kind = if seen.insert(event) {
                    counts.unique += 1;
                    StepKind::Unique
                } else {
                    counts.duplicates += 1;
                    StepKind::Duplicate
                };
                first.push(Step { kind, event, age: 0 });
            }
        }
        Self { counts, first, late: Vec::new() }
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        self.first.iter().chain(&self.late).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    fn plan(count: u32, seed: u64) -> Plan {
        let counts = Counts::split(count, share("10%"), share("0.05"), share("2.5%"), 3).unwrap();
        Plan::generated(counts, seed)
    }

    #[test]
    fn share_is_a_fraction_or_percentage() {
        assert_eq!(share("10%"), share("0.1"));
        for (text, count, expected) in
            [("0", 9, 0), ("1", 9, 9), ("33%", 100, 33), ("0.5", 3, 2), ("0.1%", 1000, 1)]
        {
            assert_eq!(share(text).of(count), expected, "{text} of {count}");
        }
        for bad in ["", "10", "-0.1", "101%", "a", "%", "1.01"] {
            assert_eq!(bad.parse::<Share>(), Err(InvalidShare), "{bad}");
        }
    }

    #[test]
    fn split_without_new_events_is_rejected() {
        let none = Share::default();
        let split = |duplicates: &str, late: &str| {
            Counts::split(10, share(duplicates), share(late), none, 0)
        };
        assert_eq!(split("60%", "60%"), Err(InvalidPlan::TooMany(10)));
        assert_eq!(split("60%", "40%"), Err(InvalidPlan::NothingNew(10)));
        assert_eq!(Counts::split(0, none, none, none, 0), Err(InvalidPlan::Nothing));
        assert!(Counts::split(0, none, none, none, 1).is_ok());
    }

    #[test]
    fn generated_plan_matches_the_counts() {
        let plan = plan(1000, 7);
        let count = |kind| plan.steps().filter(|step| step.kind == kind).count();
        let counted = [
            StepKind::Unique,
            StepKind::Duplicate,
            StepKind::Late,
            StepKind::Poison,
            StepKind::Forged,
        ];
        assert_eq!(counted.map(count), [825, 100, 50, 25, 3]);
        assert_eq!(plan.counts.total(), 1003);
        assert_eq!(plan, self::plan(1000, 7));
        assert_ne!(plan, self::plan(1000, 8));
    }

    #[test]
    fn duplicates_follow_their_event() {
        let plan = plan(500, 3);
        let mut sent = HashSet::new();
        for step in plan.steps() {
            match step.kind {
                StepKind::Duplicate | StepKind::Late => {
                    assert!(sent.contains(&step.event), "{step:?}");
                }
                _ => assert!(sent.insert(step.event), "{step:?}"),
            }
        }
        let follows_directly =
            |pair: &&[Step]| pair[0].event == pair[1].event && pair[1].kind == StepKind::Duplicate;
        assert!(plan.first.windows(2).filter(follows_directly).count() >= 10);
    }

    #[test]
    fn late_versions_of_one_document_differ() {
        let counts = Counts::split(10, Share::default(), share("80%"), Share::default(), 0);
        let late = Plan::generated(counts.unwrap(), 1).late;
        let versions: HashSet<_> = late.iter().map(|step| (step.event, step.age)).collect();
        assert_eq!((late.len(), versions.len()), (8, 8));
        assert!(late.iter().all(|step| step.age > 0));
    }

    #[test]
    fn files_are_unique_once_and_then_duplicates() {
        let plan = Plan::files(&[0, 1, 0], 2);
        assert_eq!((plan.counts.unique, plan.counts.duplicates), (2, 4));
        assert_eq!(
            plan.first.iter().map(|step| step.event).collect::<Vec<_>>(),
            [0, 1, 0, 0, 1, 0]
        );
    }
}
