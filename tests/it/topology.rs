//! The topology loses no message between queues, and a declaration conflict is reported.

use std::time::Duration;

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tallyhook::broker::{BrokerError, Consumer, Topology};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::support::{
    SHOP, TestApp,
    amqp::{long, short},
    events::shop_body,
    seconds, shop_order,
};

#[tokio::test]
async fn topology_declared_twice_is_unchanged() {
    let app = TestApp::new().await;
    app.publish_all(&[shop_order(1, 1, "1.00")]).await;
    app.context.topology.declare(&app.link).await.unwrap();
    app.context.topology.declare(&app.link).await.unwrap();
    let depths = app.context.topology.depths(&app.link).await.unwrap();
    let ready: Vec<_> = depths.iter().map(|depth| (depth.role, depth.ready)).collect();
    let empty = Some(0);
    assert_eq!(
        ready,
        [
            ("inbound", Some(1)),
            ("retry", empty),
            ("retry", empty),
            ("retry", empty),
            ("dead", empty),
            ("unrouted", empty),
            ("calls", empty),
        ]
    );
}

#[tokio::test]
async fn topology_different_argument_is_reported_and_queue_kept() {
    let app = TestApp::new().await;
    app.publish_all(&[shop_order(1, 1, "1.00")]).await;
    let sources = app.context.topology.sources().to_vec();
    let other = Topology::new(&app.config.broker.prefix, 17, Vec::new(), sources);
    match other.declare(&app.link).await {
        Err(BrokerError::PreconditionFailed { name, broker_message, .. }) => {
            assert_eq!(name, app.context.topology.inbound_queue(&other.sources()[0]));
            assert!(broker_message.contains("x-delivery-limit"), "{broker_message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(app.link.is_connected(), "only the channel is lost");
    let queue = app.context.topology.inbound_queue(&other.sources()[0]);
    assert_eq!(app.amqp().await.depth(&queue).await, Some(1));
}

#[tokio::test]
async fn topology_classic_queue_is_rejected() {
    let app = TestApp::new().await;
    let amqp = app.amqp().await;
    let dead = app.context.topology.dead_letter_queue();
    amqp.delete(&dead).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let channel = amqp.channel().await;
    channel.queue_declare(short(&dead), durable, FieldTable::default()).await.unwrap();
    match app.context.topology.declare(&app.link).await {
        Err(BrokerError::PreconditionFailed { name, broker_message, .. }) => {
            assert_eq!(name, dead);
            assert!(broker_message.contains("x-queue-type"), "{broker_message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn topology_retry_queue_returns_message_to_its_source_after_delay() {
    let app = TestApp::with(&[SHOP, crate::support::ERP], |_| ()).await;
    let mut order = shop_order(1, 1, "1.00");
    order.failed_attempts = 1;
    order.replay_id = Some(Uuid::now_v7());
    order.generation = 3;
    let delay = app.config.retry.schedule().tiers()[2];
    let first_failed = order.received_at;
    let message = tallyhook::broker::OutgoingMessage::retry(
        &app.context.topology,
        &order,
        delay,
        first_failed,
    );
    let queue = app.context.topology.inbound_queue(&order.source);
    let mut subscription = Consumer::open(&app.link, &queue, 10).await.unwrap();
    let begun = Instant::now();
    let _durable = app.context.publisher.publish(message).await.unwrap();
    let back = timeout(seconds(10), subscription.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!(back.message.routing_key, "shop");
    let envelope = back.message.envelope(&order.source, order.received_at).unwrap();
    assert_eq!(
        (
            envelope.receipt_id,
            envelope.key,
            envelope.failed_attempts,
            envelope.generation,
            envelope.replay_id,
            envelope.body
        ),
        (order.receipt_id, order.key, 1, 3, order.replay_id, order.body)
    );
    assert_eq!(back.message.first_failed_at(), Some(first_failed));
}

#[tokio::test]
async fn topology_delivery_limit_dead_letters_with_reason() {
    let app = TestApp::with(&[SHOP], |config| config.broker.delivery_limit = 10).await;
    let order = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    let queue = app.context.topology.inbound_queue(&order.source);
    let deliveries = app.amqp().await.hand_back(&queue).await;
    assert_eq!(deliveries, 11, "the limit counts redeliveries");
    app.archive_dead_letters(1).await;
    let dead_letter = "select concat_ws(' ', reason, attempts, source, event_key = '{}', error)
                  from dead_letters"
        .replace("{}", order.key.as_str());
    let dead_letter = app.text(&dead_letter).await;
    assert!(dead_letter.starts_with("delivery_limit 0 shop t "), "{dead_letter}");
    assert!(dead_letter.contains(&queue), "{dead_letter}");
    app.assert_outcomes(&[order], &["dead"]).await;
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn topology_unknown_source_is_dead_lettered() {
    let app = TestApp::new().await;
    let server = crate::support::TestServer::start(
        &app.config,
        tallyhook::app::Roles { receiver: false, worker: true },
    )
    .await;
    for key in ["unbound", "Not a source's name"] {
        app.publish_foreign(key, Some("17"), &[], b"{}").await;
    }
    crate::support::eventually("two dead letters", seconds(20), || async {
        app.count("select count(*) from dead_letters").await == 2
    })
    .await;
    server.stop().await;
    let dead_letters =
        "select string_agg(concat_ws(' ', source, reason, headers->>'routing_key'), ', '
                       order by source) from dead_letters";
    let expected = "unbound unknown_source unbound, unknown unknown_source Not a source's name";
    assert_eq!(app.text(dead_letters).await, expected);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn topology_foreign_producer_needs_only_a_message_id() {
    let app = TestApp::with(&[crate::support::ERP], |_| ()).await;
    let order = crate::support::erp_order("1", 1, "1.00").body;
    let exchange = app.context.topology.inbound_exchange();
    let channel = app.amqp().await;
    // The AMQP type is the topic. Without one, the message is ignored.
    channel.publish(&exchange, "erp", Some("order-1"), &[], &order).await;
    channel.publish(&exchange, "erp", Some("order-1"), &[], &order).await;
    channel.publish(&exchange, "erp", None, &[], &order).await;
    channel.publish(&exchange, "erp", Some(""), &[], &order).await;
    let broken = [("x-tallyhook-receipt", long("not a uuid"))];
    channel.publish(&exchange, "erp", Some("order-2"), &broken, &order).await;
    app.consumer("erp").await.drain(5).await;
    app.archive_dead_letters(3).await;
    let totals = app.totals().await;
    assert_eq!((totals.ignored, totals.duplicate, totals.dead), (1, 1, 3));
    let reasons = "select string_agg(concat_ws(' ', reason, error), ', ' order by reason, error)
                   from dead_letters";
    assert_eq!(
        app.text(reasons).await,
        "invalid_value x-tallyhook-receipt: is not a UUID, missing_field message_id: is missing \
         or null, missing_field message_id: is missing or null"
    );
    assert_eq!(
        app.count("select count(*) from receipts where response_status is not null").await,
        0
    );
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn topology_foreign_headers_do_not_stop_the_worker() {
    let app = TestApp::new().await;
    let mut table = FieldTable::default();
    table.insert(short("deep"), AMQPValue::Double(-0.0));
    let headers = [
        ("float", AMQPValue::Float(1.5)),
        ("void", AMQPValue::Void),
        ("table", AMQPValue::FieldTable(table)),
        ("bytes", long("a\0b")),
        ("x-tallyhook-attempt", AMQPValue::ShortShortInt(2)),
        ("x-death", long("not a list")),
    ];
    app.publish_foreign("shop", Some("a\0b"), &headers, shop_body(1, 1, "1.00").as_bytes()).await;
    app.publish_foreign("shop", None, &headers, b"\0").await;
    app.consumer("shop").await.drain(2).await;
    app.archive_dead_letters(1).await;
    assert_eq!(app.text("select attempts::text from dead_letters").await, "3");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn topology_deleted_queues_are_redeclared() {
    let app = TestApp::new().await;
    let server = crate::support::TestServer::start(
        &app.config,
        tallyhook::app::Roles { receiver: false, worker: true },
    )
    .await;
    let amqp = app.amqp().await;
    let topology = &app.context.topology;
    let inbound = topology.inbound_queue(&topology.sources()[0]);
    for queue in [inbound.clone(), topology.dead_letter_queue(), topology.unrouted_queue(), inbound]
    {
        amqp.delete(&queue).await;
        crate::support::eventually(&queue, seconds(20), || async {
            amqp.depth(&queue).await.is_some()
        })
        .await;
    }
    let order = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    crate::support::eventually("the order", seconds(20), || async {
        app.outcome_of(&order).await.is_some()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    server.stop().await;
    app.assert_outcomes(&[order], &["applied"]).await;
    app.assert_conserved(1).await;
}
