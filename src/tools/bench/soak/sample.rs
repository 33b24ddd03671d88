//! The figures of one interval.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    broker::{BrokerConnection, topology::QueueDepth},
    tools::bench::{
        baseline::table_stats::{self, TableStats},
        environment::BenchEnvironment,
        measure::{Percentiles, from_i64, from_usize, ratio, round},
        memory::mebibytes,
        process::ServeProcess,
    },
};

/// What happened in the current interval.
#[derive(Debug, Default)]
pub(super) struct Interval {
    /// Latencies of accepted messages, from when they were due.
    pub(super) responses: Vec<Duration>,
    pub(super) refused: usize,
    /// Commit times of probed messages, from when they were due.
    pub(super) commits: Vec<Duration>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// The end of the interval, in seconds since the first arrival.
    pub(super) at_seconds: f64,
    /// Responses with 2xx.
    pub(super) accepted: usize,
    /// Responses with 429 or 503.
    pub(super) refused: usize,
    /// From due to response; null if there was none.
    pub(super) responses: Option<Percentiles>,
    /// From due to committed, of probed messages; null if there was none.
    pub(super) commits: Option<Percentiles>,
    pub(super) probed: usize,
    /// Resident memory of `serve` at the end of the interval.
    pub(super) resident_mib: f64,
    /// Messages in all queues at the end of the interval.
    pub(super) queued: u32,
    /// Bytes of write-ahead log.
    pub(super) wal_bytes: i64,
    /// Relative to accepted messages.
    pub(super) wal_bytes_per_message: f64,
    /// The tables at the end of the interval.
    pub(super) tables: BTreeMap<&'static str, TableSample>,
}

/// One table with all its partitions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct TableSample {
    /// Inserted minus deleted rows, as PostgreSQL counts them; rows of rolled
    /// back transactions are included.
    pub(super) rows: i64,
    /// Rows, large values and free space.
    pub(super) table_bytes: i64,
    pub(super) index_bytes: i64,
    /// Table and indexes.
    pub(super) bytes_per_row: f64,
    pub(super) dead_tuples: i64,
    /// Dead tuples relative to all tuples.
    pub(super) dead_share: f64,
    /// The share of the interval's updates without a new index entry (HOT);
    /// null if there was no update.
    pub(super) hot_share: Option<f64>,
}

pub(super) struct Sampler<'a> {
    environment: &'a BenchEnvironment,
    serve: &'a ServeProcess,
    link: &'a BrokerConnection,
    started: Instant,
    /// Statistics at the start, and at the last sample.
    first: BTreeMap<&'static str, TableStats>,
    last: BTreeMap<&'static str, TableStats>,
    wal_bytes: i64,
}

impl<'a> Sampler<'a> {
    pub(super) async fn new(
        environment: &'a BenchEnvironment,
        serve: &'a ServeProcess,
        link: &'a BrokerConnection,
    ) -> anyhow::Result<Self> {
        let first = table_stats::read(&environment.store).await?;
        let wal_bytes = table_stats::wal_bytes(&environment.store).await?;
        let (last, started) = (first.clone(), Instant::now());
        Ok(Self { environment, serve, link, started, first, last, wal_bytes })
    }

    /// Ends an interval.
    pub(super) async fn take(&mut self, interval: Interval) -> anyhow::Result<Sample> {
        let at_seconds = round(self.started.elapsed().as_secs_f64(), 1);
        let resident_mib = mebibytes(self.serve.resident_kib()?);
        let wal_bytes = table_stats::wal_bytes(&self.environment.store).await?;
        let stats = table_stats::read(&self.environment.store).await?;
        let table = |(name, now): (&&'static str, &TableStats)| {
            let of = |all: &BTreeMap<_, TableStats>| all.get(name).copied().unwrap_or_default();
            (*name, TableSample::new(of(&self.first), of(&self.last), *now))
        };
        let tables = stats.iter().map(table).collect();
        let written = wal_bytes - self.wal_bytes;
        (self.wal_bytes, self.last) = (wal_bytes, stats);
        let Interval { responses, refused, commits } = interval;
        let (accepted, probed) = (responses.len(), commits.len());
        let percentiles =
            |times: Vec<Duration>| (!times.is_empty()).then(|| Percentiles::of(times));
        Ok(Sample {
            at_seconds,
            accepted,
            refused,
            responses: percentiles(responses),
            commits: percentiles(commits),
            probed,
            resident_mib,
            queued: queued(&self.environment.topology.depths(self.link).await?),
            wal_bytes: written,
            wal_bytes_per_message: round(ratio(from_i64(written), from_usize(accepted)), 0),
            tables,
        })
    }
}

impl Sample {
    /// One line for the progress output.
    pub(super) fn progress(&self, length: Duration) -> String {
        format!(
            "soak, {:.1} of {:.1} min: {} accepted; {} refused; {:.0} MiB; {} queued",
            self.at_seconds / 60.0,
            length.as_secs_f64() / 60.0,
            self.accepted,
            self.refused,
            self.resident_mib,
            self.queued,
        )
    }
}

/// Messages in queues, without the log of rejected requests.
pub(super) fn queued(depths: &[QueueDepth]) -> u32 {
    let messages = depths.iter().filter(|depth| depth.role != "calls");
    messages.filter_map(|depth| depth.ready).fold(0, u32::saturating_add)
}

impl TableSample {
    fn new(first: TableStats, last: TableStats, now: TableStats) -> Self {
        let rows = now.rows - first.rows;
        let updated = now.updated - last.updated;
        // A dropped partition takes its counts with it.
        let hot = ratio(from_i64(now.updated_hot - last.updated_hot), from_i64(updated));
        Self {
            rows,
            table_bytes: now.table_bytes,
            index_bytes: now.index_bytes,
            bytes_per_row: round(
                ratio(from_i64(now.table_bytes + now.index_bytes), from_i64(rows)),
                1,
            ),
            dead_tuples: now.dead,
            dead_share: round(ratio(from_i64(now.dead), from_i64(now.live + now.dead)), 4),
            hot_share: (updated > 0).then(|| round(hot.clamp(0.0, 1.0), 4)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_sample_is_relative_to_the_start_and_the_last_sample() {
        let first = TableStats { rows: 40, ..TableStats::default() };
        let last = TableStats { updated: 100, updated_hot: 90, ..TableStats::default() };
        let now = TableStats { rows: 140, updated: 200, updated_hot: 170, ..first };
        let sample = TableSample::new(first, last, now);
        assert_eq!((sample.rows, sample.hot_share), (100, Some(0.8)));
        assert_eq!(TableSample::new(first, now, now).hot_share, None);
    }
}
