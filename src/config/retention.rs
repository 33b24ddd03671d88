//! `[retention]`: how long keys and the call log are kept, and the minimum that is safe.

use std::{fmt, time::Duration};

use anyhow::ensure;
use serde::{Deserialize, Deserializer, de};

use crate::{domain::SourceName, retry::RetrySchedule};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// `[retention]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long the inbox keeps a key: 1 to 36500 days, or `forever`; default 60.
    pub dedupe_window_days: Days,
    /// How long a message may wait in the broker, in an outage or while its source is paused:
    /// 1 to 3650 days, default 14.
    pub max_queue_age_days: u16,
    /// How long the call log is kept: 1 to 36500 days, or `forever`; default `forever`.
    pub receipts_days: Days,
    /// The days of the call log that one partition holds: 1 to 366, default 7.
    pub receipts_partition_days: u16,
}

/// A number of days, or forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Days {
    /// Nothing is dropped.
    Forever,
    /// This many days.
    Number(u32),
}

/// Retention periods that are known to be safe for the configured sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long the inbox keeps a key; `None` is forever.
    pub dedupe_window: Option<Duration>,
    /// How long the call log is kept; `None` is forever.
    pub receipts: Option<Duration>,
    /// The time that one partition of the call log covers.
    pub receipts_partition: Duration,
    /// The shortest safe `dedupe_window`.
    pub required_window: RequiredWindow,
}

/// The longest time between the first copy of an event and the last (P6): the platform resends
/// at the end of its redelivery window, the copy waits in the broker, and is retried as often as
/// the schedule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredWindow {
    /// The longest redelivery window of a platform.
    pub redelivery: Duration,
    /// The source with that window, and its kind.
    pub longest_source: Option<(SourceName, &'static str)>,
    /// The longest wait in the broker.
    pub max_queue_age: Duration,
    /// All retry delays.
    pub retry_delays: Duration,
}

/// The redelivery window of a source, and its kind.
pub type RedeliveryWindow<'a> = (&'a SourceName, &'static str, Duration);

impl RetentionConfig {
    /// Checks the section against the redelivery windows of the sources and the retry schedule.
    ///
    /// # Errors
    /// The first period that is too short, with its key and the minimum.
    pub fn check<'a>(
        self,
        windows: impl Iterator<Item = RedeliveryWindow<'a>>,
        schedule: &RetrySchedule,
    ) -> anyhow::Result<Retention> {
        let longest = windows.max_by_key(|(.., window)| *window);
        let required_window = RequiredWindow {
            redelivery: longest.map_or(Duration::ZERO, |(.., window)| window),
            longest_source: longest.map(|(source, kind, _)| (source.clone(), kind)),
            max_queue_age: DAY * u32::from(self.max_queue_age_days),
            retry_delays: schedule.total_delay(),
        };
        let dedupe_window = self.dedupe_window_days.duration();
        let receipts = self.receipts_days.duration();
        ensure!(
            dedupe_window.is_none_or(|window| window >= required_window.total()),
            "retention.dedupe_window_days must be at least {}: {required_window}",
            required_window.total().as_secs().div_ceil(DAY.as_secs())
        );
        // A duplicate has no payload of its own; the receipt of the first copy holds it. Keys are
        // dropped by the partition, the last of them half a window late.
        let last_drop = dedupe_window.map(|window| window + window / 2 + HOUR);
        let receipts_outlive_keys = match (receipts, last_drop) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(receipts), Some(last_drop)) => receipts >= last_drop,
        };
        let minimum = last_drop.map_or_else(
            || "\"forever\"".to_owned(),
            |last_drop| last_drop.as_secs().div_ceil(DAY.as_secs()).to_string(),
        );
        ensure!(
            receipts_outlive_keys,
            "retention.receipts_days must be at least {minimum}: the call log keeps the payload of \
             a duplicate with the first copy, and a key is kept for up to one and a half times \
             retention.dedupe_window_days ({})",
            self.dedupe_window_days
        );
        let receipts_partition = DAY * u32::from(self.receipts_partition_days);
        Ok(Retention { dedupe_window, receipts, receipts_partition, required_window })
    }

    pub(super) fn check_ranges(&self) -> anyhow::Result<()> {
        for (key, days) in
            [("dedupe_window_days", self.dedupe_window_days), ("receipts_days", self.receipts_days)]
        {
            ensure!(days.in_range(), "retention.{key} must be 1 to 36500, or \"forever\"");
        }
        ensure!(
            (1..=3650).contains(&self.max_queue_age_days),
            "retention.max_queue_age_days must be 1 to 3650"
        );
        ensure!(
            (1..=366).contains(&self.receipts_partition_days),
            "retention.receipts_partition_days must be 1 to 366"
        );
        Ok(())
    }
}

impl RequiredWindow {
    /// The sum of its parts.
    pub fn total(&self) -> Duration {
        self.redelivery + self.max_queue_age + self.retry_delays
    }
}

impl fmt::Display for RequiredWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of redeliveries", HumanDuration(self.redelivery))?;
        if let Some((source, kind)) = &self.longest_source {
            write!(f, " (sources.{source}, {kind})")?;
        }
        write!(
            f,
            ", {} in the broker (retention.max_queue_age_days), {} of retry delays (retry): {}",
            HumanDuration(self.max_queue_age),
            HumanDuration(self.retry_delays),
            HumanDuration(self.total())
        )
    }
}

/// Displays a duration in its two largest units.
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [
            (seconds / 86_400, "d"),
            (seconds / 3600 % 24, "h"),
            (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
        ];
        let parts: Vec<String> = units
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .take(2)
            .map(|(count, unit)| format!("{count} {unit}"))
            .collect();
        if parts.is_empty() {
            return write!(f, "{} ms", self.0.as_millis());
        }
        f.write_str(&parts.join(" "))
    }
}

impl Days {
    fn in_range(self) -> bool {
        match self {
            Self::Forever => true,
            Self::Number(days) => (1..=36_500).contains(&days),
        }
    }

    fn duration(self) -> Option<Duration> {
        match self {
            Self::Forever => None,
            Self::Number(days) => Some(DAY * days),
        }
    }
}

impl fmt::Display for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forever => f.write_str("forever"),
            Self::Number(days) => write!(f, "{days}"),
        }
    }
}

impl<'de> Deserialize<'de> for Days {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Days;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of days, or \"forever\"")
            }

            fn visit_i64<E: de::Error>(self, days: i64) -> Result<Days, E> {
                let number = u32::try_from(days);
                number
                    .map(Days::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(days), &self))
            }

            fn visit_u64<E: de::Error>(self, days: u64) -> Result<Days, E> {
                let number = u32::try_from(days);
                number
                    .map(Days::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(days), &self))
            }

            // Values of environment variables are texts.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Days, E> {
                match text {
                    "forever" => Ok(Days::Forever),
                    text => text
                        .parse()
                        .map(Days::Number)
                        .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests;
