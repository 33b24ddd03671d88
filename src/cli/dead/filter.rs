//! Which dead letters: the conditions that the `dead` commands share.

use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    cli::reason_code, sources::timestamp::parse_timestamp, store::dead_letters::DeadLetterFilter,
};

/// Which dead letters; all conditions must hold.
#[derive(Debug, Args)]
pub(super) struct FilterArgs {
    /// Only these dead letters.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// With this reason.
    #[arg(long, value_name = "CODE", value_parser = reason_code)]
    reason: Option<String>,
    /// From this source.
    #[arg(long)]
    source: Option<String>,
    /// With this topic.
    #[arg(long)]
    topic: Option<String>,
    /// First failed at this time or later: RFC 3339, or an age (90s, 15m, 6h, 3d).
    #[arg(long, value_name = "TIME", value_parser = time_or_age)]
    since: Option<OffsetDateTime>,
    /// First failed before this time: RFC 3339, or an age (90s, 15m, 6h, 3d).
    #[arg(long, value_name = "TIME", value_parser = time_or_age)]
    until: Option<OffsetDateTime>,
    /// With this order or invoice number, or this event key.
    #[arg(long)]
    number: Option<String>,
    /// Of deliveries to this destination.
    #[arg(long)]
    destination: Option<String>,
    /// In this state.
    #[arg(long, default_value = "open", value_parser = ["open", "replayed", "resolved", "discarded", "all"])]
    state: String,
}

fn time_or_age(text: &str) -> Result<OffsetDateTime, String> {
    let age = || {
        let unit = text.chars().last()?;
        let number: u32 = text.get(..text.len() - unit.len_utf8())?.parse().ok()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        OffsetDateTime::now_utc()
            .checked_sub(Duration::from_secs(seconds).checked_mul(number)?.try_into().ok()?)
    };
    age()
        .or_else(|| parse_timestamp(text))
        .ok_or_else(|| "neither a time (2026-01-31T12:00:00Z) nor an age (15m, 6h, 3d)".to_owned())
}

impl FilterArgs {
    pub(super) fn filter(&self) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: self.ids.clone(),
            state: (self.state != "all").then(|| self.state.clone()),
            source: self.source.clone(),
            reason: self.reason.clone(),
            topic: self.topic.clone(),
            since: self.since,
            until: self.until,
            number: self.number.clone(),
            destination: self.destination.clone(),
        }
    }
}
