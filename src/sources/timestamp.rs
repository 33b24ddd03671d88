//! Timestamps in the formats that senders use.

use time::{
    OffsetDateTime, PrimitiveDateTime, UtcOffset,
    format_description::well_known::{Rfc2822, Rfc3339},
    macros::format_description,
};

/// Parses RFC 3339, also without a zone (read as UTC) or without a colon in it (`-0700`),
/// RFC 2822, whole seconds since 1970, and the milliseconds of
/// `/Date(1573755038314+0000)/`.
pub fn parse_timestamp(text: &str) -> Option<OffsetDateTime> {
    // RFC 3339, in which the envelope carries it, has no years before 0, and PostgreSQL has
    // them only as years BC.
    read(text.trim()).filter(|timestamp| timestamp.year() > 0)
}

fn read(text: &str) -> Option<OffsetDateTime> {
    let zoned = OffsetDateTime::parse(text, &Rfc3339);
    if let Ok(timestamp) = zoned.or_else(|_| OffsetDateTime::parse(text, &Rfc2822)) {
        // In UTC, the last hours of the year 9999 may be out of range.
        return timestamp.checked_to_offset(UtcOffset::UTC);
    }
    let zoneless = format_description!(
        version = 2,
        "[year]-[month]-[day][first [T] [ ]][hour]:[minute]:[second][optional [.[subsecond]]]"
    );
    if let Ok(timestamp) = PrimitiveDateTime::parse(text, &zoneless) {
        return Some(timestamp.assume_utc());
    }
    let without_colon = format_description!(
        version = 2,
        "[year]-[month]-[day]T[hour]:[minute]:[second][optional [.[subsecond]]][offset_hour sign:mandatory][offset_minute]"
    );
    if let Ok(timestamp) = OffsetDateTime::parse(text, &without_colon) {
        return timestamp.checked_to_offset(UtcOffset::UTC);
    }
    if let Some(inner) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
        return parse_milliseconds(inner);
    }
    OffsetDateTime::from_unix_timestamp(text.parse().ok()?).ok()
}

/// Parses milliseconds since 1970 in UTC. An offset after them only names the writer's
/// zone.
fn parse_milliseconds(text: &str) -> Option<OffsetDateTime> {
    let offset = text.rfind(['+', '-']).filter(|at| *at > 0);
    let digits = offset.map_or(text, |at| &text[..at]);
    if digits.starts_with('+') {
        return None;
    }
    let milliseconds: i64 = digits.parse().ok()?;
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn timestamp_formats_of_senders_are_parsed() {
        for (text, expected) in [
            ("2026-01-02T03:04:05-05:00", datetime!(2026-01-02 8:04:05 UTC)),
            ("2026-01-02T03:04:05Z", datetime!(2026-01-02 3:04:05 UTC)),
            ("2026-01-02T03:04:05", datetime!(2026-01-02 3:04:05 UTC)),
            ("2026-01-02 03:04:05.250", datetime!(2026-01-02 3:04:05.25 UTC)),
            ("1767323045", datetime!(2026-01-02 3:04:05 UTC)),
            ("Fri, 02 Jan 2026 03:04:05 +0000", datetime!(2026-01-02 3:04:05 UTC)),
            ("2 Jan 2026 03:04:05 -0500", datetime!(2026-01-02 8:04:05 UTC)),
            // QuickBooks.
            ("2015-10-05T14:42:19-0700", datetime!(2015-10-05 21:42:19 UTC)),
            ("2015-10-05T14:42:19.5+0530", datetime!(2015-10-05 9:12:19.5 UTC)),
            // Xero.
            ("/Date(1573755038314)/", datetime!(2019-11-14 18:10:38.314 UTC)),
            ("/Date(1573755038314+0000)/", datetime!(2019-11-14 18:10:38.314 UTC)),
            ("/Date(1573755038314-0800)/", datetime!(2019-11-14 18:10:38.314 UTC)),
            ("/Date(-1000+0000)/", datetime!(1969-12-31 23:59:59 UTC)),
            ("/Date(-1000)/", datetime!(1969-12-31 23:59:59 UTC)),
        ] {
            assert_eq!(parse_timestamp(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "99999999999999999999",
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59-2359",
            "2015-10-05T14:42:19-07",
            "/Date()/",
            "/Date(+0000)/",
            "/Date(-300000000000000+0000)/",
            "-300000000000",
            "-5000-01-01T00:00:00",
            "0000-12-31T23:59:59Z",
            "/Date(9223372036854775807)/",
            "/Date(1573755038314",
            "Date(1573755038314)",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
