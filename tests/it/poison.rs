//! A poison message is dead-lettered alone, with the data that an operator needs; the rest of the
//! batch commits.

use lapin::types::AMQPValue;
use rand::RngExt as _;
use serde_json::Value;

use crate::support::{
    ERP, SHOP, TestApp,
    amqp::long,
    erp_order,
    events::{again, shop_body},
    random::seeded_rng,
    shop_order,
};

#[tokio::test]
async fn poison_unmappable_event_is_dead_lettered_alone() {
    let app = TestApp::new().await;
    let mut poison = shop_order(2, 1, "20.00");
    poison.body = r##"{"id": 2, "name": "#2", "currency": "EUR"}"##.into();
    let mut garbage = shop_order(4, 1, "1.00");
    garbage.body = b"\xff\x00 not json".as_slice().into();
    let events =
        [shop_order(1, 1, "10.00"), poison.clone(), garbage.clone(), shop_order(3, 1, "3.00")];
    app.publish_all(&events).await;
    assert_eq!(app.consumer("shop").await.step().await, 4);
    app.archive_dead_letters(2).await;
    app.assert_outcomes(&events, &["applied", "dead", "dead", "applied"]).await;

    let dead_letters = dead_letters(&app).await;
    let dead_letter = &dead_letters[&poison.receipt_id.to_string()];
    assert_eq!(dead_letter["reason"], "missing_field");
    assert_eq!(dead_letter["business_key"], "#2");
    assert_eq!(dead_letter["state"], "open");
    assert_eq!(dead_letter["attempts"], 1);
    assert_eq!(dead_letter["event_key"], poison.key.as_str());
    assert!(dead_letter["error"].as_str().unwrap().contains("total_price"), "{dead_letter}");
    assert_eq!(dead_letter["headers"]["headers"]["x-tallyhook-tenant"], "demo.myshopify.com");
    assert_eq!(dead_letter["headers"]["routing_key"], "shop");
    let dead_letter = &dead_letters[&garbage.receipt_id.to_string()];
    assert_eq!(dead_letter["reason"], "invalid_json");
    let unchanged = "select count(*) from dead_letters join receipts using (receipt_id, payload)";
    assert_eq!(app.count(unchanged).await, 2, "the payload is stored unchanged");
    let exact =
        sqlx::query_scalar::<_, Vec<u8>>("select payload from dead_letters where receipt_id = $1")
            .bind(garbage.receipt_id)
            .fetch_one(&app.db)
            .await
            .unwrap();
    assert_eq!(exact, garbage.body);
    app.assert_conserved(4).await;
}

#[tokio::test]
async fn poison_rejected_rows_are_dead_lettered_alone() {
    let app = TestApp::new().await;
    app.execute("alter table orders add constraint not_seven check (order_id <> '7')").await;
    app.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             if new.order_id = '11' then raise division_by_zero; end if; return new; end $$;
         create trigger refuse before insert on orders for each row execute function refuse()",
    )
    .await;
    let events: Vec<_> = (1..=16).map(|order| shop_order(order, 1, "1.00")).collect();
    app.publish_all(&events).await;
    assert_eq!(app.consumer("shop").await.step().await, 16);
    app.archive_dead_letters(2).await;
    let outcomes: Vec<&str> =
        (1..=16).map(|order| if matches!(order, 7 | 11) { "dead" } else { "applied" }).collect();
    app.assert_outcomes(&events, &outcomes).await;
    let dead_letters = dead_letters(&app).await;
    let seven = &dead_letters[&events[6].receipt_id.to_string()];
    assert_eq!(seven["reason"], "constraint_violation");
    assert_eq!(seven["business_key"], "#7");
    assert!(seven["error"].as_str().unwrap().contains("not_seven"), "{seven}");
    assert_eq!(dead_letters[&events[10].receipt_id.to_string()]["reason"], "invalid_value");
    assert_eq!(app.count("select count(*) from orders").await, 14);
    // Poison leaves no inbox key, so it can be replayed later.
    assert_eq!(app.count("select count(*) from inbox").await, 14);
    app.assert_conserved(16).await;
}

#[tokio::test]
async fn poison_whole_batch_is_dead_lettered() {
    let app = TestApp::new().await;
    app.execute("alter table orders add constraint none check (order_id = '')").await;
    let events: Vec<_> = (1..=5).map(|order| shop_order(order, 1, "1.00")).collect();
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(5).await;
    app.archive_dead_letters(5).await;
    assert_eq!(app.totals().await.dead, 5);
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn poison_same_key_with_other_body_is_a_conflict() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "10.00");
    let mut other = again(&first);
    other.body = shop_body(1, 2, "99.00").into();
    let mut third = again(&first);
    third.body = shop_body(1, 3, "98.00").into();
    let events = [first.clone(), other.clone(), third.clone()];
    let mut consumer = app.consumer("shop").await;
    // One in the batch of the first, one in a later batch.
    app.publish_all(&events[..2]).await;
    consumer.drain(2).await;
    app.publish_all(&events[2..]).await;
    consumer.step().await;
    app.archive_dead_letters(2).await;
    app.assert_outcomes(&events, &["applied", "dead", "dead"]).await;
    let conflicts = "select count(*) from dead_letters where reason = 'conflicting_duplicate'
                     and business_key = '#1'";
    assert_eq!(app.count(conflicts).await, 2);
    assert_eq!(app.text("select total::text from orders").await, "10.00");
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn poison_first_of_a_key_makes_no_duplicate() {
    let app = TestApp::new().await;
    app.execute("alter table orders add constraint no_ten check (total <> 10)").await;
    let bad = shop_order(1, 1, "10.00");
    let mut good = again(&bad);
    good.body = shop_body(1, 1, "11.00").into();
    let events = [bad, good];
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(2).await;
    app.archive_dead_letters(1).await;
    app.assert_outcomes(&events, &["dead", "applied"]).await;
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn poison_oversized_index_entry_is_dead_lettered() {
    let app = TestApp::with(&[ERP], |_| ()).await;
    let mut rng = seeded_rng();
    let mut noise = |length: usize| -> String {
        (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
    };
    // Each fits the column; together they are too long for the index.
    let mut long_order = erp_order(&noise(2000), 1, "1.00");
    long_order.tenant = noise(2000);
    let events = [erp_order("1", 1, "1.00"), long_order];
    app.publish_all(&events).await;
    app.consumer("erp").await.drain(2).await;
    app.archive_dead_letters(1).await;
    app.assert_outcomes(&events, &["applied", "dead"]).await;
    assert_eq!(app.text("select reason from dead_letters").await, "invalid_value");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn poison_unstorable_header_does_not_stop_the_archiver() {
    let app = TestApp::with(&[SHOP], |_| ()).await;
    let mut rng = seeded_rng();
    let noise: String = (0..20_000).map(|_| char::from(rng.random_range(b'!'..=b'~'))).collect();
    // Only we write this header, but a foreign producer can.
    let headers = [("x-tallyhook-business-key", long(&noise)), ("x-odd", long("a\0b"))];
    let other = shop_order(1, 1, "1.00");
    app.publish_foreign("shop", None, &headers, b"{\"a\": 1}").await;
    app.publish_all(std::slice::from_ref(&other)).await;
    app.consumer("shop").await.drain(2).await;
    app.archive_dead_letters(1).await;
    let row = "select concat_ws(' ', source, reason, state, convert_from(payload, 'UTF8'),
                   headers->'headers' ? 'x-odd') from dead_letters";
    assert_eq!(app.text(row).await, "shop missing_field open {\"a\": 1} t");
    app.assert_outcomes(&[other], &["applied"]).await;
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn poison_maximum_attempt_header_does_not_stop_the_worker() {
    let app = TestApp::new().await;
    app.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             raise 'no'; end $$;
         create trigger refuse before insert on orders for each row execute function refuse()",
    )
    .await;
    let mut order = shop_order(1, 1, "1.00");
    order.tenant.clear();
    order.failed_attempts = u32::MAX;
    app.publish_all(std::slice::from_ref(&order)).await;
    // A foreign message without a topic is ignored. A number that is no attempt is invalid.
    let maximum = [("x-tallyhook-attempt", AMQPValue::LongUInt(u32::MAX))];
    app.publish_foreign("shop", Some("foreign"), &maximum, b"{}").await;
    let too_large = [("x-tallyhook-attempt", AMQPValue::LongLongInt(i64::MAX))];
    app.publish_foreign("shop", Some("impossible"), &too_large, b"{}").await;
    app.consumer("shop").await.drain(3).await;
    app.archive_dead_letters(2).await;
    app.assert_outcomes(&[order], &["dead"]).await;
    let reasons = "select string_agg(concat_ws(' ', reason, state, attempts > 0), ', '
                       order by reason) from dead_letters";
    assert_eq!(app.text(reasons).await, "attempts_exhausted open t, invalid_value open t");
    let foreign = "select concat_ws(' ', outcome, attempts > 0) from receipts
                   where event_key like '%foreign'";
    assert_eq!(app.text(foreign).await, "ignored t");
    app.assert_conserved(3).await;
}

#[tokio::test]
async fn poison_shared_receipt_id_applies_both_messages() {
    let app = TestApp::new().await;
    let first = shop_order(1, 1, "1.00");
    let mut second = shop_order(2, 1, "2.00");
    // A foreign producer that copied our headers.
    second.receipt_id = first.receipt_id;
    app.publish_all(&[first, second]).await;
    assert_eq!(app.consumer("shop").await.step().await, 2);
    assert_eq!(app.count("select count(*) from orders").await, 2);
}

/// All dead letters as JSON, by receipt id.
async fn dead_letters(app: &TestApp) -> Value {
    let dead_letters =
        "select jsonb_object_agg(receipt_id, to_jsonb(dead_letters))::text from dead_letters";
    serde_json::from_str(&app.text(dead_letters).await).unwrap()
}
