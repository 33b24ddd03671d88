//! Background jobs of every worker process, each in a task of its own. None is
//! on the path of a message.

pub mod duplicate_alert;
pub mod import_completion;
pub mod metrics_sampler;
pub mod retention;

/// Whether `count` of `total` is more than `percent`. Compares whole numbers,
/// so that exactly `percent` is not more.
fn exceeds_percent(count: i64, total: i64, percent: u8) -> bool {
    count.saturating_mul(100) > total.saturating_mul(i64::from(percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceeds_percent_at_the_limit_is_false_and_above_is_true() {
        assert!(!exceeds_percent(0, 0, 5));
        assert!(!exceeds_percent(1_000, 20_000, 5));
        assert!(exceeds_percent(1_001, 20_000, 5));
        assert!(!exceeds_percent(7, 7, 100));
    }
}
