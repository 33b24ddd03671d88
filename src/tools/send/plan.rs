//! Which deliveries are sent, and in which order.

use std::str::FromStr;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rust_decimal::{Decimal, RoundingStrategy, prelude::ToPrimitive as _};

/// A share of all deliveries: `0.1` or `10%`, from 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(Decimal);

/// The text is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is 0 to 1, such as 0.1, or 0% to 100%, such as 10%")]
pub struct InvalidShare;

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
    /// This share of a count, a half rounded up.
    pub fn of(self, count: u32) -> u32 {
        (self.0 * Decimal::from(count))
            .round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero)
            .to_u32()
            .unwrap_or(count)
    }
}

/// How many deliveries of each part there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that can be applied, each of another document.
    pub unique: u32,
    /// Repeats of one of these: the same event id, the same bytes.
    pub duplicates: u32,
    /// Older versions of a document whose newer one was sent before.
    pub late: u32,
    /// Authentic webhooks that cannot be applied.
    pub poison: u32,
    /// Webhooks whose signature is none of the source's.
    pub forged: u32,
}

/// The shares leave no room for what they are shares of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// More than everything.
    #[error("duplicates, late and poison ones together are more than all {0} deliveries")]
    TooMany(u32),
    /// Nothing to repeat.
    #[error("no new event is left among {0} deliveries to repeat or to be late for")]
    NothingNew(u32),
    /// Nothing at all.
    #[error("there is nothing to send")]
    Nothing,
}

impl Counts {
    /// Splits `count` deliveries by their shares; forged ones come on top.
    ///
    /// # Errors
    /// [`InvalidPlan`].
    pub fn split(
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

    /// All deliveries.
    pub fn deliveries(&self) -> u32 {
        let Self { unique, duplicates, late, poison, forged } = self;
        [duplicates, late, poison, forged]
            .into_iter()
            .fold(*unique, |sum, n| sum.saturating_add(*n))
    }
}

/// What a delivery is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first delivery of an event.
    Unique,
    /// A repeat of it.
    Duplicate,
    /// An older version of the event's document.
    Late,
    /// Authentic, but it cannot be applied.
    Poison,
    /// Signed over other bytes.
    Forged,
}

/// One delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is for.
    pub part: Part,
    /// The event's number within the run.
    pub event: u32,
    /// How many versions older than the event itself; 0 unless it is late.
    pub age: u32,
}

/// All deliveries in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many there are of each part.
    pub counts: Counts,
    /// Sent first, in this order.
    pub first: Vec<Step>,
    /// The late ones, sent when all the others have been answered and had
    /// time to settle. They are of the documents that were sent first.
    pub late: Vec<Step>,
}

impl Plan {
    /// The deliveries of a generated run; the same for the same seed.
    ///
    /// Events are numbered: the unique ones from 0 on, then the poison, then
    /// the forged. Every other duplicate follows at once, so that it meets
    /// the first delivery while that is under way; the rest come later.
    pub fn generated(counts: Counts, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let Counts { unique, duplicates, late, poison, forged } = counts;
        let step = |part, event| Step { part, event, age: 0 };
        // Sorted by place; what shares a place keeps the order of this list.
        let mut placed: Vec<(u32, Step)> =
            (0..unique).map(|event| (event, step(Part::Unique, event))).collect();
        for nth in 0..duplicates {
            let event = rng.random_range(0..unique);
            let place = if nth % 2 == 0 { event } else { rng.random_range(event..unique) };
            placed.push((place, step(Part::Duplicate, event)));
        }
        for (part, from, count) in
            [(Part::Poison, unique, poison), (Part::Forged, unique + poison, forged)]
        {
            for event in from..from + count {
                placed.push((rng.random_range(0..=unique), step(part, event)));
            }
        }
        placed.sort_by_key(|(place, _)| *place);
        let late = (0..late)
            .map(|nth| Step { part: Part::Late, event: nth % unique, age: 1 + nth / unique })
            .collect();
        Self { counts, first: placed.into_iter().map(|(_, step)| step).collect(), late }
    }

    /// Every file `count` times, round by round. `events` has the number of
    /// each file's event: two files may tell the same one.
    pub fn files(events: &[u32], count: u32) -> Self {
        let mut counts = Counts::default();
        let mut seen = std::collections::HashSet::new();
        let mut first = Vec::new();
        for _ in 0..count {
            for event in events.iter().copied() {
                let part = if seen.insert(event) {
                    counts.unique += 1;
                    Part::Unique
                } else {
                    counts.duplicates += 1;
                    Part::Duplicate
                };
                first.push(Step { part, event, age: 0 });
            }
        }
        Self { counts, first, late: Vec::new() }
    }

    /// All steps in their order.
    pub fn steps(&self) -> impl Iterator<Item = Step> {
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
    fn shares_are_read_both_ways_and_nothing_else() {
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
    fn counts_are_exact() {
        let counts = plan(1000, 1).counts;
        assert_eq!(
            counts,
            Counts { unique: 825, duplicates: 100, late: 50, poison: 25, forged: 3 }
        );
        assert_eq!(counts.deliveries(), 1003);
    }

    #[test]
    fn shares_that_leave_nothing_are_refused() {
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
    fn the_steps_are_what_the_counts_say() {
        let plan = plan(1000, 7);
        let count = |part| plan.steps().filter(|step| step.part == part).count();
        let counted = [Part::Unique, Part::Duplicate, Part::Late, Part::Poison, Part::Forged];
        assert_eq!(counted.map(count), [825, 100, 50, 25, 3]);
        assert_eq!(plan, self::plan(1000, 7));
        assert_ne!(plan, self::plan(1000, 8));
    }

    #[test]
    fn nothing_is_repeated_before_it_was_sent() {
        let plan = plan(500, 3);
        let mut sent = HashSet::new();
        for step in plan.steps() {
            match step.part {
                Part::Duplicate | Part::Late => assert!(sent.contains(&step.event), "{step:?}"),
                _ => assert!(sent.insert(step.event), "{step:?}"),
            }
        }
    }

    #[test]
    fn some_duplicates_follow_at_once() {
        let plan = plan(500, 3);
        let pairs = plan
            .first
            .windows(2)
            .filter(|pair| pair[0].event == pair[1].event && pair[1].part == Part::Duplicate);
        assert!(pairs.count() >= 10);
    }

    #[test]
    fn many_late_versions_of_few_documents_all_differ() {
        let counts = Counts::split(10, Share::default(), share("80%"), Share::default(), 0);
        let late = Plan::generated(counts.unwrap(), 1).late;
        let versions: HashSet<_> = late.iter().map(|step| (step.event, step.age)).collect();
        assert_eq!((late.len(), versions.len()), (8, 8));
        assert!(late.iter().all(|step| step.age > 0));
    }

    #[test]
    fn files_are_unique_once() {
        let plan = Plan::files(&[0, 1, 0], 2);
        assert_eq!((plan.counts.unique, plan.counts.duplicates), (2, 4));
        assert_eq!(
            plan.first.iter().map(|step| step.event).collect::<Vec<_>>(),
            [0, 1, 0, 0, 1, 0]
        );
    }
}
