//! Compares the last third of the samples with the first third, after a
//! warm-up of one tenth. A falling figure is stable too: a soak looks for growth.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::tools::bench::measure::{median, ratio, round};

/// A figure in the first and in the last third.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Trend {
    pub(super) first: f64,
    pub(super) last: f64,
    /// The last relative to the first; 0 if the first is 0.
    pub(super) ratio: f64,
    /// Whether the last is within the tolerance.
    pub(super) stable: bool,
}

/// Name, field of a sample, and the tolerance: the last third may be at most
/// `first * factor + offset`.
type Figure = (&'static str, &'static str, f64, f64);

/// Other load on the machine affects the slowest percent. The share of dead
/// tuples rises until autovacuum runs.
#[rustfmt::skip]
pub(super) const FIGURES: [Figure; 14] = [
    ("responses_p50_ms", "/responses/p50_ms", 1.25, 1.0),
    ("responses_p99_ms", "/responses/p99_ms", 1.5, 5.0),
    ("commits_p50_ms", "/commits/p50_ms", 1.25, 1.0),
    ("commits_p99_ms", "/commits/p99_ms", 1.5, 5.0),
    ("resident_mib", "/resident_mib", 1.1, 4.0),
    ("wal_bytes_per_message", "/wal_bytes", 1.25, 0.0),
    ("inbox_bytes_per_row", "/tables/inbox/bytes_per_row", 1.1, 0.0),
    ("inbox_dead_share", "/tables/inbox/dead_share", 1.0, 0.05),
    ("orders_bytes_per_row", "/tables/orders/bytes_per_row", 1.1, 0.0),
    ("orders_dead_share", "/tables/orders/dead_share", 1.0, 0.05),
    ("invoices_bytes_per_row", "/tables/invoices/bytes_per_row", 1.1, 0.0),
    ("invoices_dead_share", "/tables/invoices/dead_share", 1.0, 0.05),
    ("receipts_bytes_per_row", "/tables/receipts/bytes_per_row", 1.1, 0.0),
    ("receipts_dead_share", "/tables/receipts/dead_share", 1.0, 0.05),
];

/// The trends by figure. A figure without values in both thirds is absent.
pub(super) fn trends(samples: &[Value]) -> BTreeMap<&'static str, Trend> {
    let Some((first, last)) = thirds(samples) else { return BTreeMap::new() };
    let trend = |(name, field, factor, offset): Figure| {
        let figure = |third| match field {
            "/wal_bytes" => wal_bytes_per_message(third),
            _ => sample_median(third, field),
        };
        let (first, last) = (figure(first)?, figure(last)?);
        let trend = Trend {
            first: round(first, 4),
            last: round(last, 4),
            ratio: round(ratio(last, first), 3),
            stable: last <= first * factor + offset,
        };
        Some((name, trend))
    };
    FIGURES.into_iter().filter_map(trend).collect()
}

/// The median of a field over the samples that have it.
pub(super) fn sample_median(samples: &[Value], field: &str) -> Option<f64> {
    let values: Vec<f64> = samples.iter().filter_map(|sample| number(sample, field)).collect();
    (!values.is_empty()).then(|| median(values))
}

fn number(sample: &Value, field: &str) -> Option<f64> {
    sample.pointer(field)?.as_f64()
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

/// Over the whole third, because checkpoints affect single samples: after one,
/// the first change of a page writes the whole page.
fn wal_bytes_per_message(third: &[Value]) -> Option<f64> {
    let sum = |field| third.iter().filter_map(|sample| number(sample, field)).sum::<f64>();
    let messages = sum("/accepted");
    (messages > 0.0).then(|| ratio(sum("/wal_bytes"), messages))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A hundred samples; all figures of the nth are `figure(n)`.
    fn samples(figure: impl Fn(u32) -> u32) -> Vec<Value> {
        let sample = |nth| {
            let figure = f64::from(figure(nth));
            let times = json!({"p50_ms": figure, "p99_ms": figure});
            let table = json!({"bytes_per_row": figure, "dead_share": figure / 1000.0});
            json!({
                "accepted": 10,
                "responses": times,
                "commits": times,
                "resident_mib": figure,
                "wal_bytes": 10.0 * figure,
                "tables": {"inbox": table, "orders": table, "invoices": table, "receipts": table},
            })
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
        assert_eq!(rising.len(), FIGURES.len());
        assert!(rising.values().all(|trend| !trend.stable), "{rising:?}");
        let memory = rising["resident_mib"];
        assert!((memory.first - 25.5).abs() < 1e-9 && (memory.ratio - 3.353).abs() < 1e-9);
        for trends in [trends(&samples(|_| 40)), trends(&samples(|nth| 200 - nth))] {
            assert_eq!(trends.len(), FIGURES.len());
            assert!(trends.values().all(|trend| trend.stable), "{trends:?}");
        }
    }

    #[test]
    fn intervals_without_values_are_skipped() {
        let mut samples = samples(|_| 40);
        for sample in samples.iter_mut().step_by(2) {
            (sample["responses"], sample["commits"]) = (Value::Null, Value::Null);
        }
        assert!((trends(&samples)["responses_p50_ms"].last - 40.0).abs() < 1e-9);
        for sample in &mut samples[70..] {
            sample["commits"] = Value::Null;
        }
        let trends = trends(&samples);
        assert_eq!(trends.get("commits_p99_ms"), None);
        assert_eq!(trends.len(), FIGURES.len() - 2);
    }
}
