//! What a soak sends: which message is the nth, told without remembering any
//! of those before it, so that a soak of any length takes no more memory than
//! a short one.
//!
//! Payloads take turns. Of 1001 messages of one payload 2 are poison, 48 are
//! late, 100 are repeats, 400 are updates and 451 are new, spread evenly.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use http::Uri;

use crate::{
    domain::SourceName,
    sources::Source,
    tools::{
        bench::{backlog, backlog::Mix, load, load::Prepared, payload::Payload, stage::Stage},
        send::{campaign::Campaign, plan, plan::Step},
    },
};

/// The round after which the parts of the messages come again. No multiple of
/// 5, so that each of the five poisons has its turn.
const ROUND: u64 = 1001;
/// Without a factor in common with [`ROUND`], and about the golden ratio of
/// it: neighbours are far apart, and each part is spread evenly.
const STRIDE: u64 = 619;
/// Documents of one source that are updated again and again.
const POPULATION: u64 = 5_000;
/// How often each of them is told at the least, in a soak that is short.
const TELLINGS: u64 = 60;
/// The generator numbers no more documents of one run than these.
const OF_ONE_RUN: u64 = 1 << 20;
/// A late message is at least so many behind the one that overtook it: fewer,
/// and both could be under way at once.
const BEHIND: u64 = 8;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// An order or invoice that nobody told before.
    New,
    /// A newer state of one of the population.
    Update,
    /// An earlier new one, byte for byte.
    Repeat,
    /// An older state of one of the population, told after the newer one.
    Late,
    /// Authentic, and it cannot be applied.
    Poison,
}

/// What a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The document of this number.
    New(u64),
    /// One of the population as it stood so many minutes earlier.
    Known { number: u64, age: u64 },
    /// The document of this number, spoiled.
    Poison(u64),
}

/// Which message is which, of one source.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    /// How many documents are updated again and again.
    population: u64,
    /// How often each of them has its turn, and one more.
    tellings: u64,
}

/// Everything that is sent.
pub struct Story {
    sources: Arc<BTreeMap<SourceName, Source>>,
    sequence: Sequence,
    turns: Vec<SoakSource>,
}

/// What is sent to one source.
struct SoakSource {
    payload: Payload,
    uri: Uri,
    population: Campaign,
    /// New documents, each run as many as it can number.
    runs: Vec<Campaign>,
}

/// One message, ready to be sent.
pub struct Message {
    /// The request.
    pub request: Prepared,
    /// Whether it is on record as soon as its batch is committed: what is dead
    /// takes another way.
    pub settles: bool,
}

impl Story {
    /// Of so many messages.
    ///
    /// # Errors
    /// None: every payload can be generated.
    pub fn new(stage: &Stage, total: usize) -> anyhow::Result<Self> {
        let events = u64::try_from(total.div_ceil(Payload::ALL.len()))?;
        let source = |payload: Payload| {
            let campaign = || backlog::campaign(stage, payload, 1, Mix::default());
            let runs = events.div_ceil(OF_ONE_RUN).max(1);
            anyhow::Ok(SoakSource {
                payload,
                uri: load::uri(&payload.source()?)?,
                population: campaign()?,
                runs: (0..runs).map(|_| campaign()).collect::<anyhow::Result<_>>()?,
            })
        };
        Ok(Self {
            sources: Arc::clone(&stage.config.sources),
            sequence: Sequence::of(events),
            turns: Payload::ALL.into_iter().map(source).collect::<anyhow::Result<_>>()?,
        })
    }

    /// The nth message, signed now.
    ///
    /// # Errors
    /// None: every payload has its source.
    pub fn message(&self, nth: usize) -> anyhow::Result<Message> {
        let source = &self.turns[nth % self.turns.len()];
        let told = self.sequence.told(u64::try_from(nth / self.turns.len())?);
        let step = |part, number: u64, age: u64| {
            anyhow::Ok(Step { part, event: u32::try_from(number)?, age: u32::try_from(age)? })
        };
        let (campaign, step) = match told {
            Told::Known { number, age } => {
                (&source.population, step(plan::Part::Unique, number, age)?)
            }
            Told::New(number) => {
                (source.run(number)?, step(plan::Part::Unique, number % OF_ONE_RUN, 0)?)
            }
            Told::Poison(number) => {
                (source.run(number)?, step(plan::Part::Poison, number % OF_ONE_RUN, 0)?)
            }
        };
        let adapter = self.sources.get(&campaign.source);
        let adapter = adapter.ok_or_else(|| anyhow::anyhow!("the bench has no such source"))?;
        let request = load::signed(adapter, campaign, source.payload, &source.uri, step);
        Ok(Message { request, settles: !matches!(told, Told::Poison(_)) })
    }
}

impl SoakSource {
    fn run(&self, number: u64) -> anyhow::Result<&Campaign> {
        let run = self.runs.get(usize::try_from(number / OF_ONE_RUN)?);
        run.ok_or_else(|| anyhow::anyhow!("the soak is longer than was planned"))
    }
}

impl Sequence {
    fn of(events: u64) -> Self {
        let population = (events / TELLINGS).clamp(1, POPULATION);
        Self { population, tellings: events / population + 1 }
    }

    fn told(self, event: u64) -> Told {
        let fresh = Told::New(event);
        match part(event) {
            Part::New => fresh,
            Part::Poison => Told::Poison(event),
            Part::Update => self.update(event),
            Part::Repeat => {
                // Every other one at once, the rest from anywhere before.
                let back = if event.is_multiple_of(2) { event / 2 } else { event - 1 };
                latest(back, Part::New).map_or(fresh, Told::New)
            }
            Part::Late => {
                let back = (self.population / 2).max(BEHIND);
                let newer = event.checked_sub(back).and_then(|from| latest(from, Part::Update));
                match newer.map(|newer| self.update(newer)) {
                    // Between the newer state and the one before it.
                    Some(Told::Known { number, age }) => Told::Known { number, age: age + 1 },
                    _ => fresh,
                }
            }
        }
    }

    /// The state that this event tells: from one turn of a document to its
    /// next it gets two minutes younger.
    fn update(self, event: u64) -> Told {
        let turn = event / self.population;
        let age = 2 * self.tellings.saturating_sub(turn).max(1);
        Told::Known { number: event % self.population, age }
    }
}

/// What the event is for.
fn part(event: u64) -> Part {
    match (event % ROUND) * STRIDE % ROUND {
        0..2 => Part::Poison,
        2..50 => Part::Late,
        50..150 => Part::Repeat,
        150..550 => Part::Update,
        _ => Part::New,
    }
}

/// The latest event of a kind up to this one.
fn latest(from: u64, of: Part) -> Option<u64> {
    (from.saturating_sub(ROUND)..=from).rev().find(|event| part(*event) == of)
}

/// A stride over messages that meets every payload and every part in turns,
/// so that what is looked at is like what is not: about so many of them in a
/// second.
pub fn stride(rate: NonZeroU32, a_second: u32) -> usize {
    // One more than a multiple of the payloads: each follows the other.
    let payloads = Payload::ALL.len();
    let wanted = usize::try_from(rate.get() / a_second).unwrap_or(usize::MAX - payloads);
    if wanted <= 1 { 1 } else { wanted.next_multiple_of(payloads) + 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const EVENTS: u64 = 200_000;

    fn told() -> Vec<(Part, Told)> {
        let sequence = Sequence::of(EVENTS);
        (0..EVENTS).map(|event| (part(event), sequence.told(event))).collect()
    }

    #[test]
    fn each_part_has_its_share_in_every_round() {
        for from in [0, 17, 123_456] {
            let count = |of| (from..from + ROUND).filter(|event| part(*event) == of).count();
            let parts = [Part::Poison, Part::Late, Part::Repeat, Part::Update, Part::New];
            assert_eq!(parts.map(count), [2, 48, 100, 400, 451], "from {from}");
        }
        // Even a short soak has some of each but the rare.
        let few: Vec<Part> = (0..30).map(part).collect();
        for of in [Part::Poison, Part::Late, Part::Repeat, Part::Update, Part::New] {
            assert!(few.contains(&of), "{of:?}");
        }
    }

    #[test]
    fn what_is_new_is_new_and_what_is_repeated_was_there() {
        let mut there = HashSet::new();
        let mut repeated = 0;
        for (part, told) in told() {
            match (part, told) {
                (Part::New | Part::Poison, Told::New(number) | Told::Poison(number)) => {
                    assert!(there.insert(number), "{number} twice");
                }
                (Part::Repeat, Told::New(number)) if there.contains(&number) => repeated += 1,
                _ => {}
            }
        }
        assert!(repeated > EVENTS / 11, "{repeated}");
    }

    #[test]
    fn each_update_is_newer_and_each_late_one_older_than_what_stands() {
        let mut ages: HashMap<u64, u64> = HashMap::new();
        let (mut updates, mut late) = (0, 0);
        for (part, told) in told() {
            let Told::Known { number, age } = told else { continue };
            assert!(age > 0, "nothing of the population is as new as what is new");
            match part {
                Part::Update => {
                    let before = ages.insert(number, age);
                    assert!(before.is_none_or(|before| before > age), "{number}: {before:?} {age}");
                    updates += 1;
                }
                Part::Late => {
                    assert!(ages.get(&number).is_some_and(|stands| *stands < age), "{number}");
                    late += 1;
                }
                _ => panic!("{part:?} tells {told:?}"),
            }
        }
        assert!(updates > 10 * ages.len(), "{updates} of {}", ages.len());
        assert!(late > usize::try_from(EVENTS).unwrap() / 25, "{late}");
    }

    #[test]
    fn the_population_fits_the_length() {
        assert_eq!(Sequence::of(1).population, 1);
        assert_eq!(Sequence::of(6_000).population, 100);
        assert_eq!(Sequence::of(10_000_000).population, POPULATION);
    }

    #[test]
    fn every_poison_has_its_turn() {
        let nth: HashSet<u64> = told()
            .into_iter()
            .filter_map(|(_, told)| match told {
                // As the generator counts them.
                Told::Poison(number) => Some(number.saturating_sub(1) % 5),
                _ => None,
            })
            .collect();
        assert_eq!(nth.len(), 5);
    }

    #[test]
    fn what_is_looked_at_is_like_what_is_not() {
        for rate in [1, 9, 50, 500, 5_000] {
            let stride = stride(NonZeroU32::new(rate).unwrap(), 10);
            let looked: Vec<usize> = (0..3_000).map(|nth| nth * stride).collect();
            let of = |payload| looked.iter().filter(|nth| *nth % 3 == payload).count();
            assert_eq!([0, 1, 2].map(of), [1_000; 3], "{rate}/s, every {stride}th");
            let parts: HashSet<String> = looked
                .iter()
                .map(|nth| format!("{:?}", part(u64::try_from(*nth).unwrap() / 3)))
                .collect();
            assert_eq!(parts.len(), 5, "{rate}/s, every {stride}th");
        }
    }
}
