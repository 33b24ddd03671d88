//! One bad message never costs another one anything: the poison alone is
//! dead, with everything a person needs to know, and the rest commits.

use serde_json::Value;

use crate::support::{
    ERP, Rig, SHOP,
    broker::long,
    erp_order,
    events::{again, shop_body},
    shop_order,
};

#[tokio::test]
async fn an_unmappable_event_in_a_batch_is_dead_alone() {
    let rig = Rig::new().await;
    let mut poison = shop_order(2, 1, "20.00");
    poison.body = r##"{"id": 2, "name": "#2", "currency": "EUR"}"##.into();
    let mut garbage = shop_order(4, 1, "1.00");
    garbage.body = b"\xff\x00 not json".as_slice().into();
    let events =
        [shop_order(1, 1, "10.00"), poison.clone(), garbage.clone(), shop_order(3, 1, "3.00")];
    rig.send(&events).await;
    assert_eq!(rig.lane("shop").await.step().await, 4);
    rig.archive(2).await;
    rig.assert_fates(&events, &["applied", "dead", "dead", "applied"]).await;

    let letters = letters(&rig).await;
    let letter = &letters[&poison.receipt_id.to_string()];
    assert_eq!(letter["reason"], "missing_field");
    assert_eq!(letter["business_key"], "#2");
    assert_eq!(letter["state"], "open");
    assert_eq!(letter["attempts"], 1);
    assert_eq!(letter["event_key"], poison.key.as_str());
    assert!(letter["error"].as_str().unwrap().contains("total_price"), "{letter}");
    assert_eq!(letter["headers"]["headers"]["x-tallyhook-tenant"], "demo.myshopify.com");
    assert_eq!(letter["headers"]["routing_key"], "shop");
    let letter = &letters[&garbage.receipt_id.to_string()];
    assert_eq!(letter["reason"], "invalid_json");
    let kept = "select count(*) from dead_letters join receipts using (receipt_id, payload)";
    assert_eq!(rig.count(kept).await, 2, "the payload is kept to the byte");
    let exact =
        sqlx::query_scalar::<_, Vec<u8>>("select payload from dead_letters where receipt_id = $1")
            .bind(garbage.receipt_id)
            .fetch_one(&rig.db)
            .await
            .unwrap();
    assert_eq!(exact, garbage.body);
    rig.assert_conserved(4).await;
}

#[tokio::test]
async fn rows_that_the_database_refuses_are_dead_alone() {
    let rig = Rig::new().await;
    rig.execute("alter table orders add constraint not_seven check (order_id <> '7')").await;
    rig.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             if new.order_id = '11' then raise division_by_zero; end if; return new; end $$;
         create trigger refuse before insert on orders for each row execute function refuse()",
    )
    .await;
    let events: Vec<_> = (1..=16).map(|order| shop_order(order, 1, "1.00")).collect();
    rig.send(&events).await;
    assert_eq!(rig.lane("shop").await.step().await, 16);
    rig.archive(2).await;
    let fates: Vec<&str> =
        (1..=16).map(|order| if matches!(order, 7 | 11) { "dead" } else { "applied" }).collect();
    rig.assert_fates(&events, &fates).await;
    let letters = letters(&rig).await;
    let seven = &letters[&events[6].receipt_id.to_string()];
    assert_eq!(seven["reason"], "constraint_violation");
    assert_eq!(seven["business_key"], "#7");
    assert!(seven["error"].as_str().unwrap().contains("not_seven"), "{seven}");
    assert_eq!(letters[&events[10].receipt_id.to_string()]["reason"], "invalid_value");
    assert_eq!(rig.count("select count(*) from orders").await, 14);
    // Poison leaves no claim behind: it can be replayed once it is mended.
    assert_eq!(rig.count("select count(*) from inbox").await, 14);
    rig.assert_conserved(16).await;
}

#[tokio::test]
async fn a_batch_that_is_all_poison_is_all_dead() {
    let rig = Rig::new().await;
    rig.execute("alter table orders add constraint none check (order_id = '')").await;
    let events: Vec<_> = (1..=5).map(|order| shop_order(order, 1, "1.00")).collect();
    rig.send(&events).await;
    rig.lane("shop").await.settle(5).await;
    rig.archive(5).await;
    assert_eq!(rig.sums().await.dead, 5);
    rig.assert_conserved(5).await;
}

#[tokio::test]
async fn the_same_key_with_another_body_is_a_conflict_and_the_first_stays() {
    let rig = Rig::new().await;
    let first = shop_order(1, 1, "10.00");
    let mut other = again(&first);
    other.body = shop_body(1, 2, "99.00").into();
    let mut third = again(&first);
    third.body = shop_body(1, 3, "98.00").into();
    let events = [first.clone(), other.clone(), third.clone()];
    let mut lane = rig.lane("shop").await;
    // In the batch of the first, and after it.
    rig.send(&events[..2]).await;
    lane.settle(2).await;
    rig.send(&events[2..]).await;
    lane.step().await;
    rig.archive(2).await;
    rig.assert_fates(&events, &["applied", "dead", "dead"]).await;
    let conflicts = "select count(*) from dead_letters where reason = 'conflicting_duplicate'
                     and business_key = '#1'";
    assert_eq!(rig.count(conflicts).await, 2);
    assert_eq!(rig.text("select total::text from orders").await, "10.00");
    rig.assert_conserved(3).await;
}

#[tokio::test]
async fn if_the_first_of_a_key_is_poison_the_second_is_not_its_duplicate() {
    let rig = Rig::new().await;
    rig.execute("alter table orders add constraint no_ten check (total <> 10)").await;
    let bad = shop_order(1, 1, "10.00");
    let mut good = again(&bad);
    good.body = shop_body(1, 1, "11.00").into();
    let events = [bad, good];
    rig.send(&events).await;
    rig.lane("shop").await.settle(2).await;
    rig.archive(1).await;
    rig.assert_fates(&events, &["dead", "applied"]).await;
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn what_does_not_fit_an_index_is_dead_at_once() {
    let rig = Rig::with(&[ERP], |_| ()).await;
    let noise = |length: usize| -> String {
        std::iter::repeat_with(|| char::from(rand::random_range(b'a'..=b'z')))
            .take(length)
            .collect()
    };
    // Each is short enough for a text; together they are too long for the key.
    let mut long_order = erp_order(&noise(2000), 1, "1.00");
    long_order.tenant = noise(2000);
    let events = [erp_order("1", 1, "1.00"), long_order];
    rig.send(&events).await;
    rig.lane("erp").await.settle(2).await;
    rig.archive(1).await;
    rig.assert_fates(&events, &["applied", "dead"]).await;
    assert_eq!(rig.text("select reason from dead_letters").await, "invalid_value");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_header_that_no_row_can_hold_does_not_stop_the_archiver() {
    let rig = Rig::with(&[SHOP], |_| ()).await;
    let noise: String = std::iter::repeat_with(|| char::from(rand::random_range(b'!'..=b'~')))
        .take(20_000)
        .collect();
    // Nobody but us writes this header; a foreign producer can all the same.
    let headers = [("x-tallyhook-business-key", long(&noise)), ("x-odd", long("a\0b"))];
    rig.publish_foreign("shop", None, &headers, b"{}").await;
    rig.lane("shop").await.step().await;
    rig.archive(1).await;
    assert_eq!(rig.text("select reason from dead_letters").await, "missing_field");
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn an_attempt_that_cannot_be_counted_on_does_not_stop_the_worker() {
    let rig = Rig::new().await;
    rig.execute(
        "create function refuse() returns trigger language plpgsql as $$ begin
             raise 'no'; end $$;
         create trigger refuse before insert on orders for each row execute function refuse()",
    )
    .await;
    let headers = [("x-tallyhook-attempt", lapin::types::AMQPValue::LongUInt(u32::MAX))];
    let mut order = shop_order(1, 1, "1.00");
    order.tenant.clear();
    // A topic is needed for the event to be mapped.
    order.attempt = u32::MAX;
    rig.send(std::slice::from_ref(&order)).await;
    rig.publish_foreign("shop", Some("2"), &headers, b"{}").await;
    rig.lane("shop").await.settle(2).await;
    rig.archive(1).await;
    rig.assert_fates(&[order], &["dead"]).await;
}

#[tokio::test]
async fn two_messages_under_one_receipt_are_two_messages() {
    let rig = Rig::new().await;
    let first = shop_order(1, 1, "1.00");
    let mut second = shop_order(2, 1, "2.00");
    // A producer that copied our headers from an example.
    second.receipt_id = first.receipt_id;
    rig.send(&[first, second]).await;
    assert_eq!(rig.lane("shop").await.step().await, 2);
    assert_eq!(rig.count("select count(*) from orders").await, 2);
}

/// Every letter as JSON, by receipt.
async fn letters(rig: &Rig) -> Value {
    let letters =
        "select jsonb_object_agg(receipt_id, to_jsonb(dead_letters))::text from dead_letters";
    serde_json::from_str(&rig.text(letters).await).unwrap()
}
