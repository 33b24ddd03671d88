//! Whether it stays as it was: the last third of the samples against the
//! first third of them, after a warm-up of one tenth.
//!
//! What gets better is flat too: a soak looks for what grows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::sample::Sample;
use crate::tools::bench::{
    baseline::books::TABLES,
    measure::{median, ratio, real, round, whole},
};

/// A figure of the first third and of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Trend {
    /// In the first third.
    pub first: f64,
    /// In the last.
    pub last: f64,
    /// The last against the first; 0 where the first is 0.
    pub ratio: f64,
    /// Whether the last is within what may be.
    pub flat: bool,
}

/// How far the last third may be above the first.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// At most so many times as much,
    times: f64,
    /// and so much more.
    more: f64,
}

/// Half of the answers: the middle hardly moves by chance, but for the grain
/// of timers.
const MIDDLE: Allowance = Allowance { times: 1.25, more: 1.0 };
/// The slowest of a hundred: on a machine that others use too it is theirs as
/// much as ours.
const TAIL: Allowance = Allowance { times: 1.5, more: 5.0 };
/// Memory, in MiB.
const MEMORY: Allowance = Allowance { times: 1.1, more: 4.0 };
/// What a row takes.
const ROW: Allowance = Allowance { times: 1.1, more: 0.0 };
/// The share of dead tuples, which rises until autovacuum comes and falls
/// again.
const DEAD: Allowance = Allowance { times: 1.0, more: 0.05 };
/// Bytes of log a message. Each checkpoint makes pages be written to it whole,
/// the first time they are changed after it.
const WAL: Allowance = Allowance { times: 1.25, more: 0.0 };

/// How many figures there are.
pub const FIGURES: usize = 6 + 2 * TABLES.len();

/// The figures that must stay flat, by their names; without those that nothing
/// was noted of.
pub fn judge(samples: &[Sample]) -> BTreeMap<String, Trend> {
    let mut trends = BTreeMap::new();
    let Some((first, last)) = thirds(samples) else { return trends };
    let mut tell = |name: String, decimals, allowance, figure: &Figure<'_>| {
        if let (Some(first), Some(last)) = (figure(first), figure(last)) {
            trends.insert(name, trend(first, last, decimals, allowance));
        }
    };
    for (name, allowance, of) in [
        ("answered_p50_ms", MIDDLE, (|sample| Some(sample.answered?.p50_ms)) as OfSample),
        ("answered_p99_ms", TAIL, |sample| Some(sample.answered?.p99_ms)),
        ("committed_p50_ms", MIDDLE, |sample| Some(sample.committed?.p50_ms)),
        ("committed_p99_ms", TAIL, |sample| Some(sample.committed?.p99_ms)),
        ("resident_mib", MEMORY, |sample| Some(sample.resident_mib)),
    ] {
        tell(name.to_owned(), 3, allowance, &|third| middle(third, of));
    }
    tell("wal_bytes_per_message".to_owned(), 0, WAL, &wal_per_message);
    for table in TABLES {
        tell(format!("{table}_bytes_per_row"), 1, ROW, &|third| {
            middle(third, |sample| Some(sample.tables.get(table)?.bytes_per_row))
        });
        tell(format!("{table}_dead_share"), 4, DEAD, &|third| {
            middle(third, |sample| Some(sample.tables.get(table)?.dead_share))
        });
    }
    trends
}

/// A figure of a third of the samples, if they tell it.
type Figure<'a> = dyn Fn(&[Sample]) -> Option<f64> + 'a;
/// A figure of one sample, if it tells it.
type OfSample = fn(&Sample) -> Option<f64>;

/// The median over the samples that tell it.
pub fn middle(samples: &[Sample], of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    let told: Vec<f64> = samples.iter().filter_map(of).collect();
    (!told.is_empty()).then(|| median(told))
}

/// The first and the last third after the warm-up; none of fewer than two
/// samples.
pub fn thirds<T>(samples: &[T]) -> Option<(&[T], &[T])> {
    let warm = samples.get(samples.len().div_ceil(10)..)?;
    if warm.len() < 2 {
        return None;
    }
    let third = (warm.len() / 3).max(1);
    Some((&warm[..third], &warm[warm.len() - third..]))
}

/// Over the whole third: what a checkpoint costs falls on few samples.
fn wal_per_message(third: &[Sample]) -> Option<f64> {
    let bytes: i64 = third.iter().map(|sample| sample.wal_bytes).sum();
    let messages: usize = third.iter().map(|sample| sample.accepted).sum();
    (messages > 0).then(|| ratio(whole(bytes), real(messages)))
}

fn trend(first: f64, last: f64, decimals: i32, allowance: Allowance) -> Trend {
    Trend {
        first: round(first, decimals),
        last: round(last, decimals),
        ratio: round(ratio(last, first), 3),
        flat: last <= first * allowance.times + allowance.more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::bench::{measure::Percentiles, soak::sample::Table};

    /// The nth of a hundred, everything as large as `figure` says.
    fn samples(figure: impl Fn(u32) -> u32) -> Vec<Sample> {
        let sample = |nth| {
            let whole = figure(nth);
            let figure = f64::from(whole);
            let times = Percentiles { p50_ms: figure, p99_ms: figure, ..Percentiles::default() };
            let table =
                Table { bytes_per_row: figure, dead_share: figure / 1000.0, ..Table::default() };
            Sample {
                accepted: 10,
                answered: Some(times),
                committed: Some(times),
                resident_mib: figure,
                wal_bytes: 10 * i64::from(whole),
                tables: TABLES.into_iter().map(|name| (name, table)).collect(),
                ..Sample::default()
            }
        };
        (0..100).map(sample).collect()
    }

    #[test]
    fn the_warm_up_and_the_middle_are_left_out() {
        let numbers: Vec<usize> = (0..100).collect();
        let (first, last) = thirds(&numbers).unwrap();
        assert_eq!((first[0], first.len(), last[0], last.len()), (10, 30, 70, 30));
        for few in 0..3 {
            assert_eq!(thirds(&numbers[..few]), None, "{few}");
        }
        assert_eq!(thirds(&numbers[..3]), Some((&numbers[1..2], &numbers[2..3])));
    }

    #[test]
    fn what_rises_is_not_flat() {
        let told = judge(&samples(|nth| nth + 1));
        assert_eq!(told.len(), FIGURES);
        for (name, trend) in &told {
            assert!(!trend.flat, "{name}: {trend:?}");
        }
        let memory = told["resident_mib"];
        assert!((memory.first - 25.5).abs() < 1e-9 && (memory.last - 85.5).abs() < 1e-9);
        assert!((memory.ratio - 3.353).abs() < 1e-9, "{memory:?}");
    }

    #[test]
    fn what_stays_or_falls_is_flat() {
        for told in [judge(&samples(|_| 40)), judge(&samples(|nth| 200 - nth))] {
            assert_eq!(told.len(), FIGURES);
            assert!(told.values().all(|trend| trend.flat), "{told:?}");
        }
    }

    #[test]
    fn an_interval_without_answers_is_no_fast_one() {
        let mut samples = samples(|_| 40);
        for sample in samples.iter_mut().step_by(2) {
            (sample.answered, sample.committed) = (None, None);
        }
        let told = judge(&samples);
        assert!((told["answered_p50_ms"].last - 40.0).abs() < 1e-9, "{told:?}");
        for sample in &mut samples[70..] {
            sample.committed = None;
        }
        let told = judge(&samples);
        assert_eq!(told.get("committed_p99_ms"), None);
        assert_eq!(told.len(), FIGURES - 2);
    }

    #[test]
    fn a_figure_may_be_a_little_above_and_no_more() {
        for (allowance, last, flat) in [
            (MIDDLE, 13.5, true),
            (MIDDLE, 13.6, false),
            (TAIL, 20.0, true),
            (TAIL, 20.1, false),
            (MEMORY, 15.0, true),
            (MEMORY, 15.1, false),
            (ROW, 11.0, true),
            (ROW, 11.1, false),
            (DEAD, 10.05, true),
            (DEAD, 10.06, false),
            (WAL, 12.5, true),
            (WAL, 12.6, false),
        ] {
            assert_eq!(trend(10.0, last, 3, allowance).flat, flat, "{allowance:?} {last}");
        }
    }

    #[test]
    fn one_checkpoint_does_not_tilt_the_log() {
        let told = judge(&samples(|nth| if nth % 20 == 0 { 500 } else { 10 }));
        assert!(told["wal_bytes_per_message"].flat, "{told:?}");
        assert!(told["answered_p99_ms"].flat, "{told:?}");
    }
}
