//! `workers`: how fast one, two and four worker processes apply one backlog,
//! all of them consuming the same queue.
//!
//! Nothing is measured of their start: each waits at a [`CallLimiter`] until the last
//! one is there, connected to both servers. Time runs by the database's own
//! clock from the opening of the gate until the last message is on record, so
//! that no process tells how fast it was itself.
//!
//! A rate is told only if the work was done: every message has the outcome that
//! it must have however many workers there are, and no two of them ever waited
//! for each other in a circle.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::ensure;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{
    Settings,
    backlog::Backlog,
    baseline::gate::{self, Gate},
    drain,
    measure::{per_second, ratio},
    payload::Payload,
    process::Process,
    progress::Progress,
    report::{AtOnce, settled},
    stage::{Publishing, Stage},
};
use crate::{
    app::Roles,
    store::{Conn, StoreError, reconciliation, reconciliation::Totals},
};

/// How many processes there are at once, in turns.
pub const PROCESSES: [u32; 3] = [1, 2, 4];

/// How long one process may take to its place at the gate.
const GATHER: Duration = Duration::from_mins(1);
/// No further session comes to the gate in this time: the process is there
/// with all that it waits with.
const QUIET: Duration = Duration::from_millis(200);
/// How often the database is asked whether all is done: often for what is
/// measured, seldom for the database.
const LOOK: Duration = Duration::from_millis(10);
/// The last so many messages of a queue are asked for until they are there.
/// Then everything is counted, which costs more.
const TAIL: usize = 100;
/// How long a drain may take before something is wrong.
const LONGEST: Duration = Duration::from_mins(10);
/// How long the dead and the sessions of ended processes may take to show.
const AFTERWARDS: Duration = Duration::from_mins(1);

/// What must be on record in the end, whoever did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// Messages that settled their key: each key once.
    settled: i64,
    /// Their repeats.
    duplicate: i64,
    /// What cannot be applied.
    dead: i64,
}

/// Runs the scenario.
///
/// # Errors
/// A process or server that fails, or a message that is not accounted for.
pub async fn run(
    stage: &Stage,
    settings: &Settings,
    progress: &Progress,
) -> anyhow::Result<BTreeMap<u32, AtOnce>> {
    let publishing = stage.publishing().await?;
    let backlog = Backlog::make(stage, Payload::Generic, settings.messages, settings.mix)?;
    let mut rounds = Vec::new();
    for nth in 0..settings.runs {
        let mut turns = PROCESSES;
        if nth % 2 == 1 {
            turns.reverse();
        }
        let mut rates = BTreeMap::new();
        for processes in turns {
            progress.step(&format!("workers, {processes} at once, run {}", nth + 1));
            rates
                .insert(processes, drain(stage, settings, &publishing, &backlog, processes).await?);
        }
        rounds.push(rates);
    }
    stage.clear().await?;
    let of = |processes| {
        let rate = |round: &BTreeMap<u32, f64>| round[&processes];
        let to_one = |round: &BTreeMap<u32, f64>| ratio(round[&processes], round[&1]);
        let told = AtOnce {
            per_second: settled(rounds.iter().map(rate), 0),
            ratio_to_one: settled(rounds.iter().map(to_one), 3),
        };
        (processes, told)
    };
    Ok(PROCESSES.into_iter().map(of).collect())
}

/// A backlog by so many processes, into empty tables; messages a second.
async fn drain(
    stage: &Stage,
    settings: &Settings,
    publishing: &Publishing,
    backlog: &Backlog,
    processes: u32,
) -> anyhow::Result<f64> {
    stage.clear().await?;
    drain::lay(stage, publishing, backlog).await?;
    let mut connection = stage.store.connection().await?;
    let deadlocks = gate::deadlocks(&mut connection).await?;
    let mut gate = Gate::shut(&stage.store).await?;
    // Sessions that begin from here on are the workers'.
    let before = gate::now(&mut connection).await?;

    let mut workers = Vec::new();
    let mut waiting = 0;
    for _ in 0..processes {
        let worker = Roles { receiver: false, worker: true };
        let mut worker = Process::start(stage, &settings.program, worker).await?;
        waiting = at_the_gate(&mut gate, &mut worker, waiting).await?;
        workers.push(worker);
    }
    let begun = gate.open().await?;
    let ended = timeout(LONGEST, done(&mut connection, &mut workers, backlog))
        .await
        .map_err(|_| anyhow::anyhow!("{processes} workers got stuck"))??;

    let sums = everything(&mut connection, backlog.messages.len()).await?;
    for worker in workers {
        worker.stop().await?;
    }
    let expected = Expected::of(backlog);
    ensure!(
        Expected::found(&sums) == Some(expected),
        "{expected:?} were to be on record, not {sums:?}: this is a bug of tallyhook or of its bench"
    );
    alone(&mut connection, before).await?;
    let found = gate::deadlocks(&mut connection).await? - deadlocks;
    ensure!(found == 0, "PostgreSQL found {found} deadlocks between {processes} workers");
    let took = Duration::try_from(ended - begun).unwrap_or_default();
    Ok(per_second(backlog.messages.len(), took))
}

/// Waits until a process that was just started is at the gate, where so many
/// sessions wait already; how many there are then.
async fn at_the_gate(gate: &mut Gate, worker: &mut Process, others: i64) -> anyhow::Result<i64> {
    let deadline = Instant::now() + GATHER;
    let mut last = others;
    loop {
        ensure!(Instant::now() < deadline, "a worker did not ask the database whether it works");
        sleep(QUIET).await;
        worker.must_run()?;
        let waiting = gate.waiting().await?;
        if waiting > others && waiting == last {
            return Ok(waiting);
        }
        last = waiting;
    }
}

/// Waits until every message that can be applied is on record; when that was
/// seen, by the database's clock.
async fn done(
    connection: &mut Conn,
    workers: &mut [Process],
    backlog: &Backlog,
) -> anyhow::Result<OffsetDateTime> {
    let applicable = backlog.messages.iter().filter(|message| message.mapped.is_some());
    let tail: Vec<Uuid> =
        applicable.rev().take(TAIL).map(|message| message.envelope.receipt_id).collect();
    until(workers, tail.len(), async || gate::on_record(connection, &tail).await).await?;
    until(workers, backlog.applicable(), async || gate::settled(connection).await).await
}

/// Asks until there are so many; when that was.
async fn until(
    workers: &mut [Process],
    expected: usize,
    mut ask: impl AsyncFnMut() -> Result<(OffsetDateTime, i64), StoreError>,
) -> anyhow::Result<OffsetDateTime> {
    let expected = i64::try_from(expected)?;
    loop {
        let (now, found) = ask().await?;
        if found >= expected {
            return Ok(now);
        }
        for worker in &mut *workers {
            worker.must_run()?;
        }
        sleep(LOOK).await;
    }
}

/// The sums once so many messages are on record, the dead among them, which
/// take another way.
async fn everything(connection: &mut Conn, messages: usize) -> anyhow::Result<Totals> {
    let deadline = Instant::now() + AFTERWARDS;
    loop {
        let sums = reconciliation::totals(connection).await?;
        let Totals { applied, duplicate, stale, ignored, retried, dead, rejected, .. } = sums;
        let all = applied + duplicate + stale + ignored + retried + dead + rejected;
        if all == i64::try_from(messages)? && retried == 0 || Instant::now() > deadline {
            return Ok(sums);
        }
        sleep(QUIET).await;
    }
}

/// Waits until the sessions of processes that ended are gone.
async fn alone(connection: &mut Conn, since: OffsetDateTime) -> anyhow::Result<()> {
    let deadline = Instant::now() + AFTERWARDS;
    while gate::sessions_since(connection, since).await? > 0 {
        ensure!(Instant::now() < deadline, "sessions of workers that ended are still there");
        sleep(QUIET).await;
    }
    Ok(())
}

impl Expected {
    fn of(backlog: &Backlog) -> Self {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let applicable = backlog.messages.iter().filter(|message| message.mapped.is_some());
        let keys: HashSet<&str> = applicable.map(|message| message.envelope.key.as_str()).collect();
        Self {
            settled: count(keys.len()),
            duplicate: count(backlog.applicable() - keys.len()),
            dead: count(backlog.messages.len() - backlog.applicable()),
        }
    }

    /// What is on record; `None` if the tables contradict each other.
    fn found(sums: &Totals) -> Option<Self> {
        let Totals { applied, duplicate, stale, ignored, retried, dead, rejected, .. } = *sums;
        let wrong = [
            retried,
            rejected,
            sums.dead_receipts_without_dead_letter,
            sums.dead_letters_without_dead_receipt,
            sums.keys_without_receipt,
            sums.processed_without_key,
            sums.documents_without_receipt,
        ];
        let found = Self { settled: applied + stale + ignored, duplicate, dead };
        (wrong == [0; 7]).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Envelope, EventKey, MappedEvent},
        tools::bench::backlog::BacklogMessage,
    };

    fn message(event_id: &str, mapped: Option<MappedEvent>) -> BacklogMessage {
        let source = Payload::Generic.source().unwrap();
        let envelope = Envelope {
            receipt_id: Uuid::now_v7(),
            key: EventKey::new(&source, "", event_id, 0),
            source,
            tenant: String::new(),
            topic: String::new(),
            version: None,
            received_at: OffsetDateTime::UNIX_EPOCH,
            failed_attempts: 0,
            generation: 0,
            replay_id: None,
            received_over_http: true,
            secret_label: None,
            import: None,
            body: bytes::Bytes::new(),
        };
        BacklogMessage { envelope, mapped }
    }

    #[test]
    fn each_key_is_settled_once_whoever_does_it() {
        let good = || Some(MappedEvent::Ignored);
        let messages = vec![
            message("1", good()),
            message("2", good()),
            message("1", good()),
            message("3", None),
            message("3", None),
        ];
        let expected = Expected::of(&Backlog { payload: Payload::Generic, messages });
        assert_eq!(expected, Expected { settled: 2, duplicate: 1, dead: 2 });

        let sums = Totals { applied: 1, stale: 1, duplicate: 1, dead: 2, ..Totals::default() };
        assert_eq!(Expected::found(&sums), Some(expected));
        let twice = Totals { applied: 2, ..sums.clone() };
        assert_ne!(Expected::found(&twice), Some(expected), "applied twice");
        for wrong in [
            Totals { processed_without_key: 1, ..sums.clone() },
            Totals { retried: 1, ..sums.clone() },
            Totals { documents_without_receipt: 1, ..sums.clone() },
        ] {
            assert_eq!(Expected::found(&wrong), None, "{wrong:?}");
        }
    }
}
