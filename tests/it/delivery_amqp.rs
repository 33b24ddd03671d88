//! Events for other systems through an exchange: every committed change is published in order, and
//! no change that was rolled back.

use lapin::{
    Channel,
    options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    ERP, RawAmqpClient, SHOP, TestApp,
    amqp::short,
    erp_invoice, erp_order,
    events::{again, shop_deletion},
    eventually, seconds, shop_order,
};

/// An exchange of the test's own, and the destination that names it.
struct Exchange {
    name: String,
    settings: String,
}

impl Exchange {
    fn new(events: &str) -> Self {
        let name = format!("t{}.events", Uuid::now_v7().simple());
        let settings = format!(
            "\n[destinations.warehouse]\nkind = 'rabbitmq'\nexchange = '{name}'\nevents = [{events}]\n"
        );
        Self { name, settings }
    }
}

/// A queue that is bound to the exchange.
struct Listener {
    channel: Channel,
    queue: String,
}

impl Listener {
    async fn bind(amqp: &RawAmqpClient, exchange: &str, key: &str) -> Self {
        let channel = amqp.channel().await;
        let queue = format!("{exchange}.{}", Uuid::now_v7().simple());
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(short(&queue), options, FieldTable::default()).await.unwrap();
        let bound = channel.queue_bind(
            short(&queue),
            short(exchange),
            short(key),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.unwrap();
        Self { channel, queue }
    }

    /// Takes the CloudEvents that are in the queue now.
    async fn take(&self) -> Vec<Value> {
        let mut taken = Vec::new();
        let options = BasicGetOptions { no_ack: true };
        while let Some(got) = self.channel.basic_get(short(&self.queue), options).await.unwrap() {
            let kind = got.delivery.properties.content_type().clone().unwrap_or_default();
            assert_eq!(kind.as_str(), "application/cloudevents+json");
            let event: Value = serde_json::from_slice(&got.delivery.data).unwrap();
            let id = got.delivery.properties.message_id().clone().unwrap_or_default();
            assert_eq!(event["id"], id.as_str());
            taken.push(event);
        }
        taken
    }
}

async fn await_delivered(app: &TestApp, delivered: i64) {
    let sql = "select count(*) from deliveries where state = 'delivered'";
    eventually("everything is delivered", seconds(120), || async {
        app.count(sql).await == delivered
    })
    .await;
}

#[tokio::test]
async fn amqp_delivery_committed_changes_are_published() {
    let exchange =
        Exchange::new("'order.upserted', 'order.deleted', 'invoice.created', 'invoice.updated'");
    let app = TestApp::with(&[SHOP, ERP, &exchange.settings], |_| ()).await;
    let _delivery_worker = app.start_delivery();
    let amqp = app.amqp().await;
    // The exchange is declared when the first worker connects.
    await_delivered(&app, 0).await;
    let mut erp = app.consumer("erp").await;
    let mut shop = app.consumer("shop").await;

    let created = erp_invoice("INV-1", 1, "10.00");
    app.publish_all(std::slice::from_ref(&created)).await;
    erp.step().await;
    let waits = "select count(*) from deliveries where state = 'pending' and error is not null";
    eventually("the missing queue is recorded", seconds(20), || async {
        app.count(waits).await == 1
    })
    .await;
    let listener = Listener::bind(&amqp, &exchange.name, "#").await;
    app.execute("update deliveries set next_attempt_at = now()").await;
    await_delivered(&app, 1).await;
    assert_eq!(app.count("select attempts::bigint from deliveries").await, 0);

    let stale = erp_invoice("INV-1", 1, "9.00");
    app.publish_all(&[again(&created), erp_invoice("INV-1", 5, "12.00")]).await;
    erp.step().await;
    await_delivered(&app, 2).await;
    app.execute("update invoices set version = version + interval '1 day'").await;
    app.publish_all(&[stale]).await;
    erp.step().await;
    app.publish_all(&[shop_order(7, 1, "5.00"), shop_order(7, 2, "6.00")]).await;
    shop.step().await;
    app.publish_all(&[shop_deletion(7, 9)]).await;
    shop.step().await;
    await_delivered(&app, 4).await;

    let published = listener.take().await;
    let actual: Vec<(&str, &str, &str)> = published
        .iter()
        .map(|event| {
            let text = |value: &'static str| event[value].as_str().unwrap();
            let total = event["data"]["total"].as_str().unwrap();
            (text("type"), text("source"), total)
        })
        .collect();
    assert_eq!(
        actual,
        [
            ("invoice.created", "/tallyhook/erp/acme", "10.00"),
            ("invoice.updated", "/tallyhook/erp/acme", "12.00"),
            // Two changes in one batch are published once, with the final state.
            ("order.upserted", "/tallyhook/shop/demo.myshopify.com", "6.00"),
            ("order.deleted", "/tallyhook/shop/demo.myshopify.com", "6.00"),
        ]
    );
    assert_eq!(published[0]["specversion"], "1.0");
    assert_eq!(published[0]["subject"], "INV-1");
    assert_eq!(published[2]["data"]["lines"][0]["sku"], "S");
    // A delivery to an exchange is no mirror.
    assert_eq!(app.count("select count(*) from deliveries where is_mirror").await, 0);
    assert_eq!(app.count("select count(*) from invoices where mirrored_at is null").await, 1);
}

#[tokio::test]
async fn amqp_delivery_rolled_back_change_is_not_published() {
    let exchange = Exchange::new("'order.upserted'");
    let app = TestApp::with(&[ERP, &exchange.settings], |_| ()).await;
    app.execute("alter table orders add constraint small check (total < 100)").await;
    let events =
        [erp_order("1", 1, "1.00"), erp_order("2", 1, "200.00"), erp_order("3", 1, "3.00")];
    app.publish_all(&events).await;
    app.consumer("erp").await.step().await;
    let row = app.text("select string_agg(document_id, ',' order by sequence) from deliveries");
    assert_eq!(row.await, "1,3");
    // No destination subscribes to this event.
    app.publish_all(&[erp_invoice("INV-1", 1, "1.00")]).await;
    app.consumer("erp").await.step().await;
    assert_eq!(app.count("select count(*) from deliveries").await, 2);
}

#[tokio::test]
async fn amqp_delivery_many_workers_keep_the_order_per_document() {
    const DOCUMENTS: usize = 20;
    const VERSIONS: u32 = 10;
    let exchange = Exchange::new("'order.upserted'");
    let app = TestApp::with(&[ERP, &exchange.settings], |_| ()).await;
    let amqp = app.amqp().await;
    {
        // The first worker to connect declares the exchange.
        let _delivery_worker = app.start_delivery();
        eventually("the exchange", seconds(20), || async {
            let channel = amqp.channel().await;
            let passive = lapin::options::ExchangeDeclareOptions {
                passive: true,
                ..lapin::options::ExchangeDeclareOptions::default()
            };
            let kind = lapin::ExchangeKind::Topic;
            let declared = channel.exchange_declare(
                short(&exchange.name),
                kind,
                passive,
                FieldTable::default(),
            );
            declared.await.is_ok()
        })
        .await;
    }
    let listener = Listener::bind(&amqp, &exchange.name, "order.*").await;
    let mut consumer = app.consumer("erp").await;
    for version in 1..=VERSIONS {
        let events: Vec<_> = (0..DOCUMENTS)
            .map(|document| erp_order(&document.to_string(), version, &format!("{version}.00")))
            .collect();
        app.publish_all(&events).await;
        consumer.step().await;
    }
    let workers = [app.start_delivery(), app.start_delivery(), app.start_delivery()];
    let all = i64::try_from(DOCUMENTS).unwrap() * i64::from(VERSIONS);
    // Killed while it sends, as a process is: its claimed events are published again.
    let [first, _second, _third] = workers;
    first.kill().await;
    app.execute("update deliveries set lease_until = now() where state = 'sending'").await;
    await_delivered(&app, all).await;

    let published = listener.take().await;
    let mut last = [0; DOCUMENTS];
    let mut ids = std::collections::HashMap::new();
    for event in &published {
        let document: usize = event["data"]["order_id"].as_str().unwrap().parse().unwrap();
        let version = event["data"]["total"].as_str().unwrap().to_owned();
        let id = event["id"].as_str().unwrap().to_owned();
        if let Some(known) = ids.insert(id, (document, version.clone())) {
            assert_eq!(known, (document, version), "one id, two events");
            continue;
        }
        let version: u32 = version.trim_end_matches(".00").parse().unwrap();
        assert_eq!(version, last[document] + 1, "document {document}");
        last[document] = version;
    }
    assert_eq!(ids.len(), DOCUMENTS * VERSIONS as usize);
}

#[tokio::test]
async fn amqp_delivery_exchange_deleted_and_broker_killed_loses_no_event() {
    const EVENTS: u64 = 300;
    let exchange = Exchange::new("'order.upserted'");
    let (mut servers, app) = TestApp::on_leased_servers(&[ERP, &exchange.settings], |_| ()).await;
    let mut consumer = app.consumer("erp").await;
    let orders: Vec<_> =
        (0..EVENTS).map(|order| erp_order(&order.to_string(), 1, "1.00")).collect();
    app.publish_all(&orders).await;
    while app.count("select count(*) from deliveries").await < i64::try_from(EVENTS).unwrap() {
        consumer.step().await;
    }
    let delivery_worker = app.start_delivery();
    let unroutable = "select count(*) from deliveries where error like '%no queue%'";
    eventually("the missing queue is recorded", seconds(20), || async {
        app.count(unroutable).await > 0
    })
    .await;
    {
        let amqp = app.amqp().await;
        let listener = Listener::bind(&amqp, &exchange.name, "#").await;
        amqp.delete_exchange(&exchange.name).await;
        app.execute("update deliveries set next_attempt_at = now()").await;
        // The worker declares it again; no queue is bound to it yet.
        eventually("the exchange is back", seconds(20), || async {
            let channel = amqp.channel().await;
            let bound = channel.queue_bind(
                short(&listener.queue),
                short(&exchange.name),
                short("#"),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            bound.await.is_ok()
        })
        .await;
        servers.kill_rabbitmq().await;
        servers.restart_rabbitmq().await;
        app.execute("update deliveries set next_attempt_at = now()").await;
        await_delivered(&app, i64::try_from(EVENTS).unwrap()).await;
        let amqp = app.amqp().await;
        let listener = Listener { channel: amqp.channel().await, ..listener };
        let ids: std::collections::HashSet<String> = listener
            .take()
            .await
            .iter()
            .map(|event| event["data"]["order_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), usize::try_from(EVENTS).unwrap());
    }
    assert_eq!(app.count("select count(*) from deliveries where attempts > 0").await, 0);
    drop(delivery_worker);
}
