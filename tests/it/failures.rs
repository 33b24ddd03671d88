//! What each class of failure costs: contention nothing, an outage and a
//! wrong schema nothing, an unclear error one attempt (P7).

use std::time::Duration;

use tallyhook::{
    broker::Outgoing,
    service::{Roles, Service},
    worker::Trouble,
};
use tokio::time::Instant;

use crate::support::{Front, Rig, SHOP, erp_order, eventually, seconds, shop_order};

const WORKER: Roles = Roles { receiver: false, worker: true };

/// A trigger that raises `error` for order 7 as long as `times` lasts.
fn raise(error: &str, times: u32) -> String {
    format!(
        "create sequence tries;
         create function refuse() returns trigger language plpgsql as $$ begin
             if new.order_id = '7' and nextval('tries') <= {times} then
                 raise exception 'not now' using errcode = '{error}';
             end if;
             return new; end $$;
         create trigger refuse before insert on orders for each row execute function refuse()"
    )
}

#[tokio::test]
async fn contention_is_tried_again_at_once_and_costs_no_attempt() {
    for error in ["40001", "40P01", "55P03"] {
        let rig = Rig::new().await;
        rig.execute(&raise(error, 4)).await;
        let events = [shop_order(6, 1, "1.00"), shop_order(7, 1, "1.00")];
        rig.send(&events).await;
        assert_eq!(rig.lane("shop").await.step().await, 2);
        rig.assert_fates(&events, &["applied", "applied"]).await;
        assert_eq!(rig.count("select sum(attempts) from receipts").await, 0, "{error}");
        assert_eq!(rig.count("select last_value from tries").await, 5, "{error}");
        rig.assert_conserved(2).await;
    }
}

#[tokio::test]
async fn an_unclear_failure_walks_the_tiers_and_then_is_dead() {
    let rig = Rig::new().await;
    rig.execute(&raise("P0001", 1_000_000)).await;
    let events = [shop_order(6, 1, "1.00"), shop_order(7, 1, "1.00")];
    rig.send(&events).await;
    let mut lane = rig.lane("shop").await;
    let begun = Instant::now();
    assert_eq!(lane.step().await, 2, "the first attempt");
    rig.assert_fates(&events, &["applied", "retried"]).await;
    for attempts in 2..=3 {
        assert_eq!(lane.step().await, 1);
        assert_eq!(rig.fate(&events[1]).await, Some(("retried".to_owned(), attempts)));
    }
    assert_eq!(lane.step().await, 1, "the last attempt");
    // 50, 100 and 200 ms in the tiers.
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
    rig.archive(1).await;
    assert!(lane.is_quiet().await, "it is not tried a fifth time");
    assert_eq!(rig.fate(&events[1]).await, Some(("dead".to_owned(), 4)));
    let letter = "select concat_ws(' ', reason, attempts, business_key,
                      first_failed_at < last_failed_at, error) from dead_letters";
    let letter = rig.text(letter).await;
    assert!(letter.starts_with("attempts_exhausted 4 #7 t 4 attempts failed"), "{letter}");
    assert!(letter.contains("not now"), "{letter}");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_failure_that_passes_ends_applied_with_its_attempts_counted() {
    let rig = Rig::new().await;
    rig.execute(&raise("P0001", 2)).await;
    let order = shop_order(7, 1, "1.00");
    rig.send(std::slice::from_ref(&order)).await;
    let mut lane = rig.lane("shop").await;
    for (outcome, attempts) in [("retried", 1), ("retried", 2), ("applied", 2)] {
        assert_eq!(lane.step().await, 1);
        assert_eq!(rig.fate(&order).await, Some((outcome.to_owned(), attempts)));
    }
    assert_eq!(rig.text("select error from receipts").await, "");
    let tenant = rig.text("select tenant || ' ' || topic from receipts").await;
    assert_eq!(tenant, "demo.myshopify.com orders/updated");
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_nobodys_poison() {
    let rig = Rig::with(&[SHOP], |config| config.worker.hold_ms = 300).await;
    let events = [shop_order(1, 1, "1.00"), shop_order(2, 1, "1.00")];
    rig.execute("alter table orders rename to orders_away").await;
    rig.send(&events).await;
    let (link, mut lane) = rig.lane_apart("shop").await;
    let given_up = lane.try_step().await;
    assert!(matches!(given_up, Err(Trouble::Database(_))), "{given_up:?}");
    drop(lane);
    link.close().await;
    assert_eq!(rig.count("select count(*) from receipts").await, 0);

    rig.execute("alter table orders_away rename to orders").await;
    let mut lane = rig.lane("shop").await;
    lane.settle(2).await;
    for event in &events {
        assert_eq!(rig.fate(event).await, Some(("applied".to_owned(), 0)));
    }
    assert_eq!(rig.raw().await.depth(&rig.tools.topology.dead()).await, Some(0));
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_batch_is_held_while_the_schema_is_mended() {
    let rig = Rig::new().await;
    rig.execute("alter table orders rename to orders_away").await;
    let order = shop_order(1, 1, "1.00");
    rig.send(std::slice::from_ref(&order)).await;
    let mut lane = rig.lane("shop").await;
    let mend = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        rig.execute("alter table orders_away rename to orders").await;
    };
    let ((), size) = tokio::join!(mend, lane.step());
    assert_eq!(size, 1);
    assert_eq!(rig.fate(&order).await, Some(("applied".to_owned(), 0)));
    rig.assert_conserved(1).await;
}

/// Each time a batch is handed back counts towards the delivery limit; an
/// outage that lasts must not reach it.
#[tokio::test]
async fn an_outage_longer_than_the_delivery_limit_buries_nobody() {
    let rig = Rig::with(&[SHOP], |config| {
        config.broker.delivery_limit = 10;
        config.worker.hold_ms = 10;
        config.worker.consumers = 1;
    })
    .await;
    for (breaks, mends) in [
        ("alter table orders rename to orders_away", "alter table orders_away rename to orders"),
        // Answers, and cannot be written to.
        (
            "create function refuse() returns trigger language plpgsql as $$ begin
                 raise exception 'could not extend file' using errcode = '53100'; end $$;
             create trigger refuse before insert on receipts
                 for each statement execute function refuse()",
            "drop trigger refuse on receipts",
        ),
    ] {
        rig.execute(breaks).await;
        let order = shop_order(rand::random_range(1..1_000_000), 1, "1.00");
        rig.send(std::slice::from_ref(&order)).await;
        let service = Service::start(&rig.config, WORKER).await.unwrap();
        let until = Instant::now() + seconds(4);
        while Instant::now() < until {
            let dead = rig.raw().await.depth(&rig.tools.topology.dead()).await;
            assert_eq!(dead, Some(0), "the broker buried a message that is not at fault");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        service.stop().await;
        // Each time counts, and 10 bury it; so it is taken less and less often.
        let queue = rig.tools.topology.inbound_queue(&order.source);
        let counted = rig.raw().await.delivery_count(&queue).await;
        assert!(counted <= 5, "delivered {counted} times: {breaks}");
        rig.execute(mends).await;
        rig.lane("shop").await.step().await;
        assert_eq!(rig.fate(&order).await, Some(("applied".to_owned(), 0)), "{breaks}");
    }
    assert_eq!(rig.count("select count(*) from dead_letters").await, 0);
    rig.assert_conserved(2).await;
}

/// The same for a message whose dead letter finds no room.
#[tokio::test]
async fn a_full_retry_queue_buries_nobody() {
    let (servers, rig) = Rig::own(&[SHOP], |config| {
        config.broker.delivery_limit = 10;
        config.worker.consumers = 1;
        // What fills the queue must stay in it.
        config.retry.first_ms = 60_000;
        config.retry.longest_ms = 60_000;
    })
    .await;
    let pattern = format!("^{}\\.retry", rig.config.broker.prefix);
    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    servers.rabbitmq.rabbitmqctl(&["set_policy", "full", &pattern, full]).await.unwrap();
    eventually("the queue to be full", seconds(20), || async {
        let delay = seconds(60);
        let filler = shop_order(1, 1, "1.00");
        let filler = Outgoing::retry(&rig.tools.topology, &filler, delay, filler.received_at);
        rig.tools.publisher.publish(filler).await.is_err()
    })
    .await;
    rig.execute(&raise("P0001", 1_000_000)).await;
    let events = [shop_order(7, 1, "1.00"), shop_order(8, 1, "1.00")];
    rig.send(&events).await;
    let front = Front::start(&rig.config, WORKER).await;
    eventually("the innocent", seconds(20), || async { rig.fate(&events[1]).await.is_some() })
        .await;
    tokio::time::sleep(seconds(5)).await;
    front.stop().await;
    servers.rabbitmq.rabbitmqctl(&["clear_policy", "full"]).await.unwrap();
    // On RabbitMQ 3.10 an open channel goes on being refused until something
    // is taken from the queue, so the worker starts anew.
    let front = Front::start(&rig.config, WORKER).await;
    rig.execute("drop trigger refuse on orders").await;
    eventually("the guilty", seconds(30), || async {
        rig.fate(&events[0]).await.is_some_and(|(outcome, _)| outcome == "applied")
    })
    .await;
    front.stop().await;
    assert_eq!(rig.count("select count(*) from dead_letters").await, 0);
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_failing_source_does_not_hold_up_another() {
    let rig = Rig::with(&[SHOP, crate::support::ERP], |config| config.worker.consumers = 1).await;
    rig.execute(&raise("P0001", 1_000_000)).await;
    let bad: Vec<_> = (0..5).map(|_| shop_order(7, 1, "1.00")).collect();
    let good: Vec<_> = (0..20).map(|order| erp_order(&format!("E{order}"), 1, "1.00")).collect();
    rig.send(&bad).await;
    rig.send(&good).await;
    let front = Front::start(&rig.config, WORKER).await;
    eventually("all of it", seconds(30), || async {
        let sums = rig.sums().await;
        (sums.applied, sums.dead) == (20, 5)
    })
    .await;
    front.stop().await;
    rig.assert_conserved(25).await;
}
