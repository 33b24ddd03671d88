//! A refund lowers what is left of an order once, however often and by
//! however many events it is told.

use tallyhook::{
    domain::{Envelope, SourceName},
    worker::lane::Lane,
};

use crate::support::{
    Rig,
    events::{
        again, shop_order_refunded, shop_refund, stripe_charge_refunded, stripe_refund,
        stripe_session,
    },
    shop_order,
};

const BACK: &str = "select concat_ws(' ', number, refunded) from orders";

#[tokio::test]
async fn refunds_add_up_and_none_counts_twice() {
    let rig = Rig::new().await;
    let first = shop_refund(1, 71, "10.00", "EUR");
    let events = [
        shop_order(1, 1, "100.00"),
        first.clone(),
        // The same event again; the same refund in another event; another one.
        again(&first),
        shop_refund(1, 71, "10.00", "EUR"),
        shop_refund(1, 72, "5.50", "EUR"),
    ];
    let mut lane = rig.lane("shop").await;
    rig.send(&events).await;
    lane.settle(5).await;
    rig.assert_fates(&events, &["applied", "applied", "duplicate", "applied", "applied"]).await;
    assert_eq!(rig.text(BACK).await, "#1 15.50");
    assert_eq!(rig.count("select count(*) from refunds").await, 2);
    rig.assert_conserved(5).await;
}

#[tokio::test]
async fn an_order_that_lists_its_refunds_is_not_lowered_again_by_them() {
    let rig = Rig::new().await;
    let mut lane = rig.lane("shop").await;
    // Told by the order first, by the refunds themselves first, and mixed.
    for (order, events) in [
        (1, [shop_order_refunded(1, 5, &["10.00"]), shop_refund(1, 71, "10.00", "EUR")]),
        (2, [shop_refund(2, 72, "10.00", "EUR"), shop_order_refunded(2, 5, &["10.00"])]),
        (3, [shop_order_refunded(3, 5, &["4.00", "6.00"]), shop_refund(3, 73, "4.00", "EUR")]),
    ] {
        rig.send(&events).await;
        lane.settle(2).await;
        rig.assert_fates(&events, &["applied", "applied"]).await;
        let told = format!("select refunded::text from orders where order_id = '{order}'");
        assert_eq!(rig.text(&told).await, "10.00", "order {order}");
    }
    rig.assert_conserved(6).await;
}

#[tokio::test]
async fn a_refund_before_its_order_waits_for_it() {
    let rig = Rig::new().await;
    let mut lane = rig.lane("shop").await;
    rig.send(&[shop_refund(1, 71, "10.00", "EUR")]).await;
    lane.settle(1).await;
    assert_eq!(
        rig.text("select concat_ws(' ', order_id, number, refunded) from orders").await,
        "1 10.00"
    );
    let order = shop_order(1, 1, "100.00");
    rig.send(std::slice::from_ref(&order)).await;
    lane.settle(1).await;
    rig.assert_fates(&[order], &["applied"]).await;
    assert_eq!(rig.text(BACK).await, "#1 10.00");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_refund_in_another_currency_is_on_record_and_not_added() {
    let rig = Rig::new().await;
    let mut lane = rig.lane("shop").await;
    let events = [
        shop_order(1, 1, "100.00"),
        shop_refund(1, 71, "10.00", "USD"),
        shop_refund(1, 72, "3.00", "EUR"),
    ];
    rig.send(&events).await;
    lane.settle(3).await;
    assert_eq!(rig.text(BACK).await, "#1 3.00");
    assert_eq!(rig.count("select count(*) from refunds").await, 2);
    rig.assert_conserved(3).await;
}

#[tokio::test]
async fn order_and_refunds_applied_at_the_same_time_miss_nothing() {
    let rig = Rig::with(&[crate::support::SHOP], |config| config.worker.batch_size = 3).await;
    let source: SourceName = "shop".parse().unwrap();
    let mut events: Vec<Envelope> = Vec::new();
    for order in 1..=20 {
        for refund in 0..4 {
            events.push(shop_refund(order, order * 10 + refund, "2.50", "EUR"));
        }
        events.insert(events.len() - 2, shop_order(order, 1, "100.00"));
    }
    rig.send(&events).await;
    let mut lanes = tokio::task::JoinSet::new();
    let stop = tokio_util::sync::CancellationToken::new();
    for _ in 0..4 {
        let lane = Lane::open(rig.tools.clone(), source.clone(), &rig.link).await.unwrap();
        lanes.spawn(lane.run(stop.clone()));
    }
    let settled = format!("select count(*) from receipts having count(*) = {}", events.len());
    for _ in 0..200 {
        let done: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(settled.clone()))
            .fetch_optional(&rig.db)
            .await
            .unwrap();
        if done.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    stop.cancel();
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(
        rig.count("select count(*) from orders where refunded = 10 and total = 100").await,
        20
    );
    rig.assert_conserved(100).await;
}

const STRIPE: &str = "[sources.stripe]\nkind = 'stripe'\nsecrets = ['env:SECRET']\n";

#[tokio::test]
async fn a_refund_finds_its_order_by_the_payment_whichever_comes_first() {
    for at_once in [true, false] {
        let rig = Rig::with(&[STRIPE], |_| ()).await;
        let events = [
            stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
            stripe_session("cs_1", "pi_1"),
            stripe_session("cs_2", "pi_2"),
            stripe_refund("re_2", "pi_2", 250, "succeeded", 5),
            stripe_refund("re_3", "pi_2", 250, "pending", 5),
            stripe_refund("re_4", "pi_of_nobody", 999, "succeeded", 5),
        ];
        let mut lane = rig.lane("stripe").await;
        if at_once {
            rig.send(&events).await;
            lane.settle(events.len()).await;
        } else {
            for event in &events {
                rig.send(std::slice::from_ref(event)).await;
                lane.step().await;
            }
        }
        rig.assert_fates(&events, &["applied"; 6]).await;
        let told = "select string_agg(concat_ws(' ', order_id, total, refunded), ', ' order by 1)
                    from orders";
        assert_eq!(rig.text(told).await, "cs_1 100.00 10.00, cs_2 100.00 2.50", "{at_once}");
        rig.assert_conserved(6).await;
    }
}

#[tokio::test]
async fn what_a_charge_says_of_all_its_refunds_is_not_added_to_them() {
    let rig = Rig::with(&[STRIPE], |_| ()).await;
    let events = [
        stripe_session("cs_1", "pi_1"),
        stripe_charge_refunded("pi_1", 1_000, 5),
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
        stripe_refund("re_2", "pi_1", 500, "succeeded", 7),
        stripe_charge_refunded("pi_1", 1_500, 7),
        // Told late.
        stripe_charge_refunded("pi_1", 1_000, 5),
        // Whoever subscribes to charges alone.
        stripe_session("cs_2", "pi_2"),
        stripe_charge_refunded("pi_2", 250, 5),
        stripe_charge_refunded("pi_2", 750, 6),
    ];
    let mut lane = rig.lane("stripe").await;
    rig.send(&events).await;
    lane.settle(9).await;
    let mut fates = ["applied"; 9];
    fates[5] = "stale";
    rig.assert_fates(&events, &fates).await;
    let told = "select string_agg(concat_ws(' ', order_id, refunded), ', ' order by 1) from orders";
    assert_eq!(rig.text(told).await, "cs_1 15.00, cs_2 7.50");
    rig.assert_conserved(9).await;
}

#[tokio::test]
async fn a_refund_that_fails_in_the_end_is_taken_back() {
    let rig = Rig::with(&[STRIPE], |_| ()).await;
    let events = [
        stripe_session("cs_1", "pi_1"),
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 5),
        stripe_refund("re_1", "pi_1", 1_000, "failed", 9),
        // Told late, and of the second in which it failed.
        stripe_refund("re_1", "pi_1", 1_000, "succeeded", 7),
        stripe_refund("re_1", "pi_1", 1_000, "pending", 9),
    ];
    let mut lane = rig.lane("stripe").await;
    rig.send(&events).await;
    lane.settle(5).await;
    rig.assert_fates(&events, &["applied", "applied", "applied", "stale", "stale"]).await;
    assert_eq!(rig.text("select refunded::text from orders").await, "0");
    rig.assert_conserved(5).await;
}
