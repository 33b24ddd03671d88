//! Percentiles, medians, rates: what figures are made of.

use std::time::Duration;

use serde::Serialize;

/// How long things took, by percentile, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half took no longer.
    pub p50_ms: f64,
    /// Nine in ten took no longer.
    pub p90_ms: f64,
    /// 99 in a hundred took no longer.
    pub p99_ms: f64,
    /// 999 in a thousand took no longer.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Percentiles {
    /// Of these times; zeros if there are none.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |per_mille| times.get(rank(times.len(), per_mille)).copied().map(milliseconds);
        let at = |per_mille| at(per_mille).unwrap_or_default();
        Self {
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
        }
    }

    /// The median of each percentile over several runs.
    pub fn median(runs: &[Self]) -> Self {
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

/// Where the percentile stands among so many sorted values: the smallest of
/// them that is not exceeded by more than the rest (nearest rank).
fn rank(values: usize, per_mille: usize) -> usize {
    (values * per_mille).div_ceil(1000).saturating_sub(1)
}

/// The middle one; the mean of the middle two; 0 of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
    }
}

/// So many in this time, a second.
pub fn per_second(count: usize, took: Duration) -> f64 {
    ratio(real(count), took.as_secs_f64())
}

/// A ratio; 0 where there is nothing to compare with.
pub fn ratio(ours: f64, theirs: f64) -> f64 {
    if theirs > 0.0 { ours / theirs } else { 0.0 }
}

/// Rounded to so many decimals, so that figures do not look more exact than
/// they are.
pub fn round(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

/// A count as a number to divide.
pub fn real(count: usize) -> f64 {
    // Counts of messages are far below 2^32.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A count of the database's as a number to divide.
#[expect(clippy::cast_precision_loss, reason = "bytes and rows are far below 2^53")]
pub fn whole(count: i64) -> f64 {
    count as f64
}

fn milliseconds(time: Duration) -> f64 {
    round(time.as_secs_f64() * 1000.0, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=1000).rev().map(Duration::from_millis).collect();
        let told = Percentiles::of(times);
        let expected = [500.0, 900.0, 990.0, 999.0, 1000.0];
        let found = [told.p50_ms, told.p90_ms, told.p99_ms, told.p999_ms, told.max_ms];
        for (found, expected) in found.into_iter().zip(expected) {
            assert!(close(found, expected), "{told:?}");
        }
        let one = Percentiles::of(vec![Duration::from_micros(1500)]);
        assert!(close(one.p50_ms, 1.5) && close(one.max_ms, 1.5), "{one:?}");
        // Of two, the half is the lower one.
        let two = Percentiles::of(vec![Duration::from_millis(9), Duration::from_millis(1)]);
        assert!(close(two.p50_ms, 1.0) && close(two.p90_ms, 9.0), "{two:?}");
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn one_wild_run_does_not_move_the_median() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![100.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 2.0, 100.0], 3.0),
        ] {
            assert!(close(median(values.clone()), expected), "{values:?}");
        }
        let run = |p50_ms, p99_ms| Percentiles { p50_ms, p99_ms, ..Percentiles::default() };
        let told = Percentiles::median(&[run(1.0, 9.0), run(3.0, 7.0), run(2.0, 8.0)]);
        assert!(close(told.p50_ms, 2.0) && close(told.p99_ms, 8.0), "{told:?}");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert!(close(ratio(1.0, 0.0), 0.0) && close(ratio(1.0, 4.0), 0.25));
        assert!(close(per_second(10, Duration::ZERO), 0.0));
        assert!(close(per_second(10, Duration::from_millis(500)), 20.0));
        assert!(close(round(1.23456, 2), 1.23));
    }
}
