//! Adapts the AMQP prefetch, which counts messages, so that the bytes in
//! memory stay bounded: 1,000 orders are 2 MB of one shop and 28 MB of another.

use crate::broker::MAX_BATCH_BYTES;

/// The limit before the first message, whose size is unknown.
const INITIAL_PREFETCH: u16 = 100;
/// Enough for the batch that is handled and for the next one.
const PREFETCHED_BATCHES: usize = 2;
/// A batch of this many messages or more counts for a quarter of the mean.
const MAX_WEIGHT: usize = 100;

/// The prefetch of one consumer.
#[derive(Clone, Debug)]
pub struct AdaptivePrefetch {
    max: u16,
    prefetch: u16,
    /// The moving average of the size of a message.
    mean_bytes: Option<usize>,
}

impl AdaptivePrefetch {
    /// The prefetch for batches of at most `batch_size` messages.
    pub fn new(batch_size: usize) -> Self {
        let max = batch_size.saturating_mul(PREFETCHED_BATCHES);
        let max = u16::try_from(max).unwrap_or(u16::MAX).max(1);
        Self { max, prefetch: max.min(INITIAL_PREFETCH), mean_bytes: None }
    }

    /// How many messages may be unacknowledged.
    pub fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// Updates the average with a batch. Returns the new prefetch if it halves,
    /// doubles or reaches its maximum: each change costs round trips.
    pub fn observe(&mut self, messages: usize, bytes: usize) -> Option<u16> {
        let size = bytes / messages.max(1);
        // A batch of one message, however large, says little.
        let weight = messages.min(MAX_WEIGHT);
        let mean_bytes = self.mean_bytes.map_or(size, |mean| {
            (mean * (4 * MAX_WEIGHT - weight) + size * weight) / (4 * MAX_WEIGHT)
        });
        self.mean_bytes = Some(mean_bytes);
        let fitting = PREFETCHED_BATCHES * MAX_BATCH_BYTES / mean_bytes.max(1);
        let wanted = u16::try_from(fitting).unwrap_or(u16::MAX).clamp(1, self.max);
        let halves = wanted <= self.prefetch / 2;
        let doubles = wanted / 2 >= self.prefetch;
        let reaches_max = wanted == self.max && self.prefetch < self.max;
        if halves || doubles || reaches_max {
            self.prefetch = wanted;
            return Some(wanted);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefetch_follows_message_size_and_bounds_bytes() {
        let mut prefetch = AdaptivePrefetch::new(500);
        assert_eq!(prefetch.prefetch(), INITIAL_PREFETCH);
        assert_eq!(prefetch.observe(1, 2_000), Some(1_000));
        assert_eq!(prefetch.observe(500, 500 * 2_000), None);
        let falling: Vec<u16> = (0..20).filter_map(|_| prefetch.observe(75, 75 * 28_000)).collect();
        assert!(falling.is_sorted_by(|a, b| a > b), "{falling:?}");
        let buffered = usize::from(prefetch.prefetch()) * 28_000;
        assert!(buffered <= 4 * MAX_BATCH_BYTES, "{buffered} bytes are prefetched");
        assert!(buffered >= MAX_BATCH_BYTES, "{buffered} bytes are prefetched");
        let rising: Vec<u16> = (0..40).filter_map(|_| prefetch.observe(75, 75 * 2_000)).collect();
        assert_eq!(rising.last(), Some(&1_000), "{rising:?}");
    }

    #[test]
    fn prefetch_one_large_message_changes_little() {
        let mut prefetch = AdaptivePrefetch::new(500);
        prefetch.observe(500, 500 * 2_000);
        prefetch.observe(1, 10_000_000);
        assert!(prefetch.prefetch() >= INITIAL_PREFETCH, "{prefetch:?}");
    }

    #[test]
    fn prefetch_huge_messages_stays_at_least_one() {
        let mut prefetch = AdaptivePrefetch::new(1);
        assert_eq!(prefetch.prefetch(), 2);
        assert_eq!(prefetch.observe(1, 100 * 1024 * 1024), Some(1));
        assert_eq!(prefetch.observe(0, 0), None, "the mean is still 75 MB");
    }
}
