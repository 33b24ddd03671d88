//! `[retention]`: how long what is remembered, and why not shorter.

use std::{fmt, time::Duration};

use anyhow::ensure;
use serde::{Deserialize, Deserializer, de};

use crate::{domain::SourceName, retry::RetrySchedule, sources::Source};

const DAY: Duration = Duration::from_hours(24);
const HOUR: Duration = Duration::from_hours(1);

/// `[retention]` as it is written.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "times carry their unit in the name")]
pub(super) struct RetentionConfig {
    /// How long the inbox remembers a key: 1 to 36500 days, or `forever`.
    dedupe_window_days: Days,
    /// How long a message may wait in the broker, through an outage or while
    /// its source is paused: 1 to 3650 days.
    max_queue_age_days: u16,
    /// How long the call log is kept: 1 to 36500 days, or `forever`.
    receipts_days: Days,
    /// How many days of the call log are kept in one table: 1 to 366.
    receipts_partition_days: u16,
}

/// How long what is remembered.
#[derive(Clone, Debug)]
pub struct Retention {
    /// How long the inbox remembers a key; `None` is for ever.
    pub dedupe_window: Option<Duration>,
    /// How long the call log is kept; `None` is for ever.
    pub receipts: Option<Duration>,
    /// How much of the call log is in one table.
    pub receipts_partition: Duration,
    /// What a key has to be remembered for.
    pub required_window: RequiredWindow,
}

/// The longest that a copy of an event can come after the first one (P6): its
/// platform sends it again at the last moment, the copy waits in the broker,
/// and fails as often as it may.
#[derive(Clone, Debug)]
pub struct RequiredWindow {
    /// Until its platform gives up.
    pub redelivery: Duration,
    /// The source of which that is the longest, and its kind.
    pub longest_source: Option<(SourceName, &'static str)>,
    /// In the broker.
    pub max_queue_age: Duration,
    /// Between attempts.
    pub retry_delays: Duration,
}

/// A number of days, or no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Days {
    Forever,
    Number(u32),
}

impl RetentionConfig {
    /// Checks the section against the sources and retries that it must suit.
    ///
    /// # Errors
    /// What is wrong, with its key and the sum.
    pub(super) fn check<'a>(
        self,
        sources: impl Iterator<Item = (&'a SourceName, &'a Source)>,
        schedule: &RetrySchedule,
    ) -> anyhow::Result<Retention> {
        let Self { dedupe_window_days, max_queue_age_days, receipts_days, receipts_partition_days } =
            self;
        for (key, days) in
            [("dedupe_window_days", dedupe_window_days), ("receipts_days", receipts_days)]
        {
            ensure!(days.in_range(), "retention.{key} must be 1 to 36500, or \"forever\"");
        }
        ensure!(
            (1..=3650).contains(&max_queue_age_days),
            "retention.max_queue_age_days must be 1 to 3650"
        );
        ensure!(
            (1..=366).contains(&receipts_partition_days),
            "retention.receipts_partition_days must be 1 to 366"
        );
        let longest = sources.max_by_key(|(_, adapter)| adapter.redelivery_window());
        let needed = RequiredWindow {
            redelivery: longest.map_or(Duration::ZERO, |(_, adapter)| adapter.redelivery_window()),
            longest_source: longest.map(|(source, adapter)| (source.clone(), adapter.kind())),
            max_queue_age: DAY * u32::from(max_queue_age_days),
            retry_delays: schedule.total_delay(),
        };
        let (keys, receipts) = (dedupe_window_days.duration(), receipts_days.duration());
        ensure!(
            keys.is_none_or(|keys| keys >= needed.total()),
            "retention.dedupe_window_days must be at least {}: {needed}",
            needed.total().as_secs().div_ceil(DAY.as_secs())
        );
        // A repeat has no payload of its own: the first of its bytes has it.
        // Keys go by the generation, the last of them half a time later.
        let longest = keys.map(|keys| keys + keys / 2 + HOUR);
        let call_log_is_longer = match (receipts, longest) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(receipts), Some(longest)) => receipts >= longest,
        };
        let least = longest.map_or_else(
            || "\"forever\"".to_owned(),
            |longest| longest.as_secs().div_ceil(DAY.as_secs()).to_string(),
        );
        ensure!(
            call_log_is_longer,
            "retention.receipts_days must be at least {least}: the call log keeps the bytes that a \
             duplicate repeats with the first of them, and a key is remembered for up to one and \
             a half times retention.dedupe_window_days ({dedupe_window_days})"
        );
        Ok(Retention {
            dedupe_window: keys,
            receipts,
            receipts_partition: DAY * u32::from(receipts_partition_days),
            required_window: needed,
        })
    }
}

impl RequiredWindow {
    /// All of it, one after the other.
    pub fn total(&self) -> Duration {
        self.redelivery + self.max_queue_age + self.retry_delays
    }
}

impl fmt::Display for RequiredWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} until its platform gives up", HumanDuration(self.redelivery))?;
        if let Some((source, kind)) = &self.longest_source {
            write!(f, " (sources.{source}, {kind})")?;
        }
        write!(
            f,
            ", {} in the broker (retention.max_queue_age_days), {} between attempts (retry): {}",
            HumanDuration(self.max_queue_age),
            HumanDuration(self.retry_delays),
            HumanDuration(self.total())
        )
    }
}

/// A time as people say it: in its two largest units.
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 86_400, "d"),
            (seconds / 3600 % 24, "h"),
            (seconds / 60 % 60, "min"),
            (seconds % 60, "s"),
        ];
        let told: Vec<String> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .take(2)
            .map(|(count, unit)| format!("{count} {unit}"))
            .collect();
        if told.is_empty() {
            return write!(f, "{} ms", self.0.as_millis());
        }
        f.write_str(&told.join(" "))
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

            // From the environment, where everything is a text.
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
