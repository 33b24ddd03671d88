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
    let (mut first_consumer, second_consumer) =
        (app.consumer("shop").await, app.consumer_on_own_connection("shop").await);
    let (link, second_consumer) = second_consumer;
    // Only the first consumer receives messages.
    link.close().await;
    let existing = shop_order(1, 1, "1.00");
    app.publish_all(std::slice::from_ref(&existing)).await;
    first_consumer.drain(1).await;

    // The first batch blocks on a row lock of another session.
    let mut other_session = sqlx::PgConnection::connect(&app.config.database.url).await.unwrap();
    let mut lock = other_session.begin().await.unwrap();
    sqlx::query("select from orders for update").execute(&mut *lock).await.unwrap();
    let update = shop_order(1, 2, "2.00");
    app.publish_all(std::slice::from_ref(&update)).await;
    let first =
        timeout(Duration::from_secs(30), first_consumer.0.collect_batch()).await.unwrap().unwrap();

    // The second batch has a duplicate of it, a refund of the same order, and another order.
    let duplicate = again(&update);
    let refund = shop_refund(1, 71, "0.50", "EUR");
    let unrelated = shop_order(2, 1, "5.00");
    app.publish_all(&[duplicate.clone(), refund.clone(), unrelated.clone()]).await;
    let second =
        timeout(Duration::from_secs(30), first_consumer.0.collect_batch()).await.unwrap().unwrap();
    assert_eq!((first.deliveries.len(), second.deliveries.len()), (1, 3));

    let batches = async {
        let second_batch = async {
            // The second batch begins once the first waits for the lock.
            let waits = "select count(*) from pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()";
            while app.count(waits).await == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let done = async {
                while app.outcome_of(&unrelated).await.is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                assert_eq!(app.outcome_of(&update).await, None, "its order is locked");
                assert_eq!(
                    app.outcome_of(&duplicate).await,
                    None,
                    "it waits for the first message"
                );
                assert_eq!(app.outcome_of(&refund).await, None, "it waits for its order");
                lock.rollback().await.unwrap();
            };
            let (second, ()) = tokio::join!(second_consumer.0.handle_batch(second), done);
            second.unwrap();
        };
        let (first, ()) = tokio::join!(first_consumer.0.handle_batch(first), second_batch);
        first.unwrap();
    };
    let finished = timeout(Duration::from_secs(30), Box::pin(batches)).await;
    finished.expect("the unrelated message waited for the blocked one");

    let events = [existing, update, duplicate, refund, unrelated];
    let outcomes = ["applied", "applied", "duplicate", "applied", "applied"];
    app.assert_outcomes(&events, &outcomes).await;
    app.assert_conserved(5).await;
}
