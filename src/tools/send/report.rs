//! What was answered, and what the books must show for it.

pub mod expected;
mod table;

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde::Serialize;

use super::{
    Sent,
    campaign::Campaign,
    plan::{Counts, Part, Step},
    post::{Answer, Poster},
    rehearse::Fate,
};
use expected::Expected;

/// The summary of a campaign; `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The source that it was sent to.
    pub source: String,
    /// The address that it was posted to.
    pub url: String,
    /// The run's id; null for files.
    pub run: Option<String>,
    /// The run's seed; null for files.
    pub seed: Option<u64>,
    /// How many deliveries of each part were planned.
    pub plan: Planned,
    /// How many deliveries got which status; `no answer` for none.
    pub answers: BTreeMap<String, u32>,
    /// Deliveries with the answer they should have: 2xx, 401 if forged, 422 for
    /// what a callback's receiver refuses.
    pub as_expected: u32,
    /// Deliveries with another answer, or none.
    pub not_as_expected: u32,
    /// Deliveries that were planned and not sent, after an interruption.
    pub unsent: u32,
    /// How often a delivery was sent again (`--retry`).
    pub resends: u32,
    /// The time from a request to its whole answer.
    pub latency_ms: Latency,
    /// Answers in a second of sending.
    pub per_second: f64,
    /// The time of sending, in milliseconds, without the pause to settle.
    pub took_ms: f64,
    /// What these deliveries add to the books.
    pub expected: Expected,
    /// The number of the document that most deliveries were about: its story
    /// is worth a look.
    pub story: Option<String>,
}

/// How many deliveries of each part were planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// All of them.
    pub deliveries: u32,
    /// First deliveries of events that can be applied (of files: of events).
    pub unique: u32,
    /// Repeats.
    pub duplicates: u32,
    /// Older versions after the newer one.
    pub late: u32,
    /// What cannot be applied.
    pub poison: u32,
    /// What nobody's secret has signed.
    pub forged: u32,
}

impl From<Counts> for Planned {
    fn from(counts: Counts) -> Self {
        let deliveries = counts.deliveries();
        let Counts { unique, duplicates, late, poison, forged } = counts;
        Self { deliveries, unique, duplicates, late, poison, forged }
    }
}

/// Percentiles by nearest rank, in milliseconds; null without an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the answers took at most this.
    pub p50: Option<f64>,
    /// 90 % of them.
    pub p90: Option<f64>,
    /// 99 % of them.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

/// How a campaign went, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every delivery got the answer it should have.
    All,
    /// Some did.
    Some,
    /// None did.
    None,
}

impl Report {
    /// Sums a campaign up.
    pub fn new(campaign: &Campaign, poster: &Poster, sent: &Sent, story: Option<String>) -> Self {
        let plan = Planned::from(campaign.plan.counts);
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        let (mut as_expected, mut resends, mut told) = (0, 0, 0);
        let mut latencies = Vec::with_capacity(sent.answers.len());
        for (step, answer) in &sent.answers {
            let word = answer.status.as_ref().map_or("no answer", StatusCode::as_str);
            *answers.entry(word.to_owned()).or_default() += 1;
            as_expected += u32::from(is_as_expected(campaign, *step, *answer));
            resends += answer.resends;
            told += 1;
            if answer.status.is_some() {
                latencies.push(answer.latency);
            }
        }
        let run = campaign.run();
        Self {
            source: campaign.source.to_string(),
            url: poster.url().to_string(),
            run: run.map(|run| run.id.clone()),
            seed: run.map(|run| run.seed),
            plan,
            answers,
            as_expected,
            not_as_expected: told + sent.abandoned - as_expected,
            unsent: plan.deliveries.saturating_sub(told + sent.abandoned),
            resends,
            latency_ms: Latency::of(latencies),
            per_second: per_second(told, sent.took),
            took_ms: milliseconds(sent.took),
            expected: Expected::of(campaign, sent),
            story,
        }
    }

    /// How it went.
    pub fn verdict(&self) -> Verdict {
        if self.as_expected == self.plan.deliveries {
            Verdict::All
        } else if self.as_expected > 0 {
            Verdict::Some
        } else {
            Verdict::None
        }
    }

    /// The summary for people.
    pub fn table(&self) -> String {
        table::render(self)
    }
}

fn is_as_expected(campaign: &Campaign, step: Step, answer: Answer) -> bool {
    answer.status.is_some_and(|status| match step.part {
        Part::Forged => status == StatusCode::UNAUTHORIZED,
        _ if campaign.fate(step) == Fate::Refused => status == StatusCode::UNPROCESSABLE_ENTITY,
        _ => status.is_success(),
    })
}

impl Latency {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100);
            latencies.get(rank.checked_sub(1)?).copied().map(milliseconds)
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}

#[expect(clippy::float_arithmetic, reason = "a time to be shown, no money")]
fn milliseconds(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[expect(clippy::float_arithmetic, reason = "a rate to be shown, no money")]
fn per_second(count: u32, took: Duration) -> f64 {
    let seconds = took.as_secs_f64();
    if seconds > 0.0 { (f64::from(count) / seconds * 10.0).round() / 10.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let latency = Latency::of((1..=200).rev().map(Duration::from_millis).collect());
        let expected = [100.0, 180.0, 198.0, 200.0].map(Some);
        assert_eq!([latency.p50, latency.p90, latency.p99, latency.max], expected);
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn a_rate_is_answers_in_a_second() {
        assert_eq!(per_second(100, Duration::from_millis(400)).to_string(), "250");
        assert_eq!(per_second(1, Duration::ZERO).to_string(), "0");
    }
}
