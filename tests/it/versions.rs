//! An older event never overwrites a newer state (P4).

use crate::support::{
    ERP, Rig, WOO, erp_invoice, erp_order,
    events::{shop_deletion, woo},
    shop_order,
};

const STATE: &str =
    "select concat_ws(' ', total, to_char(version, 'MI'), deleted_at is not null) from orders";

#[tokio::test]
async fn an_older_version_after_a_newer_one_is_stale() {
    let rig = Rig::new().await;
    let events = [shop_order(1, 5, "50.00"), shop_order(1, 4, "40.00")];
    let mut lane = rig.lane("shop").await;
    for event in &events {
        rig.send(std::slice::from_ref(event)).await;
        lane.step().await;
    }
    rig.assert_fates(&events, &["applied", "stale"]).await;
    assert_eq!(rig.text(STATE).await, "50.00 05 f");
    assert_eq!(
        rig.text("select last_receipt::text from orders").await,
        events[0].receipt_id.to_string()
    );
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn of_equal_versions_the_later_message_wins() {
    let rig = Rig::new().await;
    let events = [shop_order(1, 5, "50.00"), shop_order(1, 5, "51.00")];
    let mut lane = rig.lane("shop").await;
    for event in &events {
        rig.send(std::slice::from_ref(event)).await;
        lane.step().await;
    }
    rig.assert_fates(&events, &["applied", "applied"]).await;
    assert_eq!(rig.text(STATE).await, "51.00 05 f");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn several_events_of_one_order_in_one_batch_are_seen_in_order() {
    let rig = Rig::with(&[ERP], |_| ()).await;
    let rising = [1, 2, 3].map(|version| erp_order("up", version, &format!("{version}.00")));
    let falling = [3, 2, 1].map(|version| erp_order("down", version, &format!("{version}.00")));
    let invoices = [3, 1, 4].map(|version| erp_invoice("I", version, &format!("{version}.00")));
    let mut lane = rig.lane("erp").await;
    rig.send(&[&rising[..], &falling, &invoices].concat()).await;
    lane.settle(9).await;
    rig.assert_fates(&rising, &["applied", "applied", "applied"]).await;
    rig.assert_fates(&falling, &["applied", "stale", "stale"]).await;
    rig.assert_fates(&invoices, &["applied", "stale", "applied"]).await;
    assert_eq!(rig.count("select count(*) from orders where total = 3").await, 2);
    assert_eq!(rig.count("select count(*) from invoices where total = 4").await, 1);
    rig.assert_conserved(9).await;
}

#[tokio::test]
async fn a_deleted_order_is_not_brought_back_by_an_older_update() {
    let rig = Rig::new().await;
    let events = [
        shop_order(1, 1, "10.00"),
        shop_deletion(1, 5),
        shop_order(1, 4, "40.00"),
        shop_deletion(1, 3),
    ];
    let mut lane = rig.lane("shop").await;
    rig.send(&events).await;
    lane.settle(4).await;
    rig.assert_fates(&events, &["applied", "applied", "stale", "stale"]).await;
    assert_eq!(rig.text(STATE).await, "10.00 01 t");
    rig.assert_conserved(4).await;
}

#[tokio::test]
async fn a_deletion_older_than_the_state_is_stale() {
    let rig = Rig::new().await;
    let events = [shop_order(1, 6, "60.00"), shop_deletion(1, 5)];
    rig.send(&events).await;
    rig.lane("shop").await.settle(2).await;
    rig.assert_fates(&events, &["applied", "stale"]).await;
    assert_eq!(rig.text(STATE).await, "60.00 06 f");
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_deletion_before_the_creation_stands() {
    let rig = Rig::new().await;
    let events = [shop_deletion(1, 5), shop_order(1, 4, "40.00")];
    let mut lane = rig.lane("shop").await;
    for event in &events {
        rig.send(std::slice::from_ref(event)).await;
        lane.step().await;
    }
    rig.assert_fates(&events, &["applied", "stale"]).await;
    let tombstone = "select count(*) from orders where deleted_at is not null and number is null";
    assert_eq!(rig.count(tombstone).await, 1);
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn a_restored_order_is_back_though_its_version_is_older_than_its_deletion() {
    let rig = Rig::with(&[WOO], |_| ()).await;
    // A WooCommerce deletion carries no time, so ours is taken: far later
    // than any version of the order.
    let events = [
        woo("order.created", 1, 1),
        woo("order.deleted", 1, 0),
        woo("order.updated", 1, 2),
        woo("order.restored", 1, 2),
        woo("order.updated", 1, 1),
    ];
    let mut lane = rig.lane("woo").await;
    for event in &events {
        rig.send(std::slice::from_ref(event)).await;
        lane.step().await;
    }
    rig.assert_fates(&events, &["applied", "applied", "stale", "applied", "stale"]).await;
    let back = "select count(*) from orders where deleted_at is null and restored_at is not null";
    assert_eq!(rig.count(back).await, 1);
    rig.assert_conserved(5).await;
}

#[tokio::test]
async fn a_deletion_delivered_again_after_the_restoration_changes_nothing() {
    let rig = Rig::with(&[WOO], |_| ()).await;
    let deletion = woo("order.deleted", 1, 0);
    let events = [
        woo("order.created", 1, 1),
        deletion.clone(),
        woo("order.restored", 1, 2),
        crate::support::events::again(&deletion),
    ];
    rig.send(&events).await;
    rig.lane("woo").await.settle(4).await;
    rig.assert_fates(&events, &["applied", "applied", "applied", "duplicate"]).await;
    assert_eq!(rig.count("select count(*) from orders where deleted_at is null").await, 1);
    rig.assert_conserved(4).await;
}
