//! Which dead letters are meant: the conditions that commands share.

use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::ReasonCode, sources::timestamp::parse_timestamp, store::dead_letters::DeadLetterFilter,
};

/// Which dead letters: every condition must hold.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// These letters only.
    #[arg(value_name = "ID")]
    ids: Vec<Uuid>,
    /// Came in at this source.
    #[arg(long)]
    source: Option<String>,
    /// About this topic.
    #[arg(long)]
    topic: Option<String>,
    /// First failed at this time or later (RFC 3339), or so long ago (90s, 15m, 6h, 3d).
    #[arg(long, value_parser = moment)]
    since: Option<OffsetDateTime>,
    /// First failed before this time; as --since.
    #[arg(long, value_parser = moment)]
    until: Option<OffsetDateTime>,
    /// This order's or invoice's number, or this event key.
    #[arg(long)]
    number: Option<String>,
    /// Deliveries that were to go to this target.
    #[arg(long)]
    target: Option<String>,
    /// In this state: open (default), replayed, resolved, discarded or all.
    #[arg(long, default_value = "open", value_parser = ["open", "replayed", "resolved", "discarded", "all"])]
    state: String,
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    if text.parse::<ReasonCode>().is_ok() {
        return Ok(text.to_owned());
    }
    let codes = ReasonCode::ALL.map(ReasonCode::as_str).join(", ");
    Err(format!("no such reason; one of {codes}"))
}

pub(super) fn moment(text: &str) -> Result<OffsetDateTime, String> {
    let ago = || {
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
    ago()
        .or_else(|| parse_timestamp(text))
        .ok_or_else(|| "neither a time (2026-01-31T12:00:00Z) nor a span (15m, 6h, 3d)".to_owned())
}

impl Which {
    pub(super) fn filter(&self, reason: Option<&String>) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: self.ids.clone(),
            state: (self.state != "all").then(|| self.state.clone()),
            source: self.source.clone(),
            reason: reason.cloned(),
            topic: self.topic.clone(),
            since: self.since,
            until: self.until,
            number: self.number.clone(),
            destination: self.target.clone(),
        }
    }
}
