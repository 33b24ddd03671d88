//! Times as ranges of receipt ids: what a partition holds, and which ones are
//! missing.

#[cfg(test)]
mod tests;

use std::time::Duration;

use time::{OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};
use uuid::Uuid;

/// A day, by which spans are counted.
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// More are not made at once: a clock may be wrong by years.
const MAX_MISSING: usize = 100;

/// The time of a partition: from a moment up to another one, which belongs to
/// the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionRange {
    /// Where it begins.
    pub from: OffsetDateTime,
    /// Where the next one begins.
    pub until: OffsetDateTime,
}

impl PartitionRange {
    /// The span of these ids.
    pub fn from_ids(from: Uuid, until: Uuid) -> Self {
        Self { from: id_timestamp(from), until: id_timestamp(until) }
    }

    /// The table that holds it.
    pub fn table_name(&self) -> String {
        let day = self.from.to_offset(UtcOffset::UTC).date();
        format!("receipts_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
    }
}

/// How long receipts are kept, and in what pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptsRetention {
    /// How much time a partition holds, in whole days; one at least. Another
    /// value than before is harmless: it holds for the next ones.
    pub partition_span: Duration,
    /// For how much time to come there are partitions.
    pub premake: Duration,
    /// How long receipts are kept; for ever if not said.
    pub keep_for: Option<Duration>,
    /// The worker's clock.
    pub now: OffsetDateTime,
}

impl ReceiptsRetention {
    /// What is older than this may go.
    pub(super) fn cutoff(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.keep_for.map(|keep| now.saturating_sub(to_signed(keep)))
    }

    /// The spans that no partition holds, earliest first. It looks as far back
    /// as ahead: for what came while nobody made partitions. They end where
    /// others begin, wherever that is, so that none overlap.
    pub(super) fn missing_ranges(&self, known: &[PartitionRange]) -> Vec<PartitionRange> {
        let today = midnight(self.now);
        let oldest = known.iter().map(|span| span.from).min().unwrap_or(today);
        let back = midnight(self.now.saturating_sub(to_signed(self.premake)));
        // What retention let go of is not missing.
        let kept = self.cutoff(self.now).map_or(back, midnight);
        let end = self.now.saturating_add(to_signed(self.premake));
        let days = (self.partition_span.as_secs() / DAY_SECONDS).max(1);
        let length = to_signed(Duration::from_secs(days.saturating_mul(DAY_SECONDS)));
        let mut missing = Vec::new();
        let mut at = oldest.max(back).max(kept).min(today);
        while at <= end && missing.len() < MAX_MISSING {
            if let Some(there) = known.iter().find(|span| span.from <= at && at < span.until) {
                at = there.until;
                continue;
            }
            let next = known.iter().map(|span| span.from).filter(|from| *from > at).min();
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

/// The lowest receipt id of a moment: a UUID of version 7 begins with its
/// milliseconds.
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
