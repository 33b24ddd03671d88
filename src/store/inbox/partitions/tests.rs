use super::*;

const DAY: i32 = 24;

fn partition(hour: i32, is_active: bool) -> InboxPartition {
    InboxPartition { hour, is_active, bytes: 0, table: String::new(), needs_vacuum: false }
}

fn retention(days: u64, now: i32) -> InboxRetention {
    let dedupe_window = Some(Duration::from_hours(24 * days));
    InboxRetention { dedupe_window, now: hour_start(now) }
}

#[test]
fn partition_due_after_share_of_window() {
    let partitions = [partition(1000, false), partition(2000, true)];
    let share = 40 * DAY / i32::try_from(PARTITIONS_PER_WINDOW).unwrap();
    assert_eq!(next_due(&partitions, &retention(40, 2000 + share - 1)), None);
    assert_eq!(next_due(&partitions, &retention(40, 2000 + share)), Some(2000 + share));
    // Later, if maintenance did not run.
    assert_eq!(next_due(&partitions, &retention(40, 9000)), Some(9000));
    let forever = InboxRetention { dedupe_window: None, ..retention(1, 9000) };
    assert_eq!(next_due(&partitions, &forever), None);
}

#[test]
fn partition_due_at_most_once_an_hour() {
    let partitions = [partition(2000, true)];
    let second =
        InboxRetention { dedupe_window: Some(Duration::from_secs(1)), now: hour_start(2000) };
    assert_eq!(next_due(&partitions, &second), None);
    // The clock was set back.
    let earlier = InboxRetention { now: hour_start(1990), ..second };
    assert_eq!(next_due(&partitions, &earlier), None);
    let later = InboxRetention { now: hour_start(2001), ..second };
    assert_eq!(next_due(&partitions, &later), Some(2001));
}

#[test]
fn partition_expired_when_next_older_than_window() {
    let partitions = [partition(1000, false), partition(1100, false), partition(1200, true)];
    let expired_hours = |retention: &InboxRetention| -> Vec<i32> {
        expired(&partitions, retention).map(|(partition, _)| partition.hour).collect()
    };
    // The next partition became active in its hour, at its end at the latest.
    assert_eq!(expired_hours(&retention(10, 1100 + 10 * DAY)), [0; 0]);
    assert_eq!(expired_hours(&retention(10, 1101 + 10 * DAY)), [1000]);
    assert_eq!(expired_hours(&retention(10, 1201 + 10 * DAY)), [1000, 1100]);
    // The active partition never expires.
    assert_eq!(expired_hours(&retention(10, 99_000)), [1000, 1100]);
    let forever = InboxRetention { dedupe_window: None, ..retention(1, 99_000) };
    assert_eq!(expired_hours(&forever), [0; 0]);
}

#[test]
fn hour_counts_from_unix_epoch() {
    let time = OffsetDateTime::from_unix_timestamp(1_795_361_399).unwrap();
    assert_eq!(hour_of(time), 498_711);
    assert_eq!(hour_start(498_711).unix_timestamp(), 1_795_359_600);
    assert_eq!(hour_of(OffsetDateTime::from_unix_timestamp(-1).unwrap()), -1);
}
