//! An older event never overwrites a newer state (P4).

use crate::support::{
    ERP, TestApp, WOO, erp_invoice, erp_order,
    events::{shop_deletion, woo},
    shop_order,
};

const STATE: &str =
    "select concat_ws(' ', total, to_char(version, 'MI'), deleted_at is not null) from orders";

#[tokio::test]
async fn stale_older_version_is_not_applied() {
    let app = TestApp::new().await;
    let events = [shop_order(1, 5, "50.00"), shop_order(1, 4, "40.00")];
    let mut consumer = app.consumer("shop").await;
    for event in &events {
        app.publish_all(std::slice::from_ref(event)).await;
        consumer.step().await;
    }
    app.assert_outcomes(&events, &["applied", "stale"]).await;
    assert_eq!(app.text(STATE).await, "50.00 05 f");
    assert_eq!(
        app.text("select last_receipt::text from orders").await,
        events[0].receipt_id.to_string()
    );
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn stale_check_equal_versions_apply_the_later_message() {
    let app = TestApp::new().await;
    let events = [shop_order(1, 5, "50.00"), shop_order(1, 5, "51.00")];
    let mut consumer = app.consumer("shop").await;
    for event in &events {
        app.publish_all(std::slice::from_ref(event)).await;
        consumer.step().await;
    }
    app.assert_outcomes(&events, &["applied", "applied"]).await;
    assert_eq!(app.text(STATE).await, "51.00 05 f");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn stale_check_applies_in_order_within_a_batch() {
    let app = TestApp::with(&[ERP], |_| ()).await;
    let rising = [1, 2, 3].map(|version| erp_order("up", version, &format!("{version}.00")));
    let falling = [3, 2, 1].map(|version| erp_order("down", version, &format!("{version}.00")));
    let invoices = [3, 1, 4].map(|version| erp_invoice("I", version, &format!("{version}.00")));
    let mut consumer = app.consumer("erp").await;
    app.publish_all(&[&rising[..], &falling, &invoices].concat()).await;
    consumer.drain(9).await;
    app.assert_outcomes(&rising, &["applied", "applied", "applied"]).await;
    app.assert_outcomes(&falling, &["applied", "stale", "stale"]).await;
    app.assert_outcomes(&invoices, &["applied", "stale", "applied"]).await;
    assert_eq!(app.count("select count(*) from orders where total = 3").await, 2);
    assert_eq!(app.count("select count(*) from invoices where total = 4").await, 1);
    app.assert_conserved(9).await;
}

#[tokio::test]
async fn stale_update_does_not_restore_a_deleted_order() {
    let app = TestApp::new().await;
    let events = [
        shop_order(1, 1, "10.00"),
        shop_deletion(1, 5),
        shop_order(1, 4, "40.00"),
        shop_deletion(1, 3),
    ];
    let mut consumer = app.consumer("shop").await;
    app.publish_all(&events).await;
    consumer.drain(4).await;
    app.assert_outcomes(&events, &["applied", "applied", "stale", "stale"]).await;
    assert_eq!(app.text(STATE).await, "10.00 01 t");
    app.assert_conserved(4).await;
}

#[tokio::test]
async fn stale_deletion_is_not_applied() {
    let app = TestApp::new().await;
    let events = [shop_order(1, 6, "60.00"), shop_deletion(1, 5)];
    app.publish_all(&events).await;
    app.consumer("shop").await.drain(2).await;
    app.assert_outcomes(&events, &["applied", "stale"]).await;
    assert_eq!(app.text(STATE).await, "60.00 06 f");
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn stale_creation_after_deletion_keeps_the_deletion() {
    let app = TestApp::new().await;
    let events = [shop_deletion(1, 5), shop_order(1, 4, "40.00")];
    let mut consumer = app.consumer("shop").await;
    for event in &events {
        app.publish_all(std::slice::from_ref(event)).await;
        consumer.step().await;
    }
    app.assert_outcomes(&events, &["applied", "stale"]).await;
    let tombstone = "select count(*) from orders where deleted_at is not null and number is null";
    assert_eq!(app.count(tombstone).await, 1);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn restoration_with_older_version_restores_the_order() {
    let app = TestApp::with(&[WOO], |_| ()).await;
    // A WooCommerce deletion has no timestamp, so the time of receipt is used: later than any version.
    let events = [
        woo("order.created", 1, 1),
        woo("order.deleted", 1, 0),
        woo("order.updated", 1, 2),
        woo("order.restored", 1, 2),
        woo("order.updated", 1, 1),
    ];
    let mut consumer = app.consumer("woo").await;
    for event in &events {
        app.publish_all(std::slice::from_ref(event)).await;
        consumer.step().await;
    }
    app.assert_outcomes(&events, &["applied", "applied", "stale", "applied", "stale"]).await;
    let back = "select count(*) from orders where deleted_at is null and restored_at is not null";
    assert_eq!(app.count(back).await, 1);
    app.assert_conserved(5).await;
}

#[tokio::test]
async fn restoration_then_redelivered_deletion_is_a_duplicate() {
    let app = TestApp::with(&[WOO], |_| ()).await;
    let deletion = woo("order.deleted", 1, 0);
    let events = [
        woo("order.created", 1, 1),
        deletion.clone(),
        woo("order.restored", 1, 2),
        crate::support::events::again(&deletion),
    ];
    app.publish_all(&events).await;
    app.consumer("woo").await.drain(4).await;
    app.assert_outcomes(&events, &["applied", "applied", "applied", "duplicate"]).await;
    assert_eq!(app.count("select count(*) from orders where deleted_at is null").await, 1);
    app.assert_conserved(4).await;
}
