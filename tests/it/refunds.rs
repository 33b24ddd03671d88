//! A refund counts once, in however many events it appears.

use tallyhook::{
    domain::{Envelope, SourceName},
    worker::source_consumer::SourceConsumer,
};

use crate::support::{
    TestApp,
    events::{
        again, shop_order_refunded, shop_refund, stripe_charge_refunded, stripe_refund,
        stripe_session,
    },
    shop_order,
};

const BACK: &str = "select concat_ws(' ', number, refunded) from orders";

#[tokio::test]
async fn refund_amounts_add_up_without_duplicates() {
    let app = TestApp::new().await;
    let first = shop_refund(1, 71, "10.00", "EUR");
    let events = [
        shop_order(1, 1, "100.00"),
        first.clone(),
        // The same event again; the same refund in another event; another one.
        again(&first),
        shop_refund(1, 71, "10.00", "EUR"),
        shop_refund(1, 72, "5.50", "EUR"),
    ];
    let mut consumer = app.consumer("shop").await;
    app.publish_all(&events).await;
    consumer.drain(5).await;
    app.assert_outcomes(&events, &["applied", "applied", "duplicate", "applied", "applied"]).await;
    assert_eq!(app.text(BACK).await, "#1 15.50");
    assert_eq!(app.count("select count(*) from refunds").await, 2);
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn refund_listed_in_its_order_is_not_counted_twice() {
    let app = TestApp::new().await;
    let mut consumer = app.consumer("shop").await;
    // In the order first, in the refunds first, and mixed.
    for (order, events) in [
        (1, [shop_order_refunded(1, 5, &["10.00"]), shop_refund(1, 71, "10.00", "EUR")]),
        (2, [shop_refund(2, 72, "10.00", "EUR"), shop_order_refunded(2, 5, &["10.00"])]),
        (3, [shop_order_refunded(3, 5, &["4.00", "6.00"]), shop_refund(3, 73, "4.00", "EUR")]),
    ] {
        app.publish_all(&events).await;
        consumer.drain(2).await;
        app.assert_outcomes(&events, &["applied", "applied"]).await;
        let query = format!("select refunded::text from orders where order_id = '{order}'");
        assert_eq!(app.text(&query).await, "10.00", "order {order}");
    }
    app.assert_conserved(6).await;
}

#[tokio::test]
async fn refund_before_its_order_is_added_later() {
    let app = TestApp::new().await;
    let mut consumer = app.consumer("shop").await;
    app.publish_all(&[shop_refund(1, 71, "10.00", "EUR")]).await;
    consumer.drain(1).await;
    assert_eq!(
        app.text("select concat_ws(' ', order_id, number, refunded) from orders").await,
        "1 10.00"
    );
    let order = shop_order(1, 1, "100.00");
    app.publish_all(std::slice::from_ref(&order)).await;
    consumer.drain(1).await;
    app.assert_outcomes(&[order], &["applied"]).await;
    assert_eq!(app.text(BACK).await, "#1 10.00");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn refund_in_other_currency_is_stored_but_not_added() {
    let app = TestApp::new().await;
    let mut consumer = app.consumer("shop").await;
    let events = [
        shop_order(1, 1, "100.00"),
        shop_refund(1, 71, "10.00", "USD"),
        shop_refund(1, 72, "3.00", "EUR"),
    ];
    app.publish_all(&events).await;
    consumer.drain(3).await;
    assert_eq!(app.text(BACK).await, "#1 3.00");
    assert_eq!(app.count("select count(*) from refunds").await, 2);
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn refund_and_order_applied_concurrently_add_up() {
    let app = TestApp::with(&[crate::support::SHOP], |config| config.worker.batch_size = 3).await;
    let source: SourceName = "shop".parse().unwrap();
    let mut events: Vec<Envelope> = Vec::new();
    for order in 1..=20 {
        for refund in 0..4 {
            events.push(shop_refund(order, order * 10 + refund, "2.50", "EUR"));
        }
        events.insert(events.len() - 2, shop_order(order, 1, "100.00"));
    }
    app.publish_all(&events).await;
    let mut consumers = tokio::task::JoinSet::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for _ in 0..4 {
        let consumer =
            SourceConsumer::open(app.context.clone(), source.clone(), &app.link).await.unwrap();
        consumers.spawn(consumer.run(stop.clone()));
    }
    let all_recorded = format!("select count(*) from receipts having count(*) = {}", events.len());
    for _ in 0..200 {
        let done: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(all_recorded.clone()))
            .fetch_optional(&app.db)
            .await
            .unwrap();
        if done.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stop.cancel();
    while let Some(ended) = consumers.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(
        app.count("select count(*) from orders where refunded = 10 and total = 100").await,
        20
    );
    app.assert_conserved(100).await;
}

const STRIPE: &str = "[sources.stripe]\nkind = 'stripe'\nsecrets = ['env:SECRET']\n";

#[tokio::test]
async fn refund_by_payment_finds_its_order_in_any_order() {
    for at_once in [true, false] {
        let app = TestApp::with(&[STRIPE], |_| ()).await;
        let events = [
            stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
            stripe_session("cs_1", "pi_1"),
            stripe_session("cs_2", "pi_2"),
            stripe_refund("re_2", "pi_2", 250, "succeeded", 5),
            stripe_refund("re_3", "pi_2", 250, "pending", 5),
            stripe_refund("re_4", "pi_unknown", 999, "succeeded", 5),
        ];
        let mut consumer = app.consumer("stripe").await;
        if at_once {
            app.publish_all(&events).await;
            consumer.drain(events.len()).await;
        } else {
            for event in &events {
                app.publish_all(std::slice::from_ref(event)).await;
                consumer.step().await;
            }
        }
        app.assert_outcomes(&events, &["applied"; 6]).await;
        let query = "select string_agg(concat_ws(' ', order_id, total, refunded), ', ' order by 1)
                    from orders";
        assert_eq!(app.text(query).await, "cs_1 100.00 10.00, cs_2 100.00 2.50", "{at_once}");
        app.assert_conserved(6).await;
    }
}

#[tokio::test]
async fn refund_total_of_a_charge_is_not_added_to_refunds() {
    let app = TestApp::with(&[STRIPE], |_| ()).await;
    let events = [
        stripe_session("cs_1", "pi_1"),
        stripe_charge_refunded("pi_1", 1_000, 5),
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
        stripe_refund("re_2", "pi_1", 500, "succeeded", 7),
        stripe_charge_refunded("pi_1", 1_500, 7),
        // Late.
        stripe_charge_refunded("pi_1", 1_000, 5),
        // A shop that subscribes to charges only.
        stripe_session("cs_2", "pi_2"),
        stripe_charge_refunded("pi_2", 250, 5),
        stripe_charge_refunded("pi_2", 750, 6),
    ];
    let mut consumer = app.consumer("stripe").await;
    app.publish_all(&events).await;
    consumer.drain(9).await;
    let mut outcomes = ["applied"; 9];
    outcomes[5] = "stale";
    app.assert_outcomes(&events, &outcomes).await;
    let query =
        "select string_agg(concat_ws(' ', order_id, refunded), ', ' order by 1) from orders";
    assert_eq!(app.text(query).await, "cs_1 15.00, cs_2 7.50");
    app.assert_conserved(9).await;
}

#[tokio::test]
async fn refund_failing_later_is_subtracted() {
    let app = TestApp::with(&[STRIPE], |_| ()).await;
    let events = [
        stripe_session("cs_1", "pi_1"),
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
        stripe_refund("re_1", "pi_1", 1_000, "failed", 9),
        // Late, with the second in which it failed.
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 7),
        stripe_refund("re_1", "pi_1", 1_000, "pending", 9),
    ];
    let mut consumer = app.consumer("stripe").await;
    app.publish_all(&events).await;
    consumer.drain(5).await;
    app.assert_outcomes(&events, &["applied", "applied", "applied", "stale", "stale"]).await;
    assert_eq!(app.text("select refunded::text from orders").await, "0");
    app.assert_conserved(5).await;
}
