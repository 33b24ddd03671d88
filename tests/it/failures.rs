//! Contention, an outage and a schema mismatch cost no attempt; an unknown error costs one (P7).

use std::time::Duration;

use tallyhook::{
    app::{App, Roles},
    broker::OutgoingMessage,
    worker::ConsumerError,
};
use tokio::time::Instant;

use crate::support::{
    SHOP, TestApp, TestServer, erp_order, eventually, seconds, servers, shop_order,
};

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
async fn contention_is_retried_without_counting_an_attempt() {
    for error in ["40001", "40P01", "55P03"] {
        let app = TestApp::new().await;
        app.execute(&raise(error, 4)).await;
        let events = [shop_order(6, 1, "1.00"), shop_order(7, 1, "1.00")];
        app.publish_all(&events).await;
        assert_eq!(app.consumer("shop").await.step().await, 2);
        app.assert_outcomes(&events, &["applied", "applied"]).await;
        assert_eq!(app.count("select sum(attempts) from receipts").await, 0, "{error}");
        assert_eq!(app.count("select last_value from tries").await, 5, "{error}");
        app.assert_conserved(2).await;
    }
}

#[tokio::test]
async fn retry_exhausted_dead_letters_message() {
    let app = TestApp::new().await;
    app.execute(&raise("P0001", 1_000_000)).await;
    let events = [shop_order(6, 1, "1.00"), shop_order(7, 1, "1.00")];
    app.publish_all(&events).await;
    let mut consumer = app.consumer("shop").await;
    let begun = Instant::now();
    assert_eq!(consumer.step().await, 2, "the first attempt");
    app.assert_outcomes(&events, &["applied", "retried"]).await;
    for attempts in 2..=3 {
        assert_eq!(consumer.step().await, 1);
        assert_eq!(app.outcome_of(&events[1]).await, Some(("retried".to_owned(), attempts)));
    }
    assert_eq!(consumer.step().await, 1, "the last attempt");
    // Retry delays of 50, 100 and 200 ms.
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
    app.archive_dead_letters(1).await;
    // There is no fifth attempt.
    consumer.assert_idle(&app, shop_order(8, 1, "1.00")).await;
    assert_eq!(app.outcome_of(&events[1]).await, Some(("dead".to_owned(), 4)));
    let dead_letter = "select concat_ws(' ', reason, attempts, business_key,
                      first_failed_at < last_failed_at, error) from dead_letters";
    let dead_letter = app.text(dead_letter).await;
    assert!(
        dead_letter.starts_with("attempts_exhausted 4 #7 t 4 attempts failed"),
        "{dead_letter}"
    );
    assert!(dead_letter.contains("not now"), "{dead_letter}");
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn retry_succeeding_later_keeps_the_attempt_count() {
    let app = TestApp::new().await;
    app.execute(&raise("P0001", 2)).await;
    let order = shop_order(7, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    let mut consumer = app.consumer("shop").await;
    for (outcome, attempts) in [("retried", 1), ("retried", 2), ("applied", 2)] {
        assert_eq!(consumer.step().await, 1);
        assert_eq!(app.outcome_of(&order).await, Some((outcome.to_owned(), attempts)));
    }
    assert_eq!(app.text("select error from receipts").await, "");
    let tenant = app.text("select tenant || ' ' || topic from receipts").await;
    assert_eq!(tenant, "demo.myshopify.com orders/updated");
    app.assert_conserved(1).await;
}

#[tokio::test]
async fn schema_mismatch_counts_no_attempt_and_requeues() {
    let app = TestApp::with(&[SHOP], |config| config.worker.database_retry_timeout_ms = 300).await;
    let events = [shop_order(1, 1, "1.00"), shop_order(2, 1, "1.00")];
    app.execute("alter table orders rename to orders_away").await;
    app.publish_all(&events).await;
    let (link, mut consumer) = app.consumer_on_own_connection("shop").await;
    let given_up = consumer.try_step().await;
    assert!(matches!(given_up, Err(ConsumerError::Database(_))), "{given_up:?}");
    drop(consumer);
    link.close().await;
    assert_eq!(app.count("select count(*) from receipts").await, 0);

    app.execute("alter table orders_away rename to orders").await;
    let mut consumer = app.consumer("shop").await;
    consumer.drain(2).await;
    for event in &events {
        assert_eq!(app.outcome_of(event).await, Some(("applied".to_owned(), 0)));
    }
    assert_eq!(app.amqp().await.depth(&app.context.topology.dead_letter_queue()).await, Some(0));
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn schema_restored_within_the_retry_timeout_applies_the_batch() {
    let app = TestApp::new().await;
    // PostgreSQL reports a missing table three times.
    app.execute(&raise("42P01", 3)).await;
    let order = shop_order(7, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    assert_eq!(app.consumer("shop").await.step().await, 1);
    assert_eq!(app.count("select last_value from tries").await, 4);
    assert_eq!(app.outcome_of(&order).await, Some(("applied".to_owned(), 0)));
    app.assert_conserved(1).await;
}

/// With a low delivery limit. Each delivery tries its batch once.
async fn app_with_low_delivery_limit() -> TestApp {
    let app = TestApp::with(&[SHOP], |config| {
        config.broker.delivery_limit = 10;
        config.worker.database_retry_timeout_ms = 0;
        config.worker.consumers_per_source = 1;
    })
    .await;
    app.execute(
        "create sequence inserts;
         create function count_insert() returns trigger language plpgsql as $$ begin
             perform nextval('inserts');
             return new; end $$;
         create function refuse_insert() returns trigger language plpgsql as $$ begin
             perform nextval('inserts');
             raise exception 'could not extend file' using errcode = '53100'; end $$",
    )
    .await;
    app
}

/// Starts a worker and stops it after so many inserts of a counting trigger. Returns how often the
/// queue's message was requeued.
async fn requeues_after_inserts(app: &TestApp, inserts: i64) -> i64 {
    let service = App::start(&app.config, WORKER).await.unwrap();
    eventually("the inserts", seconds(60), || async {
        app.count("select last_value from inserts").await >= inserts
    })
    .await;
    service.stop().await;
    let topology = &app.context.topology;
    let amqp = app.amqp().await;
    let dead = amqp.depth(&topology.dead_letter_queue()).await;
    assert_eq!(dead, Some(0), "an outage dead-lettered a message");
    amqp.delivery_count(&topology.inbound_queue(&topology.sources()[0])).await
}

/// The check before consuming fails, so that nothing is delivered.
#[tokio::test]
async fn outage_seen_by_the_check_delivers_nothing() {
    let app = app_with_low_delivery_limit().await;
    // The check claims a key first.
    app.execute(
        "create trigger count_insert before insert on inbox
             for each row execute function count_insert();
         alter table orders rename to orders_away",
    )
    .await;
    let order = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    // Four consumers check, so each has done so several times.
    assert_eq!(requeues_after_inserts(&app, 20).await, 0);
    app.execute("alter table orders_away rename to orders").await;
    app.consumer("shop").await.step().await;
    assert_eq!(app.outcome_of(&order).await, Some(("applied".to_owned(), 0)));
    app.assert_conserved(1).await;
}

/// PostgreSQL answers the check, but every batch fails. Each requeue counts towards the delivery
/// limit of 10, so the worker consumes less and less often.
#[tokio::test]
async fn outage_longer_than_delivery_limit_dead_letters_nothing() {
    let app = app_with_low_delivery_limit().await;
    app.execute(
        "create trigger refuse_insert before insert on receipts
             for each row execute function refuse_insert()",
    )
    .await;
    let order = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    let begun = Instant::now();
    let requeues = requeues_after_inserts(&app, 4).await;
    // Delays of 0.4, 0.8 and 1.6 s lie between four deliveries.
    assert!(begun.elapsed() >= Duration::from_millis(2800), "{:?}", begun.elapsed());
    assert_eq!(requeues, 4);
    app.execute("drop trigger refuse_insert on receipts").await;
    app.consumer("shop").await.step().await;
    assert_eq!(app.outcome_of(&order).await, Some(("applied".to_owned(), 0)));
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
    app.assert_conserved(1).await;
}

/// A message whose retry queue is full is requeued less and less often, too.
#[tokio::test]
async fn retry_queue_full_dead_letters_nothing() {
    let app = TestApp::with(&[SHOP], |config| {
        config.broker.delivery_limit = 10;
        config.worker.consumers_per_source = 1;
        // The filler must not expire.
        config.retry.initial_delay_ms = 60_000;
        config.retry.max_delay_ms = 60_000;
    })
    .await;
    let retry_queues = format!("^{}\\.retry", app.config.broker.prefix);
    servers::limit_queues(&retry_queues, 1).await;
    eventually("the queue to be full", seconds(20), || async {
        let delay = seconds(60);
        let filler = shop_order(1, 1, "1.00");
        let filler =
            OutgoingMessage::retry(&app.context.topology, &filler, delay, filler.received_at);
        app.context.publisher.publish(filler).await.is_err()
    })
    .await;
    app.execute(&raise("P0001", 1_000_000)).await;
    let events = [shop_order(7, 1, "1.00"), shop_order(8, 1, "1.00")];
    app.publish_all(&events).await;
    let begun = Instant::now();
    let server = TestServer::start(&app.config, WORKER).await;
    eventually("the unaffected order", seconds(20), || async {
        app.outcome_of(&events[1]).await.is_some()
    })
    .await;
    let failed_attempts = server.service.metrics.failed_attempts.with_label_values(&["shop"]);
    eventually("four deliveries", seconds(60), || async { failed_attempts.get() >= 4 }).await;
    // Delays of 0.4, 0.8 and 1.6 s lie between four deliveries.
    assert!(begun.elapsed() >= Duration::from_millis(2800), "{:?}", begun.elapsed());
    server.stop().await;
    servers::clear_queue_limit(&retry_queues).await;
    // On RabbitMQ 3.10 an open channel is nacked until something is taken from the queue, so the
    // worker is restarted.
    let server = TestServer::start(&app.config, WORKER).await;
    app.execute("drop trigger refuse on orders").await;
    eventually("the guilty", seconds(30), || async {
        app.outcome_of(&events[0]).await.is_some_and(|(outcome, _)| outcome == "applied")
    })
    .await;
    server.stop().await;
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn failing_source_does_not_delay_another_source() {
    let app = TestApp::with(&[SHOP, crate::support::ERP], |config| {
        config.worker.consumers_per_source = 1;
    })
    .await;
    app.execute(&raise("P0001", 1_000_000)).await;
    let bad: Vec<_> = (0..5).map(|_| shop_order(7, 1, "1.00")).collect();
    let good: Vec<_> = (0..20).map(|order| erp_order(&format!("E{order}"), 1, "1.00")).collect();
    app.publish_all(&bad).await;
    app.publish_all(&good).await;
    let server = TestServer::start(&app.config, WORKER).await;
    eventually("all of it", seconds(30), || async {
        let totals = app.totals().await;
        (totals.applied, totals.dead) == (20, 5)
    })
    .await;
    server.stop().await;
    app.assert_conserved(25).await;
}
