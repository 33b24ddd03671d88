//! Several worker processes share a queue and one is killed: no event is lost, none is applied twice,
//! and no lock stays.

use std::{path::PathBuf, process::Stdio, time::Duration};

use futures_util::{StreamExt as _, stream};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tallyhook::domain::Envelope;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::{
    SHOP, TestApp,
    events::{again, shop_refund},
    eventually, seconds, shop_order,
    start_barrier::{self, StartBarrier},
};

/// Few orders, so that every batch has each of them.
const ORDERS: u64 = 8;
const VERSIONS: u32 = 240;
const REFUNDS: u64 = 20;
const WORKERS: usize = 3;
/// Consumers of each.
const CONSUMERS: usize = 2;

/// The published events, in order.
struct Sent {
    events: Vec<Envelope>,
    changes: i64,
    duplicates: i64,
    poison: i64,
}

/// Shuffled updates and refunds of the same orders, duplicates, and events that no mapping or no row
/// accepts.
fn mixture() -> Sent {
    let mut events = Vec::new();
    for order in 1..=ORDERS {
        let total = |version| format!("{version}.00");
        events.extend((1..=VERSIONS).map(|version| shop_order(order, version, &total(version))));
        let refund = |nth| shop_refund(order, 100 * order + nth, "1.00", "EUR");
        events.extend((1..=REFUNDS).map(refund));
    }
    let changes = events.len();
    let repeated: Vec<Envelope> = events.iter().step_by(4).map(again).collect();
    let unreadable = (1..=12).map(|order| {
        let mut event = shop_order(order, 1, "1.00");
        event.body = format!(r#"{{"id": {order}, "currency": "EUR"}}"#).into();
        event
    });
    let refused = (1..=8).map(|nth| shop_order(6600 + nth, 1, "1.00"));
    let poison: Vec<Envelope> = unreadable.chain(refused).collect();
    let count = |count: usize| i64::try_from(count).unwrap();
    let (changes, duplicates) = (count(changes), count(repeated.len()));
    let sent = Sent { events: Vec::new(), changes, duplicates, poison: count(poison.len()) };
    events.extend(repeated.into_iter().chain(poison));
    // A fixed order; the interleaving of the workers is random enough.
    events.shuffle(&mut StdRng::seed_from_u64(5));
    Sent { events, ..sent }
}

/// The binary with the test app's settings.
struct Program {
    folder: TempDir,
}

impl Program {
    fn new(app: &TestApp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "
            [operations]
            listen = '127.0.0.1:0'
            [broker]
            url = '{}'
            prefix = '{}'
            [database]
            url = '{}'
            [worker]
            batch_size = 20
            consumers_per_source = {CONSUMERS}
            [retry]
            initial_delay_ms = 50
            multiplier = 2.0
            max_delay_ms = 1000
            max_retries = 3
            {SHOP}",
            app.config.broker.url, app.config.broker.prefix, app.config.database.url
        );
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        Self { folder }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhook"));
        command.arg("--config").arg(self.folder.path().join("config.toml"));
        command.env("SECRET", "a secret of the tests").stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn log(&self, worker: usize) -> PathBuf {
        self.folder.path().join(format!("{worker}.log"))
    }

    /// A worker's log.
    fn output_text(&self, worker: usize) -> String {
        std::fs::read_to_string(self.log(worker)).unwrap()
    }

    /// A worker process.
    fn worker(&self, worker: usize) -> Child {
        let log = std::fs::File::create(self.log(worker)).unwrap();
        let mut command = self.command();
        command.args(["serve", "--only", "worker"]).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap()
    }
}

fn signal(worker: &Child, signal: Signal) {
    let id = i32::try_from(worker.id().expect("a worker ended by itself")).unwrap();
    kill(Pid::from_raw(id), signal).unwrap();
}

const ON_RECORD: &str = "select count(*) from receipts where outcome <> 'retried'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_processes_one_killed_applies_each_event_once() {
    let app = TestApp::new().await;
    app.execute("alter table orders add constraint no_66 check (order_id not like '66%')").await;
    let sent = mixture();
    let all = i64::try_from(sent.events.len()).unwrap();
    stream::iter(&sent.events)
        .map(|event| app.publish(event))
        .buffered(64)
        .for_each(|confirmed| async { drop(confirmed.unwrap()) })
        .await;
    let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
    let amqp = app.amqp().await;

    // All workers wait until every one is connected.
    let mut connection = app.context.store.connection().await.unwrap();
    let mut barrier = StartBarrier::raise(&app.context.store).await.unwrap();
    let begun = start_barrier::database_time(&mut connection).await.unwrap();
    let program = Program::new(&app);
    let mut workers = Vec::new();
    for worker in 0..WORKERS {
        let others = barrier.waiting_sessions().await.unwrap();
        workers.push(program.worker(worker));
        let mut looks = 0;
        while barrier.waiting_sessions().await.unwrap() <= others {
            looks += 1;
            assert!(looks < 2400, "worker {worker} did not come: {}", program.output_text(worker));
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    barrier.release().await.unwrap();

    let consumers = u32::try_from(WORKERS * CONSUMERS).unwrap();
    eventually("all of them at work", seconds(60), || async {
        amqp.look(&queue).await.1 == consumers && app.count(ON_RECORD).await > all / 10
    })
    .await;
    let killed = workers.remove(1);
    signal(&killed, Signal::SIGKILL);
    let (waiting, _) = amqp.look(&queue).await;
    assert!(waiting > 0, "killed too late: nothing waited any more, so it held nothing");
    drop(killed);

    eventually("the rest", seconds(120), || async { app.count(ON_RECORD).await == all }).await;
    eventually("an empty queue", seconds(30), || async {
        amqp.look(&queue).await == (0, consumers - 2)
    })
    .await;
    for mut worker in workers {
        signal(&worker, Signal::SIGTERM);
        let status = tokio::time::timeout(seconds(60), worker.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }
    // A session reports its deadlocks when it ends.
    let mut looks = 0;
    while start_barrier::sessions_since(&mut connection, begun).await.unwrap() > 0 {
        looks += 1;
        assert!(looks < 600, "sessions of workers that ended are still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(start_barrier::deadlocks(&mut connection).await.unwrap(), 0);
    drop(connection);

    // No event is lost, and each key was processed once.
    let totals = app.totals().await;
    assert_eq!(totals.applied + totals.stale, sent.changes, "{totals:?}");
    assert_eq!((totals.duplicate, totals.dead), (sent.duplicates, sent.poison), "{totals:?}");
    assert!(totals.stale > 0, "no update came late; the test tests nothing");
    app.assert_conserved(all).await;
    assert_eq!(app.count("select sum(attempts) from receipts where outcome <> 'dead'").await, 0);
    // Each order has its newest state, and all of its refunds once.
    let newest = format!(
        "select count(*) from orders
         join receipts on receipt_id = last_receipt
         where total = {VERSIONS} and refunded = {REFUNDS} and version = '2026-01-02T04:00Z'"
    );
    let states = "select string_agg(concat_ws(' ', order_id, total, refunded), ', ') from orders";
    assert_eq!(
        app.count(&newest).await,
        i64::try_from(ORDERS).unwrap(),
        "{}",
        app.text(states).await
    );
    assert_eq!(app.count("select count(*) from orders").await, i64::try_from(ORDERS).unwrap());

    let accepted = all.to_string();
    let audit = program.command().args(["audit", "--accepted", &accepted]).output().await.unwrap();
    let output_text = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(audit.status.success() && output_text.contains("accounted for"), "{output_text}");
}
