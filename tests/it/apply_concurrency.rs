//! Batches that change the same documents at the same time do not deadlock, and events in any order
//! add up to the same rows.

use std::collections::HashMap;

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::StdRng,
    seq::{IndexedRandom as _, SliceRandom as _},
};

use tallyhook::{
    domain::{
        Change, Envelope, MappedEvent, Money, Order, OrderStatus, OrderUpdate, Refund,
        RefundStatus, RefundTarget, SourceName,
    },
    worker::{Outbox, apply, message::Message},
};

use crate::support::{
    ERP, TestApp,
    events::{erp_invoice, shop_refund},
    random::seeded_rng,
    shop_order,
};

const BACK: &str = "select concat_ws(' ', number, refunded) from orders";

#[tokio::test]
async fn apply_crossed_orders_and_refunds_do_not_deadlock() {
    let app = TestApp::new().await;
    let source: SourceName = "shop".parse().unwrap();
    let shop = &app.context.sources[&source];
    let to_message = |envelope: Envelope| {
        let mapped = shop.map(&envelope).unwrap();
        Message::from_envelope(envelope, mapped)
    };
    for round in 0..20 {
        let (a, b) = (2 * round + 1, 2 * round + 2);
        let first =
            [to_message(shop_order(a, 1, "9.00")), to_message(shop_refund(b, b, "1.00", "EUR"))];
        let second =
            [to_message(shop_order(b, 1, "9.00")), to_message(shop_refund(a, a, "1.00", "EUR"))];
        let apply = |messages| {
            apply::apply_batch(
                &app.context.store,
                &source,
                shop.conflict_policy(),
                &app.context.outbox,
                messages,
            )
        };
        let (first, second) = tokio::join!(apply(&first), apply(&second));
        first.unwrap();
        second.unwrap();
    }
    assert_eq!(app.count("select count(*) from orders where refunded = 1 and total = 9").await, 40);
    app.assert_conserved(80).await;
}

#[tokio::test]
async fn refund_stale_before_its_order_keeps_the_applied_amount() {
    let app = TestApp::new().await;
    let older = shop_refund(1, 71, "10.00", "EUR");
    let mut newer = shop_refund(1, 71, "12.00", "EUR");
    let text = String::from_utf8(newer.body.to_vec()).unwrap();
    newer.body = text.replace("00:01:00", "00:05:00").into();
    let events = [newer, older];
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(2).await;
    app.assert_outcomes(&events, &["applied", "stale"]).await;
    assert_eq!(app.text(BACK).await, "12.00");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn refund_before_its_order_is_recomputed_in_the_order_currency() {
    let app = TestApp::new().await;
    let mut consumer = app.consumer("shop").await;
    for event in [
        shop_refund(1, 71, "10.00", "USD"),
        shop_refund(1, 72, "3.00", "EUR"),
        shop_order(1, 1, "100.00"),
    ] {
        app.publish_all(&[event]).await;
        consumer.drain(1).await;
    }
    assert_eq!(app.text(BACK).await, "#1 3.00");
    app.assert_conserved(3).await;
}

/// An invoice with the platform's own document id.
fn document(id: &str, number: &str, version: u32) -> Envelope {
    let mut envelope = erp_invoice(number, version, "2.00");
    let text = String::from_utf8(envelope.body.to_vec()).unwrap();
    envelope.body =
        text.replacen("{\"data\":{", &format!("{{\"data\":{{\"id\":\"{id}\","), 1).into();
    envelope
}

#[tokio::test]
async fn invoice_documents_sharing_a_number_stay_separate() {
    let source = format!("{ERP}document_id = '/data/id'\n");
    let app = TestApp::with(&[&source], |_| ()).await;
    let mut consumer = app.consumer("erp").await;
    // One voided and replaced, and two that swap numbers.
    let events = [document("d1", "I-1", 1), document("d2", "I-1", 2), document("d3", "I-3", 1)];
    app.publish_all(&events).await;
    consumer.drain(3).await;
    let swapped = [document("d2", "I-3", 3), document("d3", "I-1", 3)];
    app.publish_all(&swapped).await;
    consumer.drain(2).await;
    app.assert_outcomes(&events, &["applied"; 3]).await;
    app.assert_outcomes(&swapped, &["applied"; 2]).await;
    let numbers = "select string_agg(concat_ws(' ', document_id, invoice_number), ', '
                       order by document_id) from invoices";
    assert_eq!(app.text(numbers).await, "d1 I-1, d2 I-3, d3 I-1");
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn refund_on_unanalyzed_tables_stays_within_the_statement_timeout() {
    let app = TestApp::new().await;
    // As in the first minute of a new database: without statistics, the planner sees no difference
    // between indexes that begin with the same columns.
    app.execute(
        "insert into orders (source, tenant, order_id, first_receipt, last_receipt)
         select 'shop', 'demo.myshopify.com', g::text, gen_random_uuid(), gen_random_uuid()
         from generate_series(1, 10000) g;
         insert into payments
         select 'shop', 'demo.myshopify.com', 'p' || g, g::text from generate_series(1, 10000) g;
         insert into refunds (source, tenant, refund_id, order_id, status, platform_status,
             currency, amount, version, first_receipt, last_receipt)
         select 'shop', 'demo.myshopify.com', 'r' || g, g::text, 'succeeded', '', 'EUR', 1, now(),
             gen_random_uuid(), gen_random_uuid()
         from generate_series(1, 10000) g",
    )
    .await;
    let events: Vec<_> = (1..=300).map(|g| shop_refund(g, g, "1.50", "EUR")).collect();
    app.publish_all(&events).await;
    // A plan that reads the whole shop for each of them would exceed the statement timeout.
    app.consumer("shop").await.drain(300).await;
    assert_eq!(app.count("select count(*) from orders where refunded = 2.5").await, 300);
}

/// An order's state as of this second, with the payment it names then.
fn paid(order: u64, second: i64, payment: String) -> Change {
    let total = Money { amount: 100.into(), currency: "EUR".parse().unwrap() };
    Change::Order(Box::new(OrderUpdate::State {
        order_id: order.to_string(),
        version: moment(second),
        order: Box::new(Order {
            number: order.to_string(),
            status: OrderStatus::Paid,
            platform_status: String::new(),
            total,
            refunded: 0.into(),
            customer_ref: None,
            payment_ref: Some(payment),
            sequence: 0,
            placed_at: None,
            lines: Vec::new(),
        }),
        restored: false,
    }))
}

fn moment(second: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(1_700_000_000 + second).unwrap()
}

#[tokio::test]
async fn refund_model_in_random_order_matches_the_expected_sums() {
    let app = TestApp::new().await;
    let mut rng = seeded_rng();
    let mut expected: HashMap<String, u64> = HashMap::new();
    let mut changes = Vec::new();
    for order in 1..=12 {
        // The order is paid a second time, and each payment is refunded.
        changes.extend([paid(order, 1, format!("p{order}")), paid(order, 2, format!("q{order}"))]);
        let back = expected.entry(order.to_string()).or_default();
        for (number, refunded) in [
            RefundTarget::Order(order.to_string()),
            RefundTarget::Payment(format!("p{order}")),
            RefundTarget::Payment(format!("q{order}")),
            RefundTarget::Payment(format!("p{order}")),
        ]
        .into_iter()
        .enumerate()
        {
            let mut last = 0;
            for second in 1..=3 {
                let status = *RefundStatus::ALL.choose(&mut rng).unwrap();
                let amount = rng.random_range(1..=9_u64);
                last = if status == RefundStatus::Succeeded { amount } else { 0 };
                changes.push(Change::Refund(Box::new(Refund {
                    refund_id: format!("{order}-{number}"),
                    target: refunded.clone(),
                    status,
                    platform_status: String::new(),
                    amount: Money { amount: amount.into(), currency: "EUR".parse().unwrap() },
                    cumulative: false,
                    version: moment(second),
                })));
            }
            *back += last;
        }
    }
    changes.shuffle(&mut rng);
    let messages: Vec<Message> = changes
        .into_iter()
        .map(|change| Message::from_envelope(shop_order(1, 1, "1.00"), MappedEvent::Change(change)))
        .collect();

    let source: SourceName = "shop".parse().unwrap();
    let rules = app.context.sources[&source].conflict_policy();
    let mut workers = tokio::task::JoinSet::new();
    for part in messages.chunks(messages.len().div_ceil(4)) {
        let (store, source, part) = (app.context.store.clone(), source.clone(), part.to_vec());
        // A generator per worker, so that the batches do not depend on the interleaving.
        let mut rng = StdRng::seed_from_u64(rng.random());
        workers.spawn(async move {
            let mut rest = part.as_slice();
            while !rest.is_empty() {
                let size = rng.random_range(1..=7).min(rest.len());
                let batch = rest.split_off(..size).unwrap();
                apply::apply_batch(&store, &source, rules, &Outbox::default(), batch)
                    .await
                    .unwrap();
            }
        });
    }
    workers.join_all().await;

    let actual: Vec<(String, String)> =
        sqlx::query_as("select order_id, trim_scale(refunded)::text from orders")
            .fetch_all(&app.db)
            .await
            .unwrap();
    let actual: HashMap<String, u64> =
        actual.into_iter().map(|(order, back)| (order, back.parse().unwrap())).collect();
    assert_eq!(actual, expected);
    app.assert_conserved(i64::try_from(messages.len()).unwrap()).await;
}
