//! Whose turn it is, and what it costs to find out.

use tallyhook::{
    domain::Reason,
    store::{Conn, deliveries},
};

use super::{failed, retry, send, to, with_an_invoice};
use crate::support::Rig;

/// Writes deliveries to the target as a worker would, `how` being where from.
async fn write(rig: &Rig, event: &str, id: &str, state: &str, how: &str) {
    rig.execute(&format!(
        "insert into deliveries (
            target, event, mirror, source, tenant, document_id, revision, receipt_id, document,
            state, error, next_attempt_at)
         select 'shelf', '{event}', false, 'erp', '', {id}, gen_random_uuid(), gen_random_uuid(),
            '{{}}', '{state}', 'no', now() - interval '1 minute'
         from {how}"
    ))
    .await;
}

async fn events_due(rig: &Rig, limit: usize) -> Vec<String> {
    let mut tx = rig.tools.store.begin().await.unwrap();
    let due = deliveries::due(&mut tx, "shelf", limit).await.unwrap();
    tx.rollback().await.unwrap();
    due.into_iter().map(|due| due.event).collect()
}

#[tokio::test]
async fn a_refund_does_not_wait_for_the_order_of_the_same_id() {
    let rig = with_an_invoice().await;
    for (event, state) in
        [("order.upserted", "failed"), ("refund.upserted", "pending"), ("order.deleted", "pending")]
    {
        write(&rig, event, "'5'", state, "generate_series(1, 1)").await;
    }
    assert_eq!(events_due(&rig, 9).await, ["refund.upserted"]);
}

#[tokio::test]
async fn an_event_of_a_newer_version_stands_in_nobodys_way() {
    let rig = with_an_invoice().await;
    rig.execute("alter table deliveries drop constraint deliveries_event_check").await;
    write(&rig, "customer.upserted", "'5'", "pending", "generate_series(1, 3)").await;
    write(&rig, "order.upserted", "'6'", "pending", "generate_series(1, 1)").await;
    assert_eq!(events_due(&rig, 1).await, ["order.upserted"]);
}

#[tokio::test]
async fn what_was_refused_and_is_tried_again_is_looked_up_first() {
    let rig = with_an_invoice().await;
    let economy = to(&rig, "economy").await;
    let due = async || {
        let mut tx = rig.tools.store.begin().await.unwrap();
        let due = deliveries::due(&mut tx, "economy", 1).await.unwrap().remove(0);
        tx.rollback().await.unwrap();
        (due.request.is_some(), due.is_doubtful)
    };
    assert_eq!(due().await, (false, false));
    send(&rig, economy.delivery_id, failed(Reason::DeliveryRefused), Some(422)).await;
    assert_eq!(retry(&rig, &[economy.delivery_id]).await.deliveries, [economy.delivery_id]);
    // Written anew; but an earlier call may have worked, or a person made it
    // there by hand.
    assert_eq!(due().await, (false, true));
}

/// How many rows of the table this transaction has read.
async fn read(tx: &mut Conn) -> i64 {
    let sql = "select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables
               where relname = 'deliveries'";
    sqlx::query_scalar(sql).fetch_one(tx).await.unwrap()
}

#[tokio::test]
async fn the_first_are_found_without_reading_all_that_wait() {
    let rig = with_an_invoice().await;
    write(&rig, "order.upserted", "n::text", "pending", "generate_series(1, 5000) as n").await;
    for analyzed in [false, true] {
        if analyzed {
            rig.execute("analyze deliveries").await;
        }
        let mut tx = rig.tools.store.begin().await.unwrap();
        let before = read(&mut tx).await;
        assert_eq!(deliveries::due(&mut tx, "shelf", 4).await.unwrap().len(), 4);
        let rows = read(&mut tx).await - before;
        assert!(rows < 100, "{rows} were read, analyzed: {analyzed}");
        tx.rollback().await.unwrap();
    }
}
