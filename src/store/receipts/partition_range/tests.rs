use time::macros::datetime;
use uuid::{NoContext, Timestamp};

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 15:30:00.123 UTC);

fn days(count: u64) -> Duration {
    Duration::from_secs(count * DAY_SECONDS)
}

fn plan(span: u64, ahead: u64) -> ReceiptsRetention {
    ReceiptsRetention { partition_span: days(span), premake: days(ahead), keep_for: None, now: NOW }
}

fn span(from: OffsetDateTime, until: OffsetDateTime) -> PartitionRange {
    PartitionRange { from, until }
}

/// An id that somebody made at that moment.
fn made_at(at: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()))
}

#[test]
fn an_id_lies_in_the_span_of_its_time_and_in_no_other() {
    let [from, until] = [datetime!(2026-11-16 00:00 UTC), datetime!(2026-11-23 00:00 UTC)];
    let ids = lowest_id(from)..lowest_id(until);
    let millisecond = time::Duration::MILLISECOND;
    for (at, lies_in) in [
        (from - millisecond, false),
        (from, true),
        (from + millisecond, true),
        (NOW, true),
        (until - millisecond, true),
        (until - time::Duration::NANOSECOND, true),
        (until, false),
        (until + millisecond, false),
    ] {
        for _ in 0..50 {
            assert_eq!(ids.contains(&made_at(at)), lies_in, "{at}");
        }
    }
}

#[test]
fn a_span_is_found_again_in_its_ids() {
    for known in [
        span(datetime!(2026-11-16 00:00 UTC), datetime!(2026-11-23 00:00 UTC)),
        span(datetime!(1970-01-01 00:00 UTC), datetime!(2400-02-29 12:34:56.789 UTC)),
    ] {
        assert_eq!(PartitionRange::from_ids(lowest_id(known.from), lowest_id(known.until)), known);
    }
    assert_eq!(lowest_id(datetime!(1969-12-31 23:59 UTC)), Uuid::nil());
    assert!(id_timestamp(Uuid::max()) > datetime!(9999-12-31 00:00 UTC));
    // Also in a zone where it is another day.
    let eve = span(datetime!(2026-11-22 20:00 -5), datetime!(2026-11-30 00:00 UTC));
    assert_eq!(eve.table_name(), "receipts_20261123");
}

#[test]
fn spans_follow_the_last_one_without_a_gap() {
    let last = span(datetime!(2026-11-20 00:00 UTC), datetime!(2026-11-24 00:00 UTC));
    let missing = plan(7, 14).missing_ranges(&[last]);
    assert_eq!(
        missing,
        [
            span(last.until, datetime!(2026-12-01 00:00 UTC)),
            span(datetime!(2026-12-01 00:00 UTC), datetime!(2026-12-08 00:00 UTC)),
        ]
    );
    // Whoever has them needs no more, whatever span the next ones will have.
    let known = [&[last], &missing[..]].concat();
    for length in [1, 7, 30] {
        assert_eq!(plan(length, 14).missing_ranges(&known), []);
    }
    assert_eq!(
        plan(30, 16).missing_ranges(&known),
        [span(datetime!(2026-12-08 00:00 UTC), datetime!(2027-01-07 00:00 UTC))]
    );
    // A table with none, and a span shorter than a day.
    let today = datetime!(2026-11-22 00:00 UTC);
    assert_eq!(plan(0, 0).missing_ranges(&[]), [span(today, datetime!(2026-11-23 00:00 UTC))]);
}

#[test]
fn a_hole_is_filled_up_to_what_follows_it() {
    let past = span(datetime!(2026-09-01 00:00 UTC), datetime!(2026-11-12 00:00 UTC));
    // Made by a clock that was ahead.
    let future = span(datetime!(2026-11-25 00:00 UTC), datetime!(2027-11-25 00:00 UTC));
    assert_eq!(
        plan(7, 14).missing_ranges(&[future, past]),
        [
            span(past.until, datetime!(2026-11-19 00:00 UTC)),
            span(datetime!(2026-11-19 00:00 UTC), future.from),
        ]
    );
    // So long ago that nothing of it can be on its way.
    let ancient = span(datetime!(2019-01-01 00:00 UTC), datetime!(2019-02-01 00:00 UTC));
    let missing = plan(7, 0).missing_ranges(&[ancient]);
    assert_eq!(missing, [span(datetime!(2026-11-22 00:00 UTC), datetime!(2026-11-29 00:00 UTC))]);
}

#[test]
fn what_was_dropped_is_not_made_again() {
    let held = span(datetime!(2026-10-01 00:00 UTC), datetime!(2026-10-08 00:00 UTC));
    let kept = span(datetime!(2026-11-19 00:00 UTC), datetime!(2026-12-31 00:00 UTC));
    let plan = ReceiptsRetention { keep_for: Some(days(3)), ..plan(7, 28) };
    assert_eq!(plan.missing_ranges(&[held, kept]), []);
}

#[test]
fn no_length_of_time_is_too_much() {
    for huge in [Duration::MAX, days(1 << 40)] {
        let plan = ReceiptsRetention {
            partition_span: days(1),
            premake: huge,
            keep_for: Some(huge),
            now: NOW,
        };
        assert_eq!(plan.missing_ranges(&[]).len(), MAX_MISSING);
        let plan =
            ReceiptsRetention { partition_span: huge, premake: days(1), keep_for: None, now: NOW };
        assert_eq!(plan.missing_ranges(&[]).len(), 1);
        assert!(plan.cutoff(NOW).is_none());
    }
}
