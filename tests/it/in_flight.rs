//! Consumers of one process: messages that conflict with another consumer's batch wait, the others
//! are applied at once.

use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::timeout;

use crate::support::{
    TestApp,
    events::{again, shop_refund},
    shop_order,
};

#[tokio::test]
async fn in_flight_keys_block_only_conflicting_messages() {
    let app = TestApp::new().await;
    let (mut one, other) =
        (app.consumer("shop").await, app.consumer_on_own_connection("shop").await);
    let (link, other) = other;
    // Only the first consumer receives messages.
    link.close().await;
    let stands = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&stands)).await;
    one.drain(1).await;

    // The first batch blocks on a row lock of another session.
    let mut somebody = sqlx::PgConnection::connect(&app.config.database.url).await.unwrap();
    let mut holding = somebody.begin().await.unwrap();
    sqlx::query("select from orders for update").execute(&mut *holding).await.unwrap();
    let update = shop_order(1, 2, "2.00");
    app.publish_all(std::slice::from_ref(&update)).await;
    let first = timeout(Duration::from_secs(30), one.0.collect_batch()).await.unwrap().unwrap();

    // The second batch has a duplicate of it, a refund of the same order, and another order.
    let repeated = again(&update);
    let refund = shop_refund(1, 71, "0.50", "EUR");
    let free = shop_order(2, 1, "5.00");
    app.publish_all(&[repeated.clone(), refund.clone(), free.clone()]).await;
    let second = timeout(Duration::from_secs(30), one.0.collect_batch()).await.unwrap().unwrap();
    assert_eq!((first.deliveries.len(), second.deliveries.len()), (1, 3));

    let settled = async {
        let held = async {
            // The second batch begins once the first waits for the lock.
            let waits = "select count(*) from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()";
            while app.count(waits).await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let done = async {
                while app.outcome_of(&free).await.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                assert_eq!(app.outcome_of(&update).await, None, "nobody let go of its order");
                assert_eq!(app.outcome_of(&repeated).await, None, "it waits for the first one");
                assert_eq!(app.outcome_of(&refund).await, None, "it waits for its order");
                holding.rollback().await.unwrap();
            };
            let (second, ()) = tokio::join!(other.0.handle_batch(second), done);
            second.unwrap();
        };
        let (first, ()) = tokio::join!(one.0.handle_batch(first), held);
        first.unwrap();
    };
    let settled = timeout(Duration::from_secs(30), Box::pin(settled)).await;
    settled.expect("the free one waited for the held one");

    let events = [stands, update, repeated, refund, free];
    let outcomes = ["applied", "applied", "duplicate", "applied", "applied"];
    app.assert_outcomes(&events, &outcomes).await;
    app.assert_conserved(5).await;
}
