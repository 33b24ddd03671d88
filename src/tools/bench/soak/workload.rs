//! The messages of a soak. Each is derived from its number alone, so memory
//! does not grow with the length of the soak.
//!
//! Payloads alternate. Of 20 messages of a payload 9 are new, 8 update one of
//! a fixed population of documents, 2 are duplicates and 1 is a late older
//! version. One new message in a hundred is poison.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use anyhow::Context as _;
use http::Uri;

use crate::{
    domain::SourceName,
    sources::Source,
    tools::bench::{
        backlog::{self, Mix},
        environment::BenchEnvironment,
        load::{self, PreparedRequest},
        payload::Payload,
    },
    tools::send::{
        plan::{Step, StepKind},
        scenario::SendScenario,
    },
};

const CYCLE: u64 = 20;
/// Updates in a cycle.
const UPDATES: u64 = 8;
/// The maximum number of documents that are updated repeatedly.
const MAX_POPULATION: u64 = 5_000;
/// The minimum number of updates of each of them.
const MIN_UPDATES: u64 = 25;
/// The generator numbers the documents of one run with 20 bits.
const RUN_SIZE: u64 = 1 << 20;
/// The minimum number of updates between a document's state and a late older
/// version, so that both are not in flight at once.
const MIN_LATE_DISTANCE: u64 = 8;
/// Commit probes a second, about.
const PROBES_PER_SECOND: u32 = 10;

/// The content of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The document with this number.
    New(u64),
    /// A document of the population as it was `age` minutes earlier.
    Population { number: u64, age: u64 },
    /// The document with this number, made invalid.
    Poison(u64),
}

pub(super) struct Workload {
    sources: Arc<BTreeMap<SourceName, Source>>,
    payloads: Vec<SourceWorkload>,
    population: u64,
    /// Updates of each document of the population, at least.
    updates: u64,
}

struct SourceWorkload {
    payload: Payload,
    uri: Uri,
    population: SendScenario,
    /// New documents, [`RUN_SIZE`] in each run.
    runs: Vec<SendScenario>,
}

impl Workload {
    pub(super) fn new(environment: &BenchEnvironment, total: usize) -> anyhow::Result<Self> {
        let events = u64::try_from(total.div_ceil(Payload::ALL.len()))?;
        let source = |payload: Payload| {
            let scenario = || backlog::scenario(environment, payload, 1, Mix::default());
            let runs = events.div_ceil(RUN_SIZE).max(1);
            anyhow::Ok(SourceWorkload {
                payload,
                uri: load::uri(&payload.source_name()?)?,
                population: scenario()?,
                runs: (0..runs).map(|_| scenario()).collect::<anyhow::Result<_>>()?,
            })
        };
        let (population, updates) = population(events);
        Ok(Self {
            sources: Arc::clone(&environment.components.sources),
            payloads: Payload::ALL.into_iter().map(source).collect::<anyhow::Result<_>>()?,
            population,
            updates,
        })
    }

    /// The request with this number, signed now.
    pub(super) fn request(&self, number: usize) -> anyhow::Result<PreparedRequest> {
        let workload = &self.payloads[number % self.payloads.len()];
        let content = content(event_number(number), self.population, self.updates);
        let (scenario, kind, number, age) = match content {
            Content::Population { number, age } => {
                (&workload.population, StepKind::Unique, number, age)
            }
            Content::New(number) => (workload.run(number)?, StepKind::Unique, number % RUN_SIZE, 0),
            Content::Poison(number) => {
                (workload.run(number)?, StepKind::Poison, number % RUN_SIZE, 0)
            }
        };
        let step = Step { kind, event: u32::try_from(number)?, age: u32::try_from(age)? };
        let source = self.sources.get(&scenario.source).context("the bench has no such source")?;
        Ok(load::signed(source, scenario, workload.payload, &workload.uri, step))
    }
}

impl SourceWorkload {
    fn run(&self, number: u64) -> anyhow::Result<&SendScenario> {
        let run = self.runs.get(usize::try_from(number / RUN_SIZE)?);
        run.context("the soak is longer than planned")
    }
}

/// The number of an event among those of its payload.
fn event_number(number: usize) -> u64 {
    u64::try_from(number / Payload::ALL.len()).unwrap_or(u64::MAX)
}

/// The size of the population and the updates of each document.
fn population(events: u64) -> (u64, u64) {
    let updates = events * UPDATES / CYCLE + UPDATES;
    let population = (updates / MIN_UPDATES).clamp(1, MAX_POPULATION);
    (population, updates / population + 1)
}

/// Whether the message with this number cannot be applied.
pub(super) fn is_poison(number: usize) -> bool {
    matches!(content(event_number(number), 1, 1), Content::Poison(_))
}

fn content(event: u64, population: u64, updates: u64) -> Content {
    let (cycle, slot) = (event / CYCLE, event % CYCLE);
    let update = |index: u64| {
        // A document becomes two minutes younger with each update; a late
        // version is between two updates.
        let age = 2 * updates.saturating_sub(index / population).max(1);
        Content::Population { number: index % population, age }
    };
    match slot {
        // Slots 2 and 12 are new: this repeats one at once and one from before.
        3 => Content::New(event - 1),
        13 => Content::New(cycle / 2 * CYCLE + 12),
        0 => {
            let distance = (population / 2).max(MIN_LATE_DISTANCE);
            match (cycle * UPDATES).checked_sub(distance).map(update) {
                Some(Content::Population { number, age }) => {
                    Content::Population { number, age: age + 1 }
                }
                _ => Content::New(event),
            }
        }
        1 | 5 | 7 | 9 | 11 | 15 | 17 | 19 => {
            let index = [1, 5, 7, 9, 11, 15, 17, 19].iter().position(|update| *update == slot);
            update(cycle * UPDATES + index.unwrap_or_default() as u64)
        }
        4 if cycle.is_multiple_of(11) => Content::Poison(event),
        _ => Content::New(event),
    }
}

/// The distance of probed messages, for about [`PROBES_PER_SECOND`]. Without a
/// common factor with the payloads and the cycle, so all kinds are probed.
pub(super) fn probe_stride(rate: NonZeroU32) -> usize {
    let period = Payload::ALL.len() * 20;
    let wanted = usize::try_from(rate.get() / PROBES_PER_SECOND).unwrap_or(usize::MAX - period);
    if wanted <= 1 { 1 } else { wanted.next_multiple_of(period) + 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const EVENTS: u64 = 20_000;

    fn contents() -> Vec<Content> {
        let (population, updates) = population(EVENTS);
        (0..EVENTS).map(|event| content(event, population, updates)).collect()
    }

    #[test]
    fn new_documents_are_new_and_duplicates_were_sent() {
        let (mut sent, mut duplicates) = (HashSet::new(), 0);
        for (event, content) in (0..).zip(contents()) {
            if let Content::New(number) | Content::Poison(number) = content {
                let is_new = sent.insert(number);
                assert_eq!(is_new, number == event, "{content:?}");
                duplicates += u64::from(!is_new);
            }
        }
        assert_eq!(duplicates, EVENTS / 10);
    }

    #[test]
    fn updates_are_newer_and_late_versions_older() {
        let mut ages: HashMap<u64, u64> = HashMap::new();
        let (mut updates, mut late) = (0, 0);
        for (event, content) in (0..EVENTS).zip(contents()) {
            let Content::Population { number, age } = content else { continue };
            if event % CYCLE == 0 {
                assert!(ages.get(&number).is_some_and(|current| *current < age), "{number}");
                late += 1;
            } else {
                let before = ages.insert(number, age);
                assert!(before.is_none_or(|before| before > age), "{number}: {before:?} {age}");
                updates += 1;
            }
        }
        assert_eq!(updates, EVENTS * UPDATES / CYCLE);
        assert!(late > EVENTS / CYCLE * 9 / 10, "{late}");
    }

    #[test]
    fn one_percent_of_the_new_is_poison() {
        let contents = contents();
        let poison = contents.iter().filter(|content| matches!(content, Content::Poison(_)));
        assert_eq!(poison.count(), 91);
        let numbers = 0..usize::try_from(EVENTS).unwrap() * 3;
        assert_eq!(numbers.filter(|number| is_poison(*number)).count(), 3 * 91);
    }

    #[test]
    fn probe_stride_covers_all_payloads_and_slots() {
        for rate in [1, 9, 50, 500, 5_000] {
            let stride = probe_stride(NonZeroU32::new(rate).unwrap());
            let probed: HashSet<usize> = (0..60).map(|index| index * stride % 60).collect();
            assert_eq!(probed.len(), 60, "{rate}/s, stride {stride}");
        }
    }
}
