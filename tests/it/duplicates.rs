//! Duplicates have no effect, wherever they meet, and every one has a receipt (P2).

use tallyhook::app::Roles;

use crate::support::{
    SHOP, TestApp, TestServer, erp_invoice,
    events::{again, shop_body},
    eventually, seconds, shop_order,
};

#[tokio::test]
async fn duplicates_in_one_batch_are_applied_once() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "10.00");
    let events = [first.clone(), again(&first), shop_order(2, 1, "20.00"), again(&first)];
    app.publish_all(&events).await;
    let mut consumer = app.consumer("shop").await;
    assert_eq!(consumer.step().await, 4);
    app.assert_outcomes(&events, &["applied", "duplicate", "applied", "duplicate"]).await;
    assert_eq!(app.count("select count(*) from orders").await, 2);
    // The payload is stored with the first receipt only.
    assert_eq!(app.count("select count(*) from receipts where payload is null").await, 2);
    app.assert_conserved(4).await;
}

#[tokio::test]
async fn duplicates_across_batches_are_applied_once() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "10.00");
    let mut consumer = app.consumer("shop").await;
    for event in [first.clone(), again(&first), again(&first)] {
        app.publish_all(&[event]).await;
        assert_eq!(consumer.step().await, 1);
    }
    let totals = app.totals().await;
    assert_eq!((totals.applied, totals.duplicate, totals.inbox_keys), (1, 2, 1));
    let last = app.text("select last_receipt::text from orders").await;
    assert_eq!(last, first.receipt_id.to_string());
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn duplicates_claimed_by_two_workers_are_applied_once() {
    const ROUNDS: u64 = 25;
    let app = TestApp::with(&[SHOP], |config| {
        config.worker.batch_wait_ms = 0;
        config.worker.batch_size = 3;
    })
    .await;
    let (_one_link, mut one) = app.consumer_on_own_connection("shop").await;
    let (_other_link, mut other) = app.consumer_on_own_connection("shop").await;
    for round in 0..ROUNDS {
        // Four copies of two events, crosswise, so that batches collide.
        let (a, b) = (shop_order(2 * round, 1, "1.00"), shop_order(2 * round + 1, 1, "1.00"));
        let events = [&a, &b, &b, &a, &a, &b, &b, &a].map(again);
        let sent = futures_util::future::join_all(events.iter().map(|event| app.publish(event)));
        assert!(sent.await.iter().all(Result::is_ok));
        let all = i64::try_from(8 * (round + 1)).unwrap();
        let processed = "select count(*) from receipts";
        while app.count(processed).await < all {
            // An idle consumer must not stop the other one.
            tokio::select! {
                _ = async { tokio::join!(one.step(), other.step()) } => {}
                () = eventually("the round", seconds(30), || async {
                    app.count(processed).await == all
                }) => {}
            }
        }
    }
    let totals = app.totals().await;
    let events = i64::try_from(2 * ROUNDS).unwrap();
    assert_eq!((totals.applied, totals.duplicate), (events, 3 * events));
    assert_eq!(app.count("select count(*) from orders").await, events);
    app.assert_conserved(4 * events).await;
}

#[tokio::test]
async fn duplicates_of_shared_documents_do_not_deadlock() {
    let app = TestApp::with(&[crate::support::ERP], |config| {
        config.worker.batch_wait_ms = 20;
        config.worker.consumers_per_source = 4;
    })
    .await;
    let server = TestServer::start(&app.config, Roles { receiver: false, worker: true }).await;
    let mut events = Vec::new();
    for version in 0..30 {
        for number in 0..10 {
            // Every other batch has the documents in reverse order.
            let number = if version % 2 == 0 { number } else { 9 - number };
            events.push(erp_invoice(&format!("INV-{number}"), version, "5.00"));
        }
    }
    let sent = futures_util::future::join_all(events.iter().map(|event| app.publish(event))).await;
    assert!(sent.iter().all(Result::is_ok));
    eventually("every event", seconds(60), || async {
        app.count("select count(*) from receipts where outcome <> 'retried'").await == 300
    })
    .await;
    server.stop().await;
    assert_eq!(app.count("select count(*) from invoices").await, 10);
    assert_eq!(app.count("select count(*) from receipts where attempts > 0").await, 0);
    let newest = "select count(*) from invoices where version = '2026-01-02T00:29:00Z'";
    assert_eq!(app.count(newest).await, 10);
    app.assert_conserved(300).await;
}

#[tokio::test]
async fn duplicates_posted_concurrently_are_one_order_and_three_receipts() {
    let app = TestApp::new().await;
    let server = TestServer::start(&app.config, Roles::ALL).await;
    let body = shop_body(1001, 1, "10.00");
    let (a, b, c) = tokio::join!(
        server.post("shop", "w-1", &body),
        server.post("shop", "w-1", &body),
        server.post("shop", "w-1", &body)
    );
    let mut named = Vec::new();
    for answer in [a, b, c] {
        assert_eq!(answer.status(), 200);
        named.push(answer.headers()["x-tallyhook-receipt"].to_str().unwrap().to_owned());
    }
    eventually("three receipts", seconds(20), || async {
        app.count("select count(*) from receipts").await == 3
    })
    .await;
    server.stop().await;
    named.sort();
    let recorded: Vec<String> =
        sqlx::query_scalar("select receipt_id::text from receipts order by 1")
            .fetch_all(&app.db)
            .await
            .unwrap();
    assert_eq!(recorded, named, "the answers name the receipts");
    assert_eq!(app.count("select count(*) from orders").await, 1);
    let totals = app.totals().await;
    assert_eq!((totals.applied, totals.duplicate), (1, 2));
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn redelivery_after_commit_changes_nothing() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "10.00");
    let events = [first.clone(), again(&first), shop_order(1, 0, "9.00")];
    app.publish_all(&events).await;
    let (link, mut consumer) = app.consumer_on_own_connection("shop").await;
    let batch = consumer.0.collect_batch().await.unwrap();
    assert_eq!(batch.deliveries.len(), 3);
    consumer.0.handle_batch(batch).await.unwrap();
    let before = "select string_agg(receipts::text, ';' order by receipt_id) from receipts";
    let (receipts, order) =
        (app.text(before).await, app.text("select orders::text from orders").await);
    drop(consumer);
    link.close().await;

    let mut consumer = app.consumer("shop").await;
    let batch = consumer.0.collect_batch().await.unwrap();
    assert_eq!(batch.deliveries.len(), 3, "all of it is delivered again");
    consumer.0.handle_batch(batch).await.unwrap();
    assert_eq!(app.text(before).await, receipts);
    assert_eq!(app.text("select orders::text from orders").await, order);
    app.assert_outcomes(&events, &["applied", "duplicate", "stale"]).await;
    app.assert_conserved(3).await;
}
