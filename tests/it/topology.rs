//! The topology loses nothing on any hop, and says what differs.

use std::time::Duration;

use lapin::{
    options::QueueDeclareOptions,
    types::{AMQPValue, FieldTable},
};
use tallyhook::broker::{BrokerError, Subscription, Topology};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::support::{
    Rig, SHOP,
    broker::{long, short},
    events::shop_body,
    seconds, shop_order,
};

#[tokio::test]
async fn declaring_twice_changes_nothing() {
    let rig = Rig::new().await;
    rig.send(&[shop_order(1, 1, "1.00")]).await;
    rig.tools.topology.declare(&rig.link).await.unwrap();
    rig.tools.topology.declare(&rig.link).await.unwrap();
    let depths = rig.tools.topology.depths(&rig.link).await.unwrap();
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
async fn a_queue_with_another_argument_is_named_and_kept() {
    let rig = Rig::new().await;
    rig.send(&[shop_order(1, 1, "1.00")]).await;
    let sources = rig.tools.topology.sources().to_vec();
    let other = Topology::new(&rig.config.broker.prefix, 17, Vec::new(), sources);
    match other.declare(&rig.link).await {
        Err(BrokerError::Differs { name, told, .. }) => {
            assert_eq!(name, rig.tools.topology.inbound_queue(&other.sources()[0]));
            assert!(told.contains("x-delivery-limit"), "{told}");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.link.is_up(), "only the channel is lost");
    let queue = rig.tools.topology.inbound_queue(&other.sources()[0]);
    assert_eq!(rig.raw().await.depth(&queue).await, Some(1));
}

#[tokio::test]
async fn a_classic_queue_in_our_place_is_refused() {
    let rig = Rig::new().await;
    let raw = rig.raw().await;
    let dead = rig.tools.topology.dead();
    raw.delete(&dead).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let channel = raw.channel().await;
    channel.queue_declare(short(&dead), durable, FieldTable::default()).await.unwrap();
    match rig.tools.topology.declare(&rig.link).await {
        Err(BrokerError::Differs { name, told, .. }) => {
            assert_eq!(name, dead);
            assert!(told.contains("x-queue-type"), "{told}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_retry_queue_returns_a_message_to_its_own_source_after_its_delay() {
    let rig = Rig::with(&[SHOP, crate::support::ERP], |_| ()).await;
    let mut order = shop_order(1, 1, "1.00");
    order.attempt = 1;
    order.replay = Some(Uuid::now_v7());
    order.generation = 3;
    let delay = rig.config.retry.schedule().tiers()[2];
    let first_failed = order.received_at;
    let message =
        tallyhook::broker::Outgoing::retry(&rig.tools.topology, &order, delay, first_failed);
    let queue = rig.tools.topology.inbound_queue(&order.source);
    let mut subscription = Subscription::open(&rig.link, &queue, 10).await.unwrap();
    let begun = Instant::now();
    let _durable = rig.tools.publisher.publish(message).await.unwrap();
    let back = timeout(seconds(10), subscription.next()).await.unwrap().unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
    assert_eq!(back.parcel.routing_key, "shop");
    let told = back.parcel.envelope(&order.source, order.received_at).unwrap();
    assert_eq!(
        (told.receipt_id, told.key, told.attempt, told.generation, told.replay, told.body),
        (order.receipt_id, order.key, 1, 3, order.replay, order.body)
    );
    assert_eq!(back.parcel.first_failed_at(), Some(first_failed));
}

#[tokio::test]
async fn what_nobody_settles_is_archived_with_the_brokers_reason() {
    let rig = Rig::with(&[SHOP], |config| config.broker.delivery_limit = 10).await;
    let order = shop_order(1, 1, "1.00");
    rig.send(std::slice::from_ref(&order)).await;
    let queue = rig.tools.topology.inbound_queue(&order.source);
    let deliveries = rig.raw().await.hand_back(&queue).await;
    assert_eq!(deliveries, 11, "the limit counts redeliveries");
    rig.archive(1).await;
    let letter = "select concat_ws(' ', reason, attempts, source, event_key = '{}', error)
                  from dead_letters"
        .replace("{}", order.key.as_str());
    let letter = rig.text(&letter).await;
    assert!(letter.starts_with("delivery_limit 0 shop t "), "{letter}");
    assert!(letter.contains(&queue), "{letter}");
    rig.assert_fates(&[order], &["dead"]).await;
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_message_for_no_source_of_ours_is_dead() {
    let rig = Rig::new().await;
    let front = crate::support::Front::start(
        &rig.config,
        tallyhook::service::Roles { receiver: false, worker: true },
    )
    .await;
    for key in ["nobody", "Not a source's name"] {
        rig.publish_foreign(key, Some("17"), &[], b"{}").await;
    }
    crate::support::eventually("two letters", seconds(20), || async {
        rig.count("select count(*) from dead_letters").await == 2
    })
    .await;
    front.stop().await;
    let letters = "select string_agg(concat_ws(' ', source, reason, headers->>'routing_key'), ', '
                       order by source) from dead_letters";
    let expected = "nobody unknown_source nobody, unknown unknown_source Not a source's name";
    assert_eq!(rig.text(letters).await, expected);
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn another_producer_needs_only_a_message_id() {
    let rig = Rig::with(&[crate::support::ERP], |_| ()).await;
    let order = crate::support::erp_order("1", 1, "1.00").body;
    let exchange = rig.tools.topology.inbound_exchange();
    let channel = rig.raw().await;
    // Its type is the topic: without one, nobody maps it.
    channel.publish(&exchange, "erp", Some("order-1"), &[], &order).await;
    channel.publish(&exchange, "erp", Some("order-1"), &[], &order).await;
    channel.publish(&exchange, "erp", None, &[], &order).await;
    channel.publish(&exchange, "erp", Some(""), &[], &order).await;
    let broken = [("x-tallyhook-receipt", long("not a uuid"))];
    channel.publish(&exchange, "erp", Some("order-2"), &broken, &order).await;
    rig.lane("erp").await.settle(5).await;
    rig.archive(3).await;
    let sums = rig.sums().await;
    assert_eq!((sums.ignored, sums.duplicate, sums.dead), (1, 1, 3));
    let reasons = "select string_agg(concat_ws(' ', reason, error), ', ' order by reason, error)
                   from dead_letters";
    assert_eq!(
        rig.text(reasons).await,
        "invalid_value x-tallyhook-receipt: is not a UUID, missing_field message_id: is missing \
         or null, missing_field message_id: is missing or null"
    );
    assert_eq!(
        rig.count("select count(*) from receipts where response_status is not null").await,
        0
    );
    rig.assert_conserved(5).await;
}

#[tokio::test]
async fn headers_of_any_kind_are_archived_or_read_and_never_in_the_way() {
    let rig = Rig::new().await;
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
    rig.publish_foreign("shop", Some("a\0b"), &headers, shop_body(1, 1, "1.00").as_bytes()).await;
    rig.publish_foreign("shop", None, &headers, b"\0").await;
    rig.lane("shop").await.settle(2).await;
    rig.archive(1).await;
    assert_eq!(rig.text("select attempts::text from dead_letters").await, "3");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn deleted_queues_come_back_by_themselves() {
    let rig = Rig::new().await;
    let front = crate::support::Front::start(
        &rig.config,
        tallyhook::service::Roles { receiver: false, worker: true },
    )
    .await;
    let raw = rig.raw().await;
    let topology = &rig.tools.topology;
    let inbound = topology.inbound_queue(&topology.sources()[0]);
    for queue in [inbound.clone(), topology.dead(), topology.unrouted(), inbound] {
        raw.delete(&queue).await;
        crate::support::eventually(&queue, seconds(20), || async {
            raw.depth(&queue).await.is_some()
        })
        .await;
    }
    let order = shop_order(1, 1, "1.00");
    rig.send(std::slice::from_ref(&order)).await;
    crate::support::eventually("the order", seconds(20), || async {
        rig.fate(&order).await.is_some()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    front.stop().await;
    rig.assert_fates(&[order], &["applied"]).await;
    rig.assert_conserved(1).await;
}
