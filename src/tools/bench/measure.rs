//! Percentiles, medians and rates.

use std::time::Duration;

use serde::Serialize;

use crate::tools::send::report::nearest_rank;

/// Latency percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the JSON keys have units")]
pub(crate) struct Percentiles {
    pub(super) p50_ms: f64,
    pub(super) p90_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) p999_ms: f64,
    pub(super) max_ms: f64,
}

impl Percentiles {
    /// Percentiles by nearest rank; zeros without latencies.
    pub(super) fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |per_mille: usize| {
            let latency = nearest_rank(&latencies, per_mille).unwrap_or_default();
            round(latency.as_secs_f64() * 1000.0, 3)
        };
        Self {
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
        }
    }

    /// The median of each percentile over several runs.
    pub(super) fn median(runs: &[Self]) -> Self {
        let of = |percentile: fn(&Self) -> f64| median(runs.iter().map(percentile));
        Self {
            p50_ms: of(|run| run.p50_ms),
            p90_ms: of(|run| run.p90_ms),
            p99_ms: of(|run| run.p99_ms),
            p999_ms: of(|run| run.p999_ms),
            max_ms: of(|run| run.max_ms),
        }
    }
}

/// The median; the mean of the middle two; 0 of nothing.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
    }
}

/// The median over runs, rounded.
pub(super) fn rounded_median(runs: impl IntoIterator<Item = f64>, decimals: i32) -> f64 {
    round(median(runs), decimals)
}

pub(super) fn per_second(count: usize, time: Duration) -> f64 {
    ratio(from_usize(count), time.as_secs_f64())
}

/// A ratio; 0 if the divisor is 0.
pub(super) fn ratio(dividend: f64, divisor: f64) -> f64 {
    if divisor > 0.0 { dividend / divisor } else { 0.0 }
}

/// Rounds, so that figures do not look more exact than they are.
pub(super) fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn from_usize(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "bytes and rows are far below 2^53")]
pub(super) fn from_i64(count: i64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let latencies: Vec<Duration> = (1..=1000).rev().map(Duration::from_millis).collect();
        let Percentiles { p50_ms, p90_ms, p99_ms, p999_ms, max_ms } = Percentiles::of(latencies);
        let expected = [500.0, 900.0, 990.0, 999.0, 1000.0];
        for (found, expected) in [p50_ms, p90_ms, p99_ms, p999_ms, max_ms].into_iter().zip(expected)
        {
            assert!(close(found, expected), "{found}, not {expected}");
        }
        // The median of two is the lower one.
        let two = Percentiles::of(vec![Duration::from_millis(9), Duration::from_millis(1)]);
        assert!(close(two.p50_ms, 1.0) && close(two.p90_ms, 9.0), "{two:?}");
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn median_ignores_one_outlier() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![100.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 100.0], 3.0),
        ] {
            assert!(close(median(values.clone()), expected), "{values:?}");
        }
        let run = |p50_ms, p99_ms| Percentiles { p50_ms, p99_ms, ..Percentiles::default() };
        let medians = Percentiles::median(&[run(1.0, 9.0), run(3.0, 7.0), run(2.0, 8.0)]);
        assert!(close(medians.p50_ms, 2.0) && close(medians.p99_ms, 8.0), "{medians:?}");
    }
}
