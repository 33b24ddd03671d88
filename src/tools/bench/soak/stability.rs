//! Compares the last third of the samples with the first third, after a
//! warm-up of one tenth. A falling figure is stable too: a soak looks for growth.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sample::Sample;
use crate::tools::bench::{
    baseline::table_stats::TABLES,
    measure::{from_i64, from_usize, median, ratio, round},
};

/// A figure in the first and in the last third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(in crate::tools::bench) struct Trend {
    pub(super) first: f64,
    pub(super) last: f64,
    /// The last relative to the first; 0 if the first is 0.
    pub(super) ratio: f64,
    /// Whether the last is within the tolerance.
    pub(super) stable: bool,
}

/// The last third may be at most `first * factor + offset`.
#[derive(Clone, Copy, Debug)]
struct Tolerance {
    factor: f64,
    offset: f64,
}

/// The median varies little, except for the resolution of timers.
const MEDIAN: Tolerance = Tolerance { factor: 1.25, offset: 1.0 };
/// Other load on the machine affects the slowest percent.
const P99: Tolerance = Tolerance { factor: 1.5, offset: 5.0 };
/// In MiB.
const MEMORY: Tolerance = Tolerance { factor: 1.1, offset: 4.0 };
const ROW_SIZE: Tolerance = Tolerance { factor: 1.1, offset: 0.0 };
/// The share of dead tuples rises until autovacuum runs.
const DEAD_SHARE: Tolerance = Tolerance { factor: 1.0, offset: 0.05 };
/// After a checkpoint, the first change of a page writes the whole page.
const WAL: Tolerance = Tolerance { factor: 1.25, offset: 0.0 };

/// The number of figures.
pub(super) const FIGURES: usize = 6 + 2 * TABLES.len();

/// The trends by figure. A figure without values in both thirds is absent.
pub(super) fn trends(samples: &[Sample]) -> BTreeMap<String, Trend> {
    let mut trends = BTreeMap::new();
    let Some((first, last)) = thirds(samples) else { return trends };
    let mut add = |name: String, decimals, tolerance, figure: &Figure<'_>| {
        if let (Some(first), Some(last)) = (figure(first), figure(last)) {
            trends.insert(name, trend(first, last, decimals, tolerance));
        }
    };
    for (name, tolerance, value) in [
        ("responses_p50_ms", MEDIAN, (|sample| Some(sample.responses?.p50_ms)) as Value),
        ("responses_p99_ms", P99, |sample| Some(sample.responses?.p99_ms)),
        ("commits_p50_ms", MEDIAN, |sample| Some(sample.commits?.p50_ms)),
        ("commits_p99_ms", P99, |sample| Some(sample.commits?.p99_ms)),
        ("resident_mib", MEMORY, |sample| Some(sample.resident_mib)),
    ] {
        add(name.to_owned(), 3, tolerance, &|third| sample_median(third, value));
    }
    add("wal_bytes_per_message".to_owned(), 0, WAL, &wal_bytes_per_message);
    for table in TABLES {
        add(format!("{table}_bytes_per_row"), 1, ROW_SIZE, &|third| {
            sample_median(third, |sample| Some(sample.tables.get(table)?.bytes_per_row))
        });
        add(format!("{table}_dead_share"), 4, DEAD_SHARE, &|third| {
            sample_median(third, |sample| Some(sample.tables.get(table)?.dead_share))
        });
    }
    trends
}

/// A figure of some samples, if they have it.
type Figure<'a> = dyn Fn(&[Sample]) -> Option<f64> + 'a;
/// A figure of one sample, if it has it.
type Value = fn(&Sample) -> Option<f64>;

/// The median over the samples that have a value.
pub(super) fn sample_median(
    samples: &[Sample],
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<f64> {
    let values: Vec<f64> = samples.iter().filter_map(value).collect();
    (!values.is_empty()).then(|| median(values))
}

/// The first and the last third after the warm-up, of two samples or more.
fn thirds<T>(samples: &[T]) -> Option<(&[T], &[T])> {
    let warm = samples.get(samples.len().div_ceil(10)..)?;
    if warm.len() < 2 {
        return None;
    }
    let third = (warm.len() / 3).max(1);
    Some((&warm[..third], &warm[warm.len() - third..]))
}

/// Over the whole third, because checkpoints affect single samples.
fn wal_bytes_per_message(third: &[Sample]) -> Option<f64> {
    let bytes: i64 = third.iter().map(|sample| sample.wal_bytes).sum();
    let messages: usize = third.iter().map(|sample| sample.accepted).sum();
    (messages > 0).then(|| ratio(from_i64(bytes), from_usize(messages)))
}

fn trend(first: f64, last: f64, decimals: i32, tolerance: Tolerance) -> Trend {
    Trend {
        first: round(first, decimals),
        last: round(last, decimals),
        ratio: round(ratio(last, first), 3),
        stable: last <= first * tolerance.factor + tolerance.offset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::{measure::Percentiles, soak::sample::TableSample};

    /// A hundred samples; all figures of the nth are `figure(n)`.
    fn samples(figure: impl Fn(u32) -> u32) -> Vec<Sample> {
        let sample = |nth| {
            let figure = figure(nth);
            let bytes = 10 * i64::from(figure);
            let figure = f64::from(figure);
            let times = Percentiles { p50_ms: figure, p99_ms: figure, ..Percentiles::default() };
            let table = TableSample {
                bytes_per_row: figure,
                dead_share: figure / 1000.0,
                ..TableSample::default()
            };
            Sample {
                accepted: 10,
                responses: Some(times),
                commits: Some(times),
                resident_mib: figure,
                wal_bytes: bytes,
                tables: TABLES.into_iter().map(|name| (name, table)).collect(),
                ..Sample::default()
            }
        };
        (0..100).map(sample).collect()
    }

    #[test]
    fn thirds_leave_out_the_warm_up() {
        let numbers: Vec<usize> = (0..100).collect();
        let (first, last) = thirds(&numbers).unwrap();
        assert_eq!((first[0], first.len(), last[0], last.len()), (10, 30, 70, 30));
        for few in 0..3 {
            assert_eq!(thirds(&numbers[..few]), None, "{few}");
        }
        assert_eq!(thirds(&numbers[..3]), Some((&numbers[1..2], &numbers[2..3])));
    }

    #[test]
    fn rising_figures_are_unstable_and_others_stable() {
        let rising = trends(&samples(|nth| nth + 1));
        assert_eq!(rising.len(), FIGURES);
        assert!(rising.values().all(|trend| !trend.stable), "{rising:?}");
        let memory = rising["resident_mib"];
        assert!((memory.first - 25.5).abs() < 1e-9 && (memory.ratio - 3.353).abs() < 1e-9);
        for trends in [trends(&samples(|_| 40)), trends(&samples(|nth| 200 - nth))] {
            assert_eq!(trends.len(), FIGURES);
            assert!(trends.values().all(|trend| trend.stable), "{trends:?}");
        }
    }

    #[test]
    fn intervals_without_values_are_skipped() {
        let mut samples = samples(|_| 40);
        for sample in samples.iter_mut().step_by(2) {
            (sample.responses, sample.commits) = (None, None);
        }
        assert!((trends(&samples)["responses_p50_ms"].last - 40.0).abs() < 1e-9);
        for sample in &mut samples[70..] {
            sample.commits = None;
        }
        let trends = trends(&samples);
        assert_eq!(trends.get("commits_p99_ms"), None);
        assert_eq!(trends.len(), FIGURES - 2);
    }

    #[test]
    fn tolerance_boundaries() {
        for (tolerance, last, stable) in [
            (MEDIAN, 13.5, true),
            (MEDIAN, 13.6, false),
            (P99, 20.0, true),
            (P99, 20.1, false),
            (MEMORY, 15.0, true),
            (MEMORY, 15.1, false),
            (ROW_SIZE, 11.0, true),
            (ROW_SIZE, 11.1, false),
            (DEAD_SHARE, 10.05, true),
            (DEAD_SHARE, 10.06, false),
            (WAL, 12.5, true),
            (WAL, 12.6, false),
        ] {
            assert_eq!(trend(10.0, last, 3, tolerance).stable, stable, "{tolerance:?} {last}");
        }
    }
}
