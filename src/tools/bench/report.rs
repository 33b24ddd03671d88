//! What was measured. As JSON, its keys are a contract; figures of each
//! payload stand beside the headline's, which are those of the 2 kB one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    machine::Machine,
    measure::{Percentiles, median, round},
    soak::Soak,
};

/// Everything that was measured; what was not asked for is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// How.
    pub settings: How,
    /// `receive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<Receive>,
    /// `drain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// `workers`, by how many there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<BTreeMap<u32, AtOnce>>,
    /// `end-to-end`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end: Option<EndToEnd>,
    /// `dedupe-at-scale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedupe_at_scale: Option<Dedupe>,
    /// `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// `baseline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Limits>,
    /// `soak`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<Soak>,
}

/// How it was measured.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct How {
    /// Runs; figures are medians over them.
    pub runs: u32,
    /// HTTP connections.
    pub connections: usize,
    /// Messages in a backlog, where their bodies fit into memory.
    pub messages: u32,
    /// How long each load lasted, in seconds.
    pub seconds: f64,
}

/// Taking webhooks in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Receive {
    /// The headline's.
    #[serde(flatten)]
    pub headline: Received,
    /// Each payload's.
    pub payloads: BTreeMap<&'static str, Received>,
    /// All payloads in turns, over their sources.
    pub mixed: Mixed,
}

/// Taking webhooks of all payloads in, each connection sending when its last
/// one was answered.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Mixed {
    /// The most a second, confirmed before each answer.
    pub per_second: f64,
    /// How long answers took at this rate.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// Against the bare confirmed publish of the same behind HTTP.
    pub ratio_to_bare_publish: f64,
    /// That one's.
    pub bare_per_second: f64,
}

/// Taking webhooks of one payload in.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Received {
    /// The most a second, confirmed before each answer.
    pub per_second: f64,
    /// At half of that, from when a request was due to its answer.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// The maximum against the bare confirmed publish behind HTTP.
    pub ratio_to_bare_publish: f64,
    /// That one's.
    pub bare_per_second: f64,
    /// How long answers took at the maximum rate.
    pub at_maximum: Percentiles,
    /// How long they took at half of it.
    pub at_half: Percentiles,
}

/// Draining a backlog.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drain {
    /// The headline's.
    #[serde(flatten)]
    pub headline: Drained,
    /// Each payload's.
    pub payloads: BTreeMap<&'static str, Drained>,
    /// A backlog of nothing but duplicates against one of new messages.
    pub ratio_of_duplicates_to_new: f64,
    /// A backlog with 1 % of poison against one without.
    pub ratio_with_poison: f64,
}

/// Draining a backlog of one payload.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Drained {
    /// Messages a second, until the last one's commit.
    pub per_second: f64,
    /// Against one transaction a message, sixteen at once.
    pub ratio_to_one_by_one: f64,
    /// Against the same rows inserted from memory.
    pub ratio_to_bare_set_insert: f64,
    /// One transaction a message.
    pub one_by_one_per_second: f64,
    /// From memory.
    pub bare_set_insert_per_second: f64,
}

/// Draining a backlog by several worker processes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AtOnce {
    /// Messages a second by all of them together, until the last one's commit.
    pub per_second: f64,
    /// Against one process.
    pub ratio_to_one: f64,
}

/// From the shop to the books.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EndToEnd {
    /// How many were due a second.
    pub rate: u32,
    /// From when a webhook was due until its transaction's commit came back.
    #[serde(flatten)]
    pub times: Percentiles,
}

/// The inbox when it is full.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Dedupe {
    /// Keys in it.
    pub keys: u64,
    /// What each of them takes, with its share of the index.
    pub bytes_per_key: f64,
    /// Claims a second against an empty inbox.
    pub ratio_to_empty: f64,
    /// Claims a second.
    pub per_second: f64,
    /// Claims a second in an empty inbox.
    pub empty_per_second: f64,
    /// Whole transactions, of 2 kB messages, against those with an empty inbox.
    pub drain_ratio_to_empty: f64,
    /// Messages a second in these.
    pub drain_per_second: f64,
    /// Messages a second with an empty inbox.
    pub empty_drain_per_second: f64,
}

/// Resident memory of `tallyhook serve`.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// When nothing has come yet, in MiB.
    pub idle_mib: f64,
    /// The most while 28 kB bodies came as fast as they were taken, in MiB.
    pub full_mib: f64,
}

/// The raw limits, with the 2 kB payload.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Limits {
    /// Confirmed publishes from memory a second.
    pub publish_per_second: f64,
    /// Confirmed publishes behind HTTP a second.
    pub http_publish_per_second: f64,
    /// Messages consumed and acknowledged a second.
    pub consume_per_second: f64,
    /// Messages inserted from memory a second.
    pub set_insert_per_second: f64,
    /// Messages a second with one transaction each.
    pub one_by_one_per_second: f64,
}

/// The median over runs, rounded for people.
pub fn settled(runs: impl IntoIterator<Item = f64>, decimals: i32) -> f64 {
    round(median(runs), decimals)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_keys_are_the_contract() {
        let report = Report {
            receive: Some(Receive::default()),
            drain: Some(Drain::default()),
            workers: Some([(1, AtOnce::default()), (4, AtOnce::default())].into()),
            end_to_end: Some(EndToEnd::default()),
            dedupe_at_scale: Some(Dedupe::default()),
            memory: Some(Memory::default()),
            soak: Some(Soak::default()),
            ..Report::default()
        };
        let told = serde_json::to_value(report).unwrap();
        for (section, keys) in [
            ("receive", &["per_second", "p50_ms", "p99_ms", "ratio_to_bare_publish"][..]),
            ("drain", &["per_second", "ratio_to_one_by_one", "ratio_to_bare_set_insert"]),
            ("end_to_end", &["p50_ms", "p99_ms"]),
            (
                "dedupe_at_scale",
                &["keys", "bytes_per_key", "ratio_to_empty", "drain_ratio_to_empty"],
            ),
            ("memory", &["idle_mib", "full_mib"]),
            ("soak", &["rate", "seconds", "interval_seconds"]),
        ] {
            for key in keys {
                assert!(told[section][key].is_number(), "{section}.{key}: {told:#}");
            }
        }
        for workers in ["1", "4"] {
            for key in ["per_second", "ratio_to_one"] {
                assert!(told["workers"][workers][key].is_number(), "{workers}, {key}: {told:#}");
            }
        }
        assert_eq!(told["baseline"], Value::Null, "not asked for, and so not told");
        assert_eq!(told["receive"]["payloads"], json!({}));
        for key in ["per_second", "p50_ms", "p99_ms", "ratio_to_bare_publish"] {
            assert!(told["receive"]["mixed"][key].is_number(), "{key}: {told:#}");
        }
        assert_eq!(told["soak"]["steady"], false, "nothing was soaked");
    }
}
