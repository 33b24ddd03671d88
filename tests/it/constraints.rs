//! The constraints of the tables reject duplicates that the inbox did not find.

use sqlx::PgPool;

use crate::support::{ERP, TestApp, erp_invoice, erp_order};

/// The SQLSTATE and the constraint with which a statement is refused.
async fn refusal(db: &PgPool, sql: &str) -> (String, String) {
    let error = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(db).await.expect_err(sql);
    let error = error.as_database_error().unwrap();
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    (text(error.code().as_deref()), text(error.constraint()))
}

#[tokio::test]
async fn constraint_second_row_of_a_document_is_rejected() {
    let app = TestApp::with(&[ERP], |_| ()).await;
    app.publish_all(&[erp_order("1", 1, "1.00"), erp_invoice("I-1", 1, "2.00")]).await;
    app.consumer("erp").await.drain(2).await;
    let copy = "insert into orders (source, tenant, order_id, first_receipt, last_receipt)
                select source, tenant, order_id, first_receipt, last_receipt from orders";
    assert_eq!(refusal(&app.db, copy).await, ("23505".to_owned(), "orders_pkey".to_owned()));
    // Even under another id.
    let other_id = "insert into invoices (invoice_id, source, tenant, vendor, invoice_number,
                        status, platform_status, currency, total, version, first_receipt, last_receipt)
                    select gen_random_uuid(), source, tenant, vendor, invoice_number,
                        status, platform_status, currency, total, version, first_receipt, last_receipt
                    from invoices";
    let expected = ("23505".to_owned(), "invoices_natural_key".to_owned());
    assert_eq!(refusal(&app.db, other_id).await, expected);
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn constraint_unknown_values_are_rejected() {
    let app = TestApp::with(&[ERP], |_| ()).await;
    let mut poison = erp_order("2", 1, "1.00");
    poison.body = "{}".into();
    app.publish_all(&[erp_order("1", 1, "1.00"), erp_invoice("I-1", 1, "2.00"), poison]).await;
    app.consumer("erp").await.drain(3).await;
    app.archive_dead_letters(1).await;
    for (sql, constraint) in [
        ("update orders set status = 'done'", "orders_status_check"),
        ("update orders set currency = 'euro'", "orders_currency_check"),
        ("update orders set refunded_reported = -1", "orders_refunded_reported_check"),
        (
            "insert into refunds (source, tenant, refund_id, status, platform_status, currency,
                 amount, version, first_receipt, last_receipt)
             select 'shop', '', 'r', 'succeeded', '', 'EUR', 1, now(), last_receipt, last_receipt
             from orders",
            "refunds_order_or_payment",
        ),
        (
            "insert into resource_changes
             select 'shop', 'xero', '', 'invoice', '', 1, now(), 'created', last_receipt,
                 last_receipt from orders",
            "resource_changes_id_check",
        ),
        ("update orders set lines = '{}'", "orders_lines_check"),
        ("update orders set total = null", "orders_complete"),
        ("update invoices set status = 'done'", "invoices_status_check"),
        ("update invoices set generation = -1", "invoices_generation_check"),
        ("update receipts set outcome = 'lost', write_kind = null", "receipts_outcome_check"),
        ("update receipts set attempts = -1", "receipts_attempts_check"),
        ("update receipts set outcome = 'dead', write_kind = null, error = null", "receipts_error"),
        (
            "update receipts set outcome = 'rejected', write_kind = null, error = null",
            "receipts_error",
        ),
        (
            "insert into quarantine values (gen_random_uuid(), 'shop', now(), 'e', '{}', '', '')",
            "quarantine_headers_check",
        ),
        ("update receipts set outcome = 'stale'", "receipts_write_kind"),
        ("update dead_letters set state = 'gone'", "dead_letters_state_check"),
        ("update dead_letters set reason = 'Why?'", "dead_letters_reason_check"),
        ("update dead_letters set state = 'replayed'", "dead_letters_replayed"),
        ("update dead_letters set state = 'discarded'", "dead_letters_closed"),
        ("update dead_letters set state = 'resolved', closed_at = now()", "dead_letters_resolved"),
        (
            "insert into audit_log (actor, action, comment) values ('', 'replay', '')",
            "audit_log_actor_check",
        ),
    ] {
        assert_eq!(
            refusal(&app.db, sql).await,
            ("23514".to_owned(), constraint.to_owned()),
            "{sql}"
        );
    }
    app.assert_conserved(3).await;
}
