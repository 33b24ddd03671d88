//! The order in which deliveries are due, and the rows that the query reads.

use tallyhook::{
    domain::ReasonCode,
    store::{Conn, deliveries},
};

use super::{app_with_invoice, failed, newest_delivery, retry, send};
use crate::support::TestApp;

/// Writes deliveries to the destination as a worker would; `how` is the `from` clause.
async fn write(app: &TestApp, event: &str, id: &str, state: &str, how: &str) {
    app.execute(&format!(
        "insert into deliveries (
            destination, event, is_mirror, source, tenant, document_id, cause_receipt_id, receipt_id, document,
            state, error, next_attempt_at)
         select 'shelf', '{event}', false, 'erp', '', {id}, gen_random_uuid(), gen_random_uuid(),
            '{{}}', '{state}', 'no', now() - interval '1 minute'
         from {how}"
    ))
    .await;
}

async fn events_due(app: &TestApp, limit: usize) -> Vec<String> {
    let mut tx = app.context.store.begin().await.unwrap();
    let due = deliveries::lock_due(&mut tx, "shelf", limit).await.unwrap();
    tx.rollback().await.unwrap();
    due.into_iter().map(|due| due.event).collect()
}

#[tokio::test]
async fn due_refund_does_not_wait_for_order_of_same_id() {
    let app = app_with_invoice().await;
    for (event, state) in
        [("order.upserted", "failed"), ("refund.upserted", "pending"), ("order.deleted", "pending")]
    {
        write(&app, event, "'5'", state, "generate_series(1, 1)").await;
    }
    assert_eq!(events_due(&app, 9).await, ["refund.upserted"]);
}

#[tokio::test]
async fn due_unknown_event_type_blocks_no_other_event() {
    let app = app_with_invoice().await;
    app.execute("alter table deliveries drop constraint deliveries_event_check").await;
    write(&app, "customer.upserted", "'5'", "pending", "generate_series(1, 3)").await;
    write(&app, "order.upserted", "'6'", "pending", "generate_series(1, 1)").await;
    assert_eq!(events_due(&app, 1).await, ["order.upserted"]);
}

#[tokio::test]
async fn due_retried_rejection_is_looked_up_first() {
    let app = app_with_invoice().await;
    let accounting = newest_delivery(&app, "accounting").await;
    let due = async || {
        let mut tx = app.context.store.begin().await.unwrap();
        let due = deliveries::lock_due(&mut tx, "accounting", 1).await.unwrap().remove(0);
        tx.rollback().await.unwrap();
        (due.request.is_some(), due.may_be_delivered)
    };
    assert_eq!(due().await, (false, false));
    send(&app, accounting.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    assert_eq!(retry(&app, &[accounting.delivery_id]).await.deliveries, [accounting.delivery_id]);
    // It is rendered again. An earlier request may have worked, or an operator created it by hand.
    assert_eq!(due().await, (false, true));
}

/// How many rows of the table this transaction has read.
async fn read(tx: &mut Conn) -> i64 {
    let sql = "select (seq_tup_read + idx_tup_fetch)::bigint from pg_stat_xact_user_tables
               where relname = 'deliveries'";
    sqlx::query_scalar(sql).fetch_one(tx).await.unwrap()
}

#[tokio::test]
async fn due_reads_few_rows_of_a_long_backlog() {
    let app = app_with_invoice().await;
    write(&app, "order.upserted", "n::text", "pending", "generate_series(1, 5000) as n").await;
    for analyzed in [false, true] {
        if analyzed {
            app.execute("analyze deliveries").await;
        }
        let mut tx = app.context.store.begin().await.unwrap();
        let before = read(&mut tx).await;
        assert_eq!(deliveries::lock_due(&mut tx, "shelf", 4).await.unwrap().len(), 4);
        let rows = read(&mut tx).await - before;
        assert!(rows < 100, "{rows} were read, analyzed: {analyzed}");
        tx.rollback().await.unwrap();
    }
}
