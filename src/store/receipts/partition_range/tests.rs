use time::macros::datetime;
use uuid::{NoContext, Timestamp};

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-22 15:30:00.123 UTC);

fn days(count: u64) -> Duration {
    Duration::from_secs(count * DAY_SECONDS)
}

fn retention(span_days: u64, premake_days: u64) -> ReceiptsRetention {
    ReceiptsRetention {
        partition_span: days(span_days),
        premake: days(premake_days),
        keep_for: None,
        now: NOW,
    }
}

fn range(from: OffsetDateTime, until: OffsetDateTime) -> PartitionRange {
    PartitionRange { from, until }
}

/// A receipt id as `Uuid::now_v7` creates it at that moment.
fn id_at(at: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()))
}

#[test]
fn id_within_range_of_its_time() {
    let [from, until] = [datetime!(2026-11-16 00:00 UTC), datetime!(2026-11-23 00:00 UTC)];
    let ids = lowest_id(from)..lowest_id(until);
    let millisecond = time::Duration::MILLISECOND;
    for (at, is_inside) in [
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
            assert_eq!(ids.contains(&id_at(at)), is_inside, "{at}");
        }
    }
}

#[test]
fn range_from_ids_roundtrip() {
    for expected in [
        range(datetime!(2026-11-16 00:00 UTC), datetime!(2026-11-23 00:00 UTC)),
        range(datetime!(1970-01-01 00:00 UTC), datetime!(2400-02-29 12:34:56.789 UTC)),
    ] {
        assert_eq!(
            PartitionRange::from_ids(lowest_id(expected.from), lowest_id(expected.until)),
            expected
        );
    }
    assert_eq!(lowest_id(datetime!(1969-12-31 23:59 UTC)), Uuid::nil());
    assert!(id_timestamp(Uuid::max()) > datetime!(9999-12-31 00:00 UTC));
    // In a time zone with another date.
    let eve = range(datetime!(2026-11-22 20:00 -5), datetime!(2026-11-30 00:00 UTC));
    assert_eq!(eve.table_name(), "receipts_20261123");
}

#[test]
fn missing_ranges_follow_last_without_gap() {
    let last = range(datetime!(2026-11-20 00:00 UTC), datetime!(2026-11-24 00:00 UTC));
    let missing = retention(7, 14).missing_ranges(&[last]);
    assert_eq!(
        missing,
        [
            range(last.until, datetime!(2026-12-01 00:00 UTC)),
            range(datetime!(2026-12-01 00:00 UTC), datetime!(2026-12-08 00:00 UTC)),
        ]
    );
    // With these, none is missing, whatever the span of the next ones.
    let existing = [&[last], &missing[..]].concat();
    for length in [1, 7, 30] {
        assert_eq!(retention(length, 14).missing_ranges(&existing), []);
    }
    assert_eq!(
        retention(30, 16).missing_ranges(&existing),
        [range(datetime!(2026-12-08 00:00 UTC), datetime!(2027-01-07 00:00 UTC))]
    );
    // No partition exists, and the span is shorter than a day.
    let today = datetime!(2026-11-22 00:00 UTC);
    assert_eq!(
        retention(0, 0).missing_ranges(&[]),
        [range(today, datetime!(2026-11-23 00:00 UTC))]
    );
}

#[test]
fn missing_ranges_gap_filled_up_to_next() {
    let past = range(datetime!(2026-09-01 00:00 UTC), datetime!(2026-11-12 00:00 UTC));
    // Created by a clock that was ahead.
    let future = range(datetime!(2026-11-25 00:00 UTC), datetime!(2027-11-25 00:00 UTC));
    assert_eq!(
        retention(7, 14).missing_ranges(&[future, past]),
        [
            range(past.until, datetime!(2026-11-19 00:00 UTC)),
            range(datetime!(2026-11-19 00:00 UTC), future.from),
        ]
    );
    // Too long ago for receipts of that time to arrive.
    let ancient = range(datetime!(2019-01-01 00:00 UTC), datetime!(2019-02-01 00:00 UTC));
    let missing = retention(7, 0).missing_ranges(&[ancient]);
    assert_eq!(missing, [range(datetime!(2026-11-22 00:00 UTC), datetime!(2026-11-29 00:00 UTC))]);
}

#[test]
fn missing_ranges_dropped_not_recreated() {
    let retained = range(datetime!(2026-10-01 00:00 UTC), datetime!(2026-10-08 00:00 UTC));
    let existing = range(datetime!(2026-11-19 00:00 UTC), datetime!(2026-12-31 00:00 UTC));
    let retention = ReceiptsRetention { keep_for: Some(days(3)), ..retention(7, 28) };
    assert_eq!(retention.missing_ranges(&[retained, existing]), []);
}

#[test]
fn missing_ranges_huge_durations_bounded() {
    for huge in [Duration::MAX, days(1 << 40)] {
        let retention = ReceiptsRetention {
            partition_span: days(1),
            premake: huge,
            keep_for: Some(huge),
            now: NOW,
        };
        assert_eq!(retention.missing_ranges(&[]).len(), MAX_MISSING);
        let retention =
            ReceiptsRetention { partition_span: huge, premake: days(1), keep_for: None, now: NOW };
        assert_eq!(retention.missing_ranges(&[]).len(), 1);
        assert!(retention.cutoff(NOW).is_none());
    }
}
