//! `workers`: how fast one, two and four worker processes apply one backlog
//! from the same queue.
//!
//! Start-up is not measured: each process waits at a [`StartBarrier`] until all
//! are connected to both servers. Times come from the database's clock, from
//! the release of the barrier until the last message is on record. A rate counts
//! only if every message has its expected outcome and no deadlock occurred.

use std::{
    collections::BTreeMap,
    ops::Add,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    BenchOptions,
    backlog::Backlog,
    baseline::start_barrier::{self, StartBarrier},
    environment::BenchEnvironment,
    measure::{per_second, ratio, rounded_median},
    payload::Payload,
    process::ServeProcess,
    report::{Measured, rate, row},
};
use crate::{
    app::Roles,
    store::{
        Conn,
        reconciliation::{self, Totals},
    },
};

/// Numbers of processes, measured alternately.
const PROCESSES: [u32; 3] = [1, 2, 4];
/// Time limit for a process to reach the barrier.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// A process is at the barrier if no further session arrives in this time.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Interval of the completion check, short enough for the measurement.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The completion check asks for the last messages of the queue first, because
/// counting all receipts costs more.
const TAIL: usize = 100;
const DRAIN_TIMEOUT: Duration = Duration::from_mins(10);
/// Time limit for dead letters and for sessions of ended processes.
const CLEANUP_TIMEOUT: Duration = Duration::from_mins(1);

/// Outcomes that must be on record in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ExpectedOutcomes {
    /// Applied, stale or ignored: one for each event.
    processed: i64,
    duplicate: i64,
    /// Messages that cannot be applied.
    dead: i64,
}

pub(super) async fn run(
    environment: &BenchEnvironment,
    options: &BenchOptions,
) -> anyhow::Result<Measured> {
    let publisher = environment.start_publisher().await?;
    let backlog = Backlog::generate(environment, Payload::Generic, options.messages, options.mix)?;
    let expected = ExpectedOutcomes::of(&backlog);
    let mut runs: Vec<BTreeMap<u32, f64>> = Vec::new();
    for run in 1..=options.runs {
        let mut order = PROCESSES;
        if run % 2 == 0 {
            order.reverse();
        }
        let mut rates = BTreeMap::new();
        for processes in order {
            environment.progress(&format!("workers, {processes} processes, run {run}"));
            environment.clear().await?;
            backlog.publish(environment, &publisher.publisher).await?;
            let rate = apply(environment, options, &backlog, expected, processes).await?;
            rates.insert(processes, rate);
        }
        runs.push(rates);
    }
    environment.clear().await?;
    let (mut figures, mut rows) = (json!({}), Vec::new());
    for processes in PROCESSES {
        let ratio_to_one = |rates: &BTreeMap<u32, f64>| ratio(rates[&processes], rates[&1]);
        let ratio_to_one = rounded_median(runs.iter().map(ratio_to_one), 3);
        let per_second = rounded_median(runs.iter().map(|rates| rates[&processes]), 0);
        let (plural, compared) = match processes {
            1 => ("", String::new()),
            _ => ("es", format!("{ratio_to_one:.2} of one process")),
        };
        let title = Payload::Generic.title();
        let what = format!("drain by {processes} worker process{plural}, {title}");
        rows.push(row(what, rate(per_second), compared));
        figures[processes.to_string()] =
            json!({"per_second": per_second, "ratio_to_one": ratio_to_one});
    }
    Ok(Measured { figures, rows })
}

/// Has worker processes apply a published backlog; messages a second.
/// `expected` is the record of all messages since the tables were empty.
pub(super) async fn apply(
    environment: &BenchEnvironment,
    options: &BenchOptions,
    backlog: &Backlog,
    expected: ExpectedOutcomes,
    processes: u32,
) -> anyhow::Result<f64> {
    let mut connection = environment.store.connection().await?;
    let deadlocks = start_barrier::deadlocks(&mut connection).await?;
    let mut barrier = StartBarrier::raise(&environment.store).await?;
    // All sessions that begin later are the workers'.
    let raised_at = start_barrier::database_time(&mut connection).await?;
    let mut workers = Vec::new();
    let mut waiting = 0;
    for _ in 0..processes {
        let worker = Roles { receiver: false, worker: true };
        let mut worker = ServeProcess::start(environment, &options.program, worker).await?;
        waiting = wait_at_barrier(&mut barrier, &mut worker, waiting).await?;
        workers.push(worker);
    }
    let started_at = barrier.release().await?;
    let finished_at = timeout(
        DRAIN_TIMEOUT,
        wait_until_on_record(&mut connection, &mut workers, backlog, expected),
    )
    .await
    .with_context(|| format!("{processes} workers did not finish in time"))??;

    let totals = wait_for_totals(&mut connection, expected).await?;
    for worker in workers {
        worker.stop().await?;
    }
    ensure!(
        ExpectedOutcomes::found(&totals) == Some(expected),
        "expected {expected:?}, found {totals:?}: this is a bug of tallyhook or of its bench"
    );
    wait_for_session_end(&mut connection, raised_at).await?;
    let deadlocks = start_barrier::deadlocks(&mut connection).await? - deadlocks;
    ensure!(deadlocks == 0, "PostgreSQL found {deadlocks} deadlocks of {processes} workers");
    let time = Duration::try_from(finished_at - started_at).unwrap_or_default();
    Ok(per_second(backlog.messages.len(), time))
}

/// Waits until a new process is at the barrier in addition to `others`
/// sessions; returns the number of waiting sessions.
async fn wait_at_barrier(
    barrier: &mut StartBarrier,
    worker: &mut ServeProcess,
    others: i64,
) -> anyhow::Result<i64> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut last = others;
    loop {
        ensure!(Instant::now() < deadline, "a worker did not reach the start barrier in time");
        sleep(SETTLE_TIME).await;
        worker.ensure_running()?;
        let waiting = barrier.waiting_sessions().await?;
        if waiting > others && waiting == last {
            return Ok(waiting);
        }
        last = waiting;
    }
}

/// Waits until all applicable messages are on record; returns the database's
/// time of the check that saw it.
async fn wait_until_on_record(
    connection: &mut Conn,
    workers: &mut [ServeProcess],
    backlog: &Backlog,
    expected: ExpectedOutcomes,
) -> anyhow::Result<OffsetDateTime> {
    let tail: Vec<Uuid> =
        backlog.applicable().rev().take(TAIL).map(|message| message.envelope.receipt_id).collect();
    let mut tail_on_record = false;
    loop {
        let (now, found) = if tail_on_record {
            start_barrier::count_processed(connection).await?
        } else {
            start_barrier::count_receipts(connection, &tail).await?
        };
        if tail_on_record && found >= expected.processed + expected.duplicate {
            return Ok(now);
        }
        if !tail_on_record && found >= i64::try_from(tail.len())? {
            tail_on_record = true;
            continue;
        }
        for worker in &mut *workers {
            worker.ensure_running()?;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The totals, once dead letters are on record too.
async fn wait_for_totals(
    connection: &mut Conn,
    expected: ExpectedOutcomes,
) -> anyhow::Result<Totals> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    loop {
        let totals = reconciliation::totals(connection).await?;
        if ExpectedOutcomes::found(&totals) == Some(expected) || Instant::now() > deadline {
            return Ok(totals);
        }
        sleep(SETTLE_TIME).await;
    }
}

/// Waits until the database has no session of an ended process.
async fn wait_for_session_end(connection: &mut Conn, since: OffsetDateTime) -> anyhow::Result<()> {
    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    while start_barrier::sessions_since(connection, since).await? > 0 {
        ensure!(Instant::now() < deadline, "sessions of ended workers remain");
        sleep(SETTLE_TIME).await;
    }
    Ok(())
}

impl ExpectedOutcomes {
    /// Of a backlog of new events.
    pub(super) fn of(backlog: &Backlog) -> Self {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (applicable, events) = (backlog.applicable().count(), backlog.distinct_events());
        Self {
            processed: count(events),
            duplicate: count(applicable - events),
            dead: count(backlog.messages.len() - applicable),
        }
    }

    /// Of a backlog whose events were all applied before.
    pub(super) fn of_redelivered(backlog: &Backlog) -> Self {
        let Self { processed, duplicate, dead } = Self::of(backlog);
        Self { processed: 0, duplicate: processed + duplicate, dead }
    }

    /// What is on record; `None` if the tables contradict each other.
    fn found(totals: &Totals) -> Option<Self> {
        let Totals { applied, duplicate, stale, ignored, retried, dead, rejected, .. } = *totals;
        let wrong = [
            retried,
            rejected,
            totals.dead_receipts_without_dead_letter,
            totals.dead_letters_without_dead_receipt,
            totals.keys_without_receipt,
            totals.processed_without_key,
            totals.documents_without_receipt,
        ];
        let found = Self { processed: applied + stale + ignored, duplicate, dead };
        (wrong == [0; 7]).then_some(found)
    }
}

impl Add for ExpectedOutcomes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            processed: self.processed + other.processed,
            duplicate: self.duplicate + other.duplicate,
            dead: self.dead + other.dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_outcomes_are_compared_with_expected() {
        let expected = ExpectedOutcomes { processed: 2, duplicate: 1, dead: 2 };
        let totals = Totals { applied: 1, stale: 1, duplicate: 1, dead: 2, ..Totals::default() };
        assert_eq!(ExpectedOutcomes::found(&totals), Some(expected));
        let applied_twice = Totals { applied: 2, ..totals.clone() };
        assert_ne!(ExpectedOutcomes::found(&applied_twice), Some(expected));
        for contradicting in [
            Totals { processed_without_key: 1, ..totals.clone() },
            Totals { retried: 1, ..totals.clone() },
            Totals { documents_without_receipt: 1, ..totals.clone() },
        ] {
            assert_eq!(ExpectedOutcomes::found(&contradicting), None, "{contradicting:?}");
        }
    }
}
