//! The responses, and the outcomes that must be on record.

mod expected;
mod table;

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;
use serde::Serialize;

use super::{
    Sent,
    plan::{Counts, Step, StepKind},
    post::{PostResult, Poster},
    predict::PredictedOutcome,
    scenario::SendScenario,
};
use expected::ExpectedOutcomes;

/// The summary of a run; `--json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SendReport {
    pub(crate) source: String,
    pub(crate) url: String,
    /// The id of the run; null for files.
    pub(crate) run: Option<String>,
    /// Null for files.
    pub(crate) seed: Option<u64>,
    pub(crate) plan: Planned,
    /// Webhooks by status; `none` without a response.
    pub(crate) responses: BTreeMap<String, u32>,
    /// Webhooks with the expected status: 2xx, 401 if forged, 422 if the source
    /// rejects poison.
    pub(crate) as_expected: u32,
    /// Webhooks with another status or none.
    pub(crate) not_as_expected: u32,
    /// Webhooks that were not sent after an interruption.
    pub(crate) unsent: u32,
    /// Retries (`--retry`).
    pub(crate) resends: u32,
    /// The time from a request to the end of its response.
    pub(crate) latency_ms: Latency,
    /// Responses a second.
    pub(crate) per_second: f64,
    /// Time of sending in milliseconds, without the pause.
    pub(crate) duration_ms: f64,
    /// The outcomes that these webhooks add.
    pub(crate) expected: ExpectedOutcomes,
    /// The number of the document with the most webhooks, for `tallyhook trace`.
    pub(crate) trace_number: Option<String>,
}

/// Planned webhooks by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Planned {
    /// All of them.
    pub(crate) webhooks: u32,
    #[serde(flatten)]
    pub(crate) counts: Counts,
}

/// Percentiles by nearest rank, in milliseconds; null without a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: Option<f64>,
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

/// The result of a run, for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// Every webhook got the expected status.
    All,
    Some,
    None,
}

impl SendReport {
    pub(crate) fn new(
        scenario: &SendScenario,
        poster: &Poster,
        sent: &Sent,
        trace_number: Option<String>,
    ) -> Self {
        let counts = scenario.plan.counts;
        let plan = Planned { webhooks: counts.total(), counts };
        let mut responses: BTreeMap<String, u32> = BTreeMap::new();
        let (mut as_expected, mut resends, mut count) = (0, 0, 0);
        let mut latencies = Vec::with_capacity(sent.results.len());
        for (step, result) in &sent.results {
            let status = result.status.as_ref().map_or("none", StatusCode::as_str);
            *responses.entry(status.to_owned()).or_default() += 1;
            as_expected += u32::from(is_as_expected(scenario, *step, *result));
            resends += result.resends;
            count += 1;
            if result.status.is_some() {
                latencies.push(result.latency);
            }
        }
        let run = scenario.run();
        Self {
            source: scenario.source.to_string(),
            url: poster.url().to_string(),
            run: run.map(|run| run.id.clone()),
            seed: run.map(|run| run.seed),
            plan,
            responses,
            as_expected,
            not_as_expected: count + sent.abandoned - as_expected,
            unsent: plan.webhooks.saturating_sub(count + sent.abandoned),
            resends,
            latency_ms: Latency::of(latencies),
            per_second: per_second(count, sent.duration),
            duration_ms: milliseconds(sent.duration),
            expected: ExpectedOutcomes::new(scenario, sent),
            trace_number,
        }
    }

    pub(crate) fn outcome(&self) -> SendOutcome {
        if self.as_expected == self.plan.webhooks {
            SendOutcome::All
        } else if self.as_expected > 0 {
            SendOutcome::Some
        } else {
            SendOutcome::None
        }
    }

    /// The summary as a table.
    pub(crate) fn table(&self) -> String {
        table::render(self)
    }
}

fn is_as_expected(scenario: &SendScenario, step: Step, result: PostResult) -> bool {
    result.status.is_some_and(|status| match step.kind {
        StepKind::Forged => status == StatusCode::UNAUTHORIZED,
        _ if scenario.predicted_outcome(step) == PredictedOutcome::Rejected => {
            status == StatusCode::UNPROCESSABLE_ENTITY
        }
        _ => status.is_success(),
    })
}

impl Latency {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |per_mille| nearest_rank(&latencies, per_mille).map(milliseconds);
        Self { p50: at(500), p90: at(900), p99: at(990), max: at(1000) }
    }
}

/// The percentile of sorted times by nearest rank; `None` of nothing.
pub(crate) fn nearest_rank(sorted: &[Duration], per_mille: usize) -> Option<Duration> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[expect(clippy::float_arithmetic, reason = "a time, not money")]
fn milliseconds(duration: Duration) -> f64 {
    f64::from(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}

#[expect(clippy::float_arithmetic, reason = "a rate, not money")]
fn per_second(count: u32, duration: Duration) -> f64 {
    let seconds = duration.as_secs_f64();
    if seconds > 0.0 { (f64::from(count) / seconds * 10.0).round() / 10.0 } else { 0.0 }
}
