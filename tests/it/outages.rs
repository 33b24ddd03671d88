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

use tallyhook::app::Roles;
use tokio::{task::JoinHandle, time::Instant};

use crate::support::{
    SHOP, TestApp, TestServer,
    events::shop_body,
    eventually,
    http::WebhookClient,
    proxy::Proxy,
    seconds,
    servers::{self, LeasedServers},
    shop_order,
};

/// The responses to the clients.
#[derive(Default)]
struct LoadResult {
    /// The receipts that were answered 200.
    accepted: BTreeSet<String>,
    /// How many calls were answered 503.
    refused: u64,
}

/// Clients that post until they are stopped.
struct Load {
    go_on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadResult>>,
}

impl Load {
    fn start(webhook_client: &WebhookClient) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        let sent = Arc::new(AtomicU64::new(0));
        let clients = (0..6)
            .map(|_| {
                tokio::spawn(client(webhook_client.clone(), Arc::clone(&go_on), Arc::clone(&sent)))
            })
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

    async fn end(self) -> LoadResult {
        self.go_on.store(false, Ordering::Relaxed);
        let mut all = LoadResult::default();
        for client in self.clients {
            let result = client.await.unwrap();
            all.accepted.extend(result.accepted);
            all.refused += result.refused;
        }
        all
    }
}

async fn client(
    webhook_client: WebhookClient,
    go_on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> LoadResult {
    let mut result = LoadResult::default();
    while go_on.load(Ordering::Relaxed) {
        let order = sent.fetch_add(1, Ordering::Relaxed);
        // The receiver itself is always up, so every request has a response.
        let body = shop_body(order, 1, "1.00");
        let answer = webhook_client.post("shop", &format!("event-{order}"), &body).await.unwrap();
        match answer.status().as_u16() {
            200 => {
                let receipt = answer.headers()["x-tallyhook-receipt"].to_str().unwrap();
                result.accepted.insert(receipt.to_owned());
            }
            503 => {
                assert_eq!(answer.headers()["retry-after"], "5");
                result.refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => panic!("answered {other}: {}", answer.text().await.unwrap()),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    result
}

async fn start() -> (LeasedServers, TestApp, TestServer) {
    let (servers, app) = TestApp::on_leased_servers(&[SHOP], |config| {
        config.worker.database_retry_timeout_ms = 1000;
        config.broker.confirm_timeout_ms = 2000;
    })
    .await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    (servers, app, server)
}

/// Every accepted event is applied, and none has a failed attempt.
async fn assert_all_in_the_books(app: &TestApp, result: &LoadResult) {
    eventually("the books", seconds(60), || async {
        let recorded: Vec<String> =
            sqlx::query_scalar("select receipt_id::text from receipts where outcome = 'applied'")
                .fetch_all(&app.db)
                .await
                .unwrap_or_default();
        result.accepted.is_subset(&recorded.into_iter().collect())
    })
    .await;
    // A request that got 503 may have been published too. Nothing waits.
    eventually("empty queues", seconds(30), || async {
        let amqp = app.amqp().await;
        let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
        amqp.depth(&queue).await == Some(0)
    })
    .await;
    assert_eq!(app.count("select count(*) from receipts where attempts > 0").await, 0);
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
    let totals = app.totals().await;
    assert_eq!((totals.dead, totals.retried), (0, 0));
    assert_eq!(app.count("select count(*) from orders").await, totals.applied);
    assert_eq!(totals.documents_without_receipt + totals.processed_without_key, 0, "{totals:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_rabbitmq_killed_loses_no_accepted_event() {
    let (mut servers, app, server) = start().await;
    let queues_declared = Instant::now();
    let load = Load::start(&server.webhook_client());
    load.at_least(100).await;
    // RabbitMQ 3.10 writes the registry of quorum queues late. It forgets a queue that is younger
    // than 2 s when it is killed.
    tokio::time::sleep_until(queues_declared + Duration::from_millis(2500)).await;
    servers.kill_rabbitmq().await;
    load.at_least(100).await;
    servers.restart_rabbitmq().await;
    eventually("readiness", seconds(60), || async { server.service.health.is_ready() }).await;
    load.at_least(100).await;
    let result = load.end().await;
    assert!(result.refused > 0, "the outage was not noticed; the test tests nothing");
    assert!(result.accepted.len() > 100);
    assert_all_in_the_books(&app, &result).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_rabbitmq_restarted_loses_no_accepted_event() {
    let (mut servers, app, server) = start().await;
    let load = Load::start(&server.webhook_client());
    load.at_least(100).await;
    servers.restart_rabbitmq().await;
    eventually("readiness", seconds(60), || async { server.service.health.is_ready() }).await;
    load.at_least(100).await;
    let result = load.end().await;
    assert!(result.refused > 0, "the outage was not noticed; the test tests nothing");
    assert_all_in_the_books(&app, &result).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outage_postgresql_killed_is_invisible_to_senders() {
    let (mut servers, app, server) = start().await;
    let load = Load::start(&server.webhook_client());
    load.at_least(100).await;
    servers.restart_postgres().await;
    load.at_least(100).await;
    let probe = format!("http://{}/readyz", server.service.operations_address);
    // The worker notices a restart that takes longer than its retry timeout.
    eventually("readiness after a restart", seconds(30), || async {
        server.get(&probe).await.status() == 200
    })
    .await;
    servers.kill_postgres().await;
    // At once, not only when the worker requeues its batch. The receiver needs no database and stays
    // ready.
    assert_eq!(server.get(&probe).await.status(), 503);
    assert_eq!(server.get(&server.url("/readyz")).await.status(), 200);
    load.at_least(200).await;
    // The worker retries its batch for `database_retry_timeout_ms`, requeues it and stops consuming.
    let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
    let amqp = app.amqp().await;
    eventually("the batch to be requeued", seconds(30), || async {
        amqp.look(&queue).await.1 == 0
    })
    .await;
    servers.restart_postgres().await;
    load.at_least(100).await;
    let result = load.end().await;
    assert_eq!(result.refused, 0, "an outage of PostgreSQL reached the senders");
    assert_all_in_the_books(&app, &result).await;
    // Exactly the accepted messages have receipts.
    let accepted = i64::try_from(result.accepted.len()).unwrap();
    app.assert_conserved(accepted).await;
    eventually("readiness", seconds(30), || async { server.service.health.is_ready() }).await;
    server.stop().await;
}

/// A standby, for example, answers queries but accepts no writes.
#[tokio::test]
async fn outage_read_only_database_costs_no_attempt() {
    let app = TestApp::with(&[SHOP], |config| config.worker.database_retry_timeout_ms = 300).await;
    let database = app.text("select current_database()").await;
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let applied = server.service.metrics.messages.with_label_values(&["shop", "applied"]);
    let orders: Vec<_> = (0..20).map(|order| shop_order(order, 1, "1.00")).collect();
    app.publish_all(&orders[..10]).await;
    eventually("the first orders", seconds(20), || async { applied.get() == 10 }).await;

    servers::shared().set_read_only(&database, true).await;
    app.publish_all(&orders[10..]).await;
    // The batch is requeued, and the worker stops consuming.
    let queue = app.context.topology.inbound_queue(&app.context.topology.sources()[0]);
    let amqp = app.amqp().await;
    eventually("the batch to be requeued", seconds(30), || async {
        amqp.look(&queue).await == (10, 0)
    })
    .await;
    assert!(!server.service.health.is_ready());
    assert_eq!(app.count("select count(*) from receipts").await, 10);

    servers::shared().set_read_only(&database, false).await;
    eventually("the last orders", seconds(60), || async { applied.get() == 20 }).await;
    eventually("readiness", seconds(30), || async { server.service.health.is_ready() }).await;
    server.stop().await;
    assert_eq!(app.count("select sum(attempts) from receipts").await, 0);
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
    assert_eq!(amqp.depth(&app.context.topology.dead_letter_queue()).await, Some(0));
    app.assert_conserved(20).await;
}

/// A database host that dies without closing its connections.
#[tokio::test]
async fn outage_silent_database_is_reconnected() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP], |config| {
        config.database.statement_timeout_ms = 500;
        config.database.connect_timeout_ms = 1000;
        proxy = Some(Proxy::before(&mut config.database.url));
    })
    .await;
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let applied = server.service.metrics.messages.with_label_values(&["shop", "applied"]);
    let orders: Vec<_> = (0..40).map(|order| shop_order(order, 1, "1.00")).collect();
    app.publish_all(&orders[..20]).await;
    eventually("the first orders", seconds(20), || async { applied.get() == 20 }).await;
    proxy.unwrap().silence();
    app.publish_all(&orders[20..]).await;
    eventually("the last orders", seconds(30), || async { applied.get() >= 40 }).await;
    server.stop().await;
    assert_eq!(app.count("select sum(attempts) from receipts").await, 0);
    assert_eq!(app.count("select count(*) from orders").await, 40);
    app.assert_conserved(40).await;
}

/// The same for the broker. Heartbeats detect it.
#[tokio::test]
async fn outage_silent_broker_is_reconnected() {
    let mut proxy = None;
    let app = TestApp::with(&[SHOP], |config| {
        config.broker.confirm_timeout_ms = 1000;
        proxy = Some(Proxy::before(&mut config.broker.url));
    })
    .await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    assert_eq!(server.post("shop", "1", &shop_body(1, 1, "1.00")).await.status(), 200);
    proxy.unwrap().silence();
    let begun = Instant::now();
    let answer = server.post("shop", "2", &shop_body(2, 1, "1.00")).await;
    assert_eq!(answer.status(), 503);
    assert!(begun.elapsed() < seconds(3), "an answer took {:?}", begun.elapsed());
    eventually("the end of the silence", seconds(60), || async {
        server.post("shop", "3", &shop_body(3, 1, "1.00")).await.status() == 200
    })
    .await;
    eventually("the orders", seconds(60), || async {
        app.count("select count(*) from orders where order_id in ('1', '3')").await == 2
    })
    .await;
    server.stop().await;
    assert_eq!(app.count("select sum(attempts) from receipts").await, 0);
}
