//! The measured figures. As JSON, the keys are a contract.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{machine::Machine, measure::Percentiles, soak::Soak};

/// All figures; scenarios that did not run are absent.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(super) machine: Machine,
    pub(super) settings: RunSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) receive: Option<Receive>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drain: Option<Drain>,
    /// By the number of processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<BTreeMap<u32, WorkerThroughput>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_to_end: Option<EndToEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dedupe_at_scale: Option<Dedupe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<Limits>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) soak: Option<Soak>,
}

impl Report {
    /// Whether a soak did not account for every message.
    pub(crate) fn lost_messages(&self) -> bool {
        self.soak.as_ref().is_some_and(|soak| !soak.reconciliation.complete)
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct RunSettings {
    /// Figures are medians over so many runs.
    pub(super) runs: u32,
    pub(super) connections: usize,
    /// Messages in a backlog, unless memory limits them.
    pub(super) messages: u32,
    /// Length of each load.
    pub(super) seconds: f64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Receive {
    /// Of the 2 kB payload.
    #[serde(flatten)]
    pub(super) headline: Received,
    pub(super) payloads: BTreeMap<&'static str, Received>,
    /// All payloads alternately.
    pub(super) mixed: Received,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Received {
    /// The maximum rate, each webhook confirmed before its response.
    pub(super) per_second: f64,
    /// Latency at half of that rate, from when a request was due.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// The maximum rate relative to the bare confirmed publish behind HTTP.
    pub(super) ratio_to_bare_publish: f64,
    pub(super) bare_publish_per_second: f64,
    /// Latencies at the maximum rate.
    pub(super) at_maximum: Percentiles,
    /// Latencies at half of it.
    pub(super) at_half: Percentiles,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Drain {
    /// Of the 2 kB payload.
    #[serde(flatten)]
    pub(super) headline: Drained,
    pub(super) payloads: BTreeMap<&'static str, Drained>,
    /// Duplicates only, relative to new messages.
    pub(super) ratio_of_duplicates_to_new: f64,
    /// With 1 % poison, relative to none.
    pub(super) ratio_with_poison: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Drained {
    /// Messages a second, until the last commit.
    pub(super) per_second: f64,
    /// Relative to one transaction a message, 16 at a time.
    pub(super) ratio_to_row_at_a_time: f64,
    /// Relative to a bare insert of the same rows from memory.
    pub(super) ratio_to_set_insert: f64,
    pub(super) row_at_a_time_per_second: f64,
    pub(super) set_insert_per_second: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct WorkerThroughput {
    /// Messages a second by all processes together.
    pub(super) per_second: f64,
    /// Relative to one process.
    pub(super) ratio_to_one: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct EndToEnd {
    /// Arrivals a second.
    pub(super) rate: u32,
    /// From when a webhook was due until its rows were visible.
    #[serde(flatten)]
    pub(super) times: Percentiles,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Dedupe {
    /// Keys in the full inbox.
    pub(super) keys: u64,
    /// Table and index.
    pub(super) bytes_per_key: f64,
    /// Claims a second, relative to an empty inbox.
    pub(super) ratio_to_empty: f64,
    pub(super) per_second: f64,
    pub(super) empty_per_second: f64,
    /// Messages a second in whole transactions, relative to an empty inbox.
    pub(super) drain_ratio_to_empty: f64,
    pub(super) drain_per_second: f64,
    pub(super) empty_drain_per_second: f64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Memory {
    pub(super) idle_mib: f64,
    /// The maximum while 28 kB bodies arrived.
    pub(super) full_mib: f64,
}

/// Limits of the servers, with the 2 kB payload.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the JSON keys have units")]
pub(super) struct Limits {
    /// Confirmed publishes from memory.
    pub(super) publish_per_second: f64,
    /// Confirmed publishes behind HTTP.
    pub(super) http_publish_per_second: f64,
    /// Messages inserted from memory.
    pub(super) set_insert_per_second: f64,
    /// Messages with one transaction each.
    pub(super) row_at_a_time_per_second: f64,
}
