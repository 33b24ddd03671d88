//! What is noted once in an interval: how long things took in it, and how
//! much there is by then.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    broker::{BrokerConnection, topology::QueueDepth},
    tools::bench::{
        baseline::{books, books::Told},
        measure::{Percentiles, ratio, real, round, whole},
        memory::mebibytes,
        process::Process,
        stage::Stage,
    },
};

/// Answers and commits of one interval, as they come.
#[derive(Debug, Default)]
pub struct Interval {
    /// How long each accepted message's answer took, from when it was due.
    pub answered: Vec<Duration>,
    /// How many were refused.
    pub refused: usize,
    /// How long each probed message took, from when it was due until another
    /// session saw its receipt.
    pub committed: Vec<Duration>,
}

/// One interval's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// When it ended, in seconds since the first arrival.
    pub at_seconds: f64,
    /// Messages that were accepted.
    pub accepted: usize,
    /// Messages that were refused with 429 or 503.
    pub refused: usize,
    /// From when a message was due until it was answered; nothing if none was.
    pub answered: Option<Percentiles>,
    /// From when a message was due until another session saw it in the books:
    /// of those that were probed; nothing if none was.
    pub committed: Option<Percentiles>,
    /// How many were probed.
    pub probed: usize,
    /// What `serve` keeps resident, at the end of the interval.
    pub resident_mib: f64,
    /// Messages that waited in queues of ours at the end of the interval;
    /// those that a worker held are not counted.
    pub queued: u32,
    /// What the server wrote to its write-ahead log.
    pub wal_bytes: i64,
    /// The same, divided by the messages that were accepted meanwhile.
    pub wal_bytes_per_message: f64,
    /// The tables at the end of the interval.
    pub tables: BTreeMap<&'static str, Table>,
}

/// One table, its partitions together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Table {
    /// Rows that were inserted and not deleted, as the server counts them;
    /// those of transactions that were rolled back are among them.
    pub rows: i64,
    /// Table and indexes.
    pub total_bytes: i64,
    /// Its rows, with large values and free space.
    pub table_bytes: i64,
    /// Its indexes.
    pub index_bytes: i64,
    /// What each row takes of both.
    pub bytes_per_row: f64,
    /// Rows that the server knows to be there.
    pub live_tuples: i64,
    /// Old versions of rows whose room is not free yet.
    pub dead_tuples: i64,
    /// Their share of both.
    pub dead_share: f64,
    /// The share of the interval's updates that touched no index (HOT);
    /// nothing if there was none.
    pub hot_share: Option<f64>,
}

/// Takes one sample after the other.
pub struct Sampler<'a> {
    stage: &'a Stage,
    serving: &'a Process,
    link: &'a BrokerConnection,
    /// When the first interval began.
    pub begun: Instant,
    /// What the server had counted before.
    before: BTreeMap<&'static str, Told>,
    /// What it had counted at the last sample.
    last: BTreeMap<&'static str, Told>,
    wal: i64,
}

impl<'a> Sampler<'a> {
    /// From now on.
    ///
    /// # Errors
    /// The database fails.
    pub async fn new(
        stage: &'a Stage,
        serving: &'a Process,
        link: &'a BrokerConnection,
    ) -> anyhow::Result<Self> {
        let before = books::look(&stage.store).await?;
        let wal = books::wal_bytes(&stage.store).await?;
        let begun = Instant::now();
        Ok(Self { stage, serving, link, begun, last: before.clone(), before, wal })
    }

    /// Ends an interval.
    ///
    /// # Errors
    /// A server fails, or `serve` is gone.
    pub async fn take(&mut self, interval: Interval) -> anyhow::Result<Sample> {
        let at_seconds = round(self.begun.elapsed().as_secs_f64(), 1);
        let resident_mib = mebibytes(self.serving.resident()?);
        let wal = books::wal_bytes(&self.stage.store).await?;
        let looked = books::look(&self.stage.store).await?;
        let table = |(name, now): (&&'static str, &Told)| {
            let of = |all: &BTreeMap<_, Told>| all.get(name).copied().unwrap_or_default();
            (*name, Table::of(&of(&self.before), &of(&self.last), now))
        };
        let tables = looked.iter().map(table).collect();
        let wal_bytes = wal - self.wal;
        (self.wal, self.last) = (wal, looked);
        let Interval { answered, refused, committed } = interval;
        let (accepted, probed) = (answered.len(), committed.len());
        Ok(Sample {
            at_seconds,
            accepted,
            refused,
            answered: times(answered),
            committed: times(committed),
            probed,
            resident_mib,
            queued: queued(&self.stage.topology.depths(self.link).await?),
            wal_bytes,
            wal_bytes_per_message: round(ratio(whole(wal_bytes), real(accepted)), 0),
            tables,
        })
    }
}

fn times(took: Vec<Duration>) -> Option<Percentiles> {
    (!took.is_empty()).then(|| Percentiles::of(took))
}

/// Messages on their way to the books, or to a person.
pub fn queued(depths: &[QueueDepth]) -> u32 {
    // Refused calls on their way to the call log are none.
    let ours = depths.iter().filter(|depth| depth.role != "calls");
    ours.filter_map(|depth| depth.ready).fold(0, u32::saturating_add)
}

impl Table {
    /// From what was told before everything, at the last sample and now.
    fn of(before: &Told, last: &Told, now: &Told) -> Self {
        let rows = (now.inserted - now.deleted) - (before.inserted - before.deleted);
        let total_bytes = now.table_bytes + now.index_bytes;
        let updated = now.updated - last.updated;
        let hot_share =
            ratio(whole(now.updated_hot - last.updated_hot), whole(updated)).clamp(0.0, 1.0);
        Self {
            rows,
            total_bytes,
            table_bytes: now.table_bytes,
            index_bytes: now.index_bytes,
            bytes_per_row: round(ratio(whole(total_bytes), whole(rows)), 1),
            live_tuples: now.live,
            dead_tuples: now.dead,
            dead_share: round(ratio(whole(now.dead), whole(now.live + now.dead)), 4),
            // A partition that was dropped takes its counts with it.
            hot_share: (updated > 0).then(|| round(hot_share, 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn a_table_is_told_against_before_and_against_the_last_sample() {
        let before = Told { inserted: 50, deleted: 10, ..Told::default() };
        let last = Told { updated: 100, updated_hot: 90, ..Told::default() };
        let now = Told {
            table_bytes: 6_000,
            index_bytes: 2_000,
            live: 30,
            dead: 10,
            inserted: 125,
            deleted: 5,
            updated: 180,
            updated_hot: 130,
        };
        let told = Table::of(&before, &last, &now);
        assert_eq!((told.rows, told.total_bytes), (80, 8_000));
        assert!(close(told.bytes_per_row, 100.0), "{told:?}");
        assert!(close(told.dead_share, 0.25), "{told:?}");
        assert!(told.hot_share.is_some_and(|share| close(share, 0.5)), "{told:?}");
    }

    #[test]
    fn an_empty_table_divides_nothing() {
        let nothing = Told::default();
        let told = Table::of(&nothing, &nothing, &Told { table_bytes: 8_192, ..nothing });
        assert!(close(told.bytes_per_row, 0.0) && close(told.dead_share, 0.0), "{told:?}");
        assert_eq!(told.hot_share, None);
    }

    #[test]
    fn what_waits_is_what_is_on_its_way_to_the_books() {
        let depth = |role, ready| QueueDepth { queue: String::new(), role, source: None, ready };
        let depths = [
            depth("inbound", Some(3)),
            depth("inbound", None),
            depth("retry", Some(2)),
            depth("dead", Some(1)),
            depth("calls", Some(100)),
        ];
        assert_eq!(queued(&depths), 6);
    }
}
