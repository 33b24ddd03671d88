//! How many messages a lane asks for ahead of time.
//!
//! The broker counts messages, and memory counts bytes: a thousand orders are
//! 2 MB of one shop's and 28 MB of another's. So the number follows the size
//! of what came lately.

use super::batch;

/// Before anything has come, no more than this.
const INITIAL_PREFETCH: u16 = 100;
/// Enough for the batch that is settled and for the one that comes in
/// meanwhile.
const PREFETCHED_BATCHES: usize = 2;
/// A batch of so many messages counts for a quarter of the mean.
const MAX_WEIGHT: usize = 100;

/// One lane's.
#[derive(Clone, Debug)]
pub struct AdaptivePrefetch {
    max: u16,
    prefetch: u16,
    /// The size of a message, over the last few batches.
    mean_bytes: Option<usize>,
}

impl AdaptivePrefetch {
    /// For batches of so many messages.
    pub fn new(batch_size: usize) -> Self {
        let max =
            u16::try_from(batch_size.saturating_mul(PREFETCHED_BATCHES)).unwrap_or(u16::MAX).max(1);
        Self { max, prefetch: max.min(INITIAL_PREFETCH), mean_bytes: None }
    }

    /// How many messages may be unsettled now.
    pub fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// Learns from a batch. Tells the new prefetch if it changes: not for
    /// less than half or double, since changing it costs round trips.
    pub fn observe(&mut self, messages: usize, bytes: usize) -> Option<u16> {
        let size = bytes / messages.max(1);
        // Of a batch of one message, however large, little is learnt.
        let weight = messages.min(MAX_WEIGHT);
        let mean = self.mean_bytes.map_or(size, |mean| {
            (mean * (4 * MAX_WEIGHT - weight) + size * weight) / (4 * MAX_WEIGHT)
        });
        self.mean_bytes = Some(mean);
        let room = PREFETCHED_BATCHES * batch::MAX_BATCH_BYTES / mean.max(1);
        let wanted = u16::try_from(room).unwrap_or(u16::MAX).clamp(1, self.max);
        let (less, more) = (wanted <= self.prefetch / 2, wanted / 2 >= self.prefetch);
        // The most is reached even if it is not the double.
        let whole = wanted == self.max && self.prefetch < self.max;
        if less || more || whole {
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
    fn small_messages_are_asked_for_by_the_thousand_and_large_ones_are_not() {
        let mut appetite = AdaptivePrefetch::new(500);
        assert_eq!(appetite.prefetch(), 100, "nobody knows yet what comes");
        assert_eq!(appetite.observe(1, 2_000), Some(1_000));
        assert_eq!(appetite.observe(500, 500 * 2_000), None);
        let fewer: Vec<u16> = (0..20).filter_map(|_| appetite.observe(75, 75 * 28_000)).collect();
        assert!(fewer.is_sorted_by(|a, b| a > b), "{fewer:?}");
        let held = usize::from(appetite.prefetch()) * 28_000;
        assert!(held <= 4 * batch::MAX_BATCH_BYTES, "{held} bytes are asked for");
        assert!(held >= batch::MAX_BATCH_BYTES, "{held} bytes are asked for");
        let more: Vec<u16> = (0..40).filter_map(|_| appetite.observe(75, 75 * 2_000)).collect();
        assert_eq!(more.last(), Some(&1_000), "{more:?}");
    }

    #[test]
    fn one_large_message_alone_does_not_starve_the_lane() {
        let mut appetite = AdaptivePrefetch::new(500);
        appetite.observe(500, 500 * 2_000);
        appetite.observe(1, 10_000_000);
        assert!(appetite.prefetch() >= 100, "{appetite:?}");
    }

    #[test]
    fn there_is_always_room_for_one() {
        let mut appetite = AdaptivePrefetch::new(1);
        assert_eq!(appetite.prefetch(), 2);
        assert_eq!(appetite.observe(1, 100 * 1024 * 1024), Some(1));
        assert_eq!(appetite.observe(0, 0), None, "a mean of 75 MB");
    }
}
