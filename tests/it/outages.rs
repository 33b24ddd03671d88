//! An outage of either server costs no attempt, no message and no operator's
//! time (P1, P2, P7).

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tallyhook::{dev::servers::Servers, service::Roles};
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{
    Front, Rig, SHOP, events::shop_body, eventually, http::Poster, proxy::Proxy, seconds,
    shop_order,
};

/// What clients were told.
#[derive(Default)]
struct Told {
    /// The receipts that were answered 200.
    accepted: BTreeSet<String>,
    /// How many calls were answered 503.
    refused: u64,
}

/// Clients that post as long as they are let.
struct Load {
    go_on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Told>>,
}

impl Load {
    fn start(poster: &Poster) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        let sent = Arc::new(AtomicU64::new(0));
        let clients = (0..6)
            .map(|_| tokio::spawn(client(poster.clone(), Arc::clone(&go_on), Arc::clone(&sent))))
            .collect();
        Self { go_on, sent, clients }
    }

    async fn at_least(&self, calls: u64) {
        let target = self.sent.load(Ordering::Relaxed) + calls;
        eventually("the load", seconds(60), || async {
            self.sent.load(Ordering::Relaxed) >= target
        })
        .await;
    }

    async fn end(self) -> Told {
        self.go_on.store(false, Ordering::Relaxed);
        let mut all = Told::default();
        for client in self.clients {
            let told = client.await.unwrap();
            all.accepted.extend(told.accepted);
            all.refused += told.refused;
        }
        all
    }
}

async fn client(poster: Poster, go_on: Arc<AtomicBool>, sent: Arc<AtomicU64>) -> Told {
    let mut told = Told::default();
    while go_on.load(Ordering::Relaxed) {
        let order = sent.fetch_add(1, Ordering::Relaxed);
        // Every answer comes: the receiver itself is never away.
        let body = shop_body(order, 1, "1.00");
        let answer = poster.post("shop", &format!("event-{order}"), &body).await.unwrap();
        match answer.status().as_u16() {
            200 => {
                let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap();
                told.accepted.insert(receipt.to_owned());
            }
            503 => {
                assert_eq!(answer.headers()["retry-after"], "5");
                told.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("answered {other}: {}", answer.text().await.unwrap()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    told
}

/// Starts servers and a service, and lets the queues grow old enough:
/// RabbitMQ 3.10 writes the registry of quorum queues late, and forgets one
/// that is younger than 2 s when it is killed.
async fn start() -> (Servers, Rig, Front) {
    let (servers, rig) = Rig::own(&[SHOP], |config| {
        config.worker.hold_ms = 1000;
        config.broker.confirm_timeout_ms = 2000;
    })
    .await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    tokio::time::sleep(seconds(3)).await;
    (servers, rig, front)
}

/// Everything that was answered 200 is in the books, and nobody was blamed.
async fn assert_all_in_the_books(rig: &Rig, told: &Told) {
    eventually("the books", seconds(60), || async {
        let recorded: Vec<String> =
            sqlx::query_scalar("select receipt_id::text from receipts where outcome = 'applied'")
                .fetch_all(&rig.db)
                .await
                .unwrap_or_default();
        told.accepted.is_subset(&recorded.into_iter().collect())
    })
    .await;
    // A call that was answered 503 may have arrived all the same; nothing waits.
    eventually("empty queues", seconds(30), || async {
        let raw = rig.raw().await;
        let queue = rig.tools.topology.inbound_queue(&rig.tools.topology.sources()[0]);
        raw.depth(&queue).await == Some(0)
    })
    .await;
    assert_eq!(rig.count("select count(*) from receipts where attempts > 0").await, 0);
    assert_eq!(rig.count("select count(*) from dead_letters").await, 0);
    let sums = rig.sums().await;
    assert_eq!((sums.dead, sums.retried), (0, 0));
    assert_eq!(rig.count("select count(*) from orders").await, sums.applied);
    assert_eq!(sums.books_without_receipt + sums.settled_without_key, 0, "{sums:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_killed_under_load_costs_nothing_that_was_accepted() {
    let (mut servers, rig, front) = start().await;
    let load = Load::start(&front.poster());
    load.at_least(100).await;
    servers.rabbitmq.kill().await.unwrap();
    load.at_least(100).await;
    servers.rabbitmq.restart().await.unwrap();
    eventually("readiness", seconds(60), || async { front.service.health.is_ready() }).await;
    load.at_least(100).await;
    let told = load.end().await;
    assert!(told.refused > 0, "the outage was not noticed; the test tests nothing");
    assert!(told.accepted.len() > 100);
    assert_all_in_the_books(&rig, &told).await;
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_restarted_under_load_costs_nothing_that_was_accepted() {
    let (mut servers, rig, front) = start().await;
    let load = Load::start(&front.poster());
    load.at_least(100).await;
    servers.rabbitmq.restart().await.unwrap();
    eventually("readiness", seconds(60), || async { front.service.health.is_ready() }).await;
    load.at_least(100).await;
    let told = load.end().await;
    assert!(told.refused > 0, "the outage was not noticed; the test tests nothing");
    assert_all_in_the_books(&rig, &told).await;
    front.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_away_under_load_is_not_noticed_by_the_senders() {
    let (mut servers, rig, front) = start().await;
    let load = Load::start(&front.poster());
    load.at_least(100).await;
    servers.postgres.restart().await.unwrap();
    load.at_least(100).await;
    let probe = format!("http://{}/readyz", front.service.operations);
    // A restart that takes longer than a batch is held is noticed by the worker.
    eventually("readiness after a restart", seconds(30), || async {
        front.get(&probe).await.status() == 200
    })
    .await;
    servers.postgres.kill().await.unwrap();
    // At once, and not only when the worker gives its batch up; while the
    // receiver, which needs no database, stays ready.
    assert_eq!(front.get(&probe).await.status(), 503);
    assert_eq!(front.get(&front.url("/readyz")).await.status(), 200);
    load.at_least(200).await;
    // Longer than a batch is held, so that it is handed back.
    tokio::time::sleep(seconds(3)).await;
    servers.postgres.restart().await.unwrap();
    load.at_least(100).await;
    let told = load.end().await;
    assert_eq!(told.refused, 0, "an outage of PostgreSQL reached the senders");
    assert_all_in_the_books(&rig, &told).await;
    // Every accepted message, and none besides.
    let accepted = i64::try_from(told.accepted.len()).unwrap();
    rig.assert_conserved(accepted).await;
    eventually("readiness", seconds(30), || async { front.service.health.is_ready() }).await;
    front.stop().await;
}

/// A database machine that dies without a word: no end of stream, no reset,
/// just silence on every connection there is.
#[tokio::test]
async fn a_database_that_falls_silent_is_given_up_and_found_again() {
    let mut proxy = None;
    let rig = Rig::with(&[SHOP], |config| {
        config.database.statement_timeout_ms = 500;
        config.database.connect_timeout_ms = 1000;
        proxy = Some(Proxy::before(&mut config.database.url));
    })
    .await;
    let front = Front::start(&rig.config, Roles { receiver: false, worker: true }).await;
    let settled = front.service.metrics.messages.with_label_values(&["shop", "applied"]);
    let orders: Vec<_> = (0..40).map(|order| shop_order(order, 1, "1.00")).collect();
    rig.send(&orders[..20]).await;
    eventually("the first orders", seconds(20), || async { settled.get() == 20 }).await;
    proxy.unwrap().silence();
    rig.send(&orders[20..]).await;
    eventually("the last orders", seconds(30), || async { settled.get() >= 40 }).await;
    front.stop().await;
    assert_eq!(rig.count("select sum(attempts) from receipts").await, 0);
    assert_eq!(rig.count("select count(*) from orders").await, 40);
    rig.assert_conserved(40).await;
}

/// The same for the broker; heartbeats notice it.
#[tokio::test]
async fn a_broker_that_falls_silent_is_given_up_and_found_again() {
    let mut proxy = None;
    let rig = Rig::with(&[SHOP], |config| {
        config.broker.confirm_timeout_ms = 1000;
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    let front = Front::start(&rig.config, Roles::ALL).await;
    assert_eq!(front.post("shop", "1", &shop_body(1, 1, "1.00")).await.status(), 200);
    proxy.unwrap().silence();
    let begun = Instant::now();
    let answer = front.post("shop", "2", &shop_body(2, 1, "1.00")).await;
    assert_eq!(answer.status(), 503);
    assert!(begun.elapsed() < seconds(3), "an answer took {:?}", begun.elapsed());
    eventually("the end of the silence", seconds(60), || async {
        front.post("shop", "3", &shop_body(3, 1, "1.00")).await.status() == 200
    })
    .await;
    eventually("the orders", seconds(60), || async {
        rig.count("select count(*) from orders where order_id in ('1', '3')").await == 2
    })
    .await;
    front.stop().await;
    assert_eq!(rig.count("select sum(attempts) from receipts").await, 0);
}
