//! Ranges of time as ranges of receipt ids, and which partitions are missing.

#[cfg(test)]
mod tests;

use std::time::Duration;

use time::{OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};
use uuid::Uuid;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Upper limit of the partitions that are created at once: a clock may be wrong by years.
const MAX_MISSING: usize = 100;

/// The range of time of a partition. `until` belongs to the next partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// The first moment.
    pub from: OffsetDateTime,
    /// The first moment of the next partition.
    pub until: OffsetDateTime,
}

impl PartitionRange {
    /// The range of time of a range of receipt ids.
    pub fn from_ids(from: Uuid, until: Uuid) -> Self {
        Self { from: id_timestamp(from), until: id_timestamp(until) }
    }

    /// The name of the partition's table.
    pub fn table_name(&self) -> String {
        let day = self.from.to_offset(UtcOffset::UTC).date();
        format!("receipts_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
    }
}

/// How long receipts are kept, and in which partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptsRetention {
    /// The range of time of a new partition, in whole days, at least one. It may change; existing
    /// partitions stay as they are.
    pub partition_span: Duration,
    /// How far into the future partitions are created.
    pub premake: Duration,
    /// How long receipts are kept; `None` keeps them forever.
    pub keep_for: Option<Duration>,
    /// The current time of the worker's clock.
    pub now: OffsetDateTime,
}

impl ReceiptsRetention {
    /// Receipts older than this may be deleted.
    pub(super) fn cutoff(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.keep_for.map(|keep_for| now.saturating_sub(to_signed(keep_for)))
    }

    /// The ranges that no partition covers, earliest first. It looks `premake` into the future, and
    /// as far into the past, for the time in which maintenance did not run. A range ends where an
    /// existing partition begins, so that no ranges overlap.
    pub(super) fn missing_ranges(&self, existing: &[PartitionRange]) -> Vec<PartitionRange> {
        let today = midnight(self.now);
        let oldest = existing.iter().map(|range| range.from).min().unwrap_or(today);
        let back = midnight(self.now.saturating_sub(to_signed(self.premake)));
        // Partitions that retention dropped are not missing.
        let cutoff = self.cutoff(self.now).map_or(back, midnight);
        let end = self.now.saturating_add(to_signed(self.premake));
        let days = (self.partition_span.as_secs() / DAY_SECONDS).max(1);
        let length = to_signed(Duration::from_secs(days.saturating_mul(DAY_SECONDS)));
        let mut missing = Vec::new();
        let mut at = oldest.max(back).max(cutoff).min(today);
        while at <= end && missing.len() < MAX_MISSING {
            if let Some(range) = existing.iter().find(|range| range.from <= at && at < range.until)
            {
                at = range.until;
                continue;
            }
            let next = existing.iter().map(|range| range.from).filter(|from| *from > at).min();
            let until = at.saturating_add(length);
            let until = next.map_or(until, |next| until.min(next));
            if until == at {
                break;
            }
            missing.push(PartitionRange { from: at, until });
            at = until;
        }
        missing
    }
}

/// The lowest receipt id of a moment: a UUID of version 7 begins with Unix milliseconds.
pub fn lowest_id(at: OffsetDateTime) -> Uuid {
    let milliseconds = at.unix_timestamp_nanos().div_euclid(1_000_000).clamp(0, (1 << 48) - 1);
    Uuid::from_u128(u128::try_from(milliseconds).unwrap_or_default() << 80)
}

/// The moment of an id, whatever its version.
fn id_timestamp(id: Uuid) -> OffsetDateTime {
    let nanoseconds = i128::try_from((id.as_u128() >> 80) * 1_000_000).unwrap_or(i128::MAX);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .unwrap_or(PrimitiveDateTime::MAX.assume_utc())
}

fn midnight(at: OffsetDateTime) -> OffsetDateTime {
    at.to_offset(UtcOffset::UTC).replace_time(Time::MIDNIGHT)
}

fn to_signed(duration: Duration) -> time::Duration {
    time::Duration::try_from(duration).unwrap_or(time::Duration::MAX)
}
