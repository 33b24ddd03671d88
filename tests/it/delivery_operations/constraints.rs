//! Constraints of the table `deliveries`, and the rows that the audit reports.

use tallyhook::domain::ReasonCode;

use super::{app_with_invoice, delivered, failed, newest_delivery, refusal, send};

#[tokio::test]
async fn deliveries_impossible_states_are_rejected() {
    let app = app_with_invoice().await;
    app.execute("delete from deliveries where destination <> 'accounting'").await;
    for (set, constraint) in [
        (
            "state = 'lost', first_sent_at = now(), idempotency_key = gen_random_uuid(),
             request = '{}'",
            "deliveries_state_check",
        ),
        ("destination = ''", "deliveries_destination_check"),
        ("event = 'invoice.eaten'", "deliveries_event_check"),
        ("document_id = ''", "deliveries_document_id_check"),
        ("document = '[]'", "deliveries_document_check"),
        ("issue = -1", "deliveries_issue_check"),
        ("attempts = -1", "deliveries_attempts_check"),
        ("first_sent_at = now()", "deliveries_sent_with_key"),
        ("state = 'uncertain', error = 'e'", "deliveries_sent"),
        ("state = 'delivered', delivered_at = now()", "deliveries_sent"),
        (
            "state = 'sending', first_sent_at = now(), idempotency_key = gen_random_uuid(),
             request = '{}'",
            "deliveries_leased",
        ),
        ("lease_until = now()", "deliveries_leased"),
        (
            "state = 'delivered', first_sent_at = now(), idempotency_key = gen_random_uuid(),
             request = '{}'",
            "deliveries_delivered",
        ),
        ("state = 'failed'", "deliveries_failed"),
        ("voided_at = now()", "deliveries_voided"),
        ("state = 'voided'", "deliveries_voided"),
        ("state = 'voided', voided_at = now()", "deliveries_voided"),
        ("state = 'voided', voided_at = now(), voided_by = 'anna'", "deliveries_voided"),
        (
            "state = 'voided', voided_at = now(), voided_by = 'anna', void_comment = ''",
            "deliveries_voided",
        ),
    ] {
        let sql = format!("update deliveries set {set}");
        assert_eq!(
            refusal(&app.db, &sql).await,
            ("23514".to_owned(), constraint.to_owned()),
            "{set}"
        );
    }
    let sql = "insert into deliveries (destination, event, is_mirror, source, tenant, document_id,
                   document_number, issue, cause_receipt_id, receipt_id, document)
               select destination, event, is_mirror, source, tenant, document_id, document_number,
                   issue, cause_receipt_id, receipt_id, document from deliveries";
    assert_eq!(refusal(&app.db, sql).await, ("23505".to_owned(), "deliveries_unique".to_owned()));
    app.execute(
        "update deliveries set state = 'voided', voided_at = now(), voided_by = 'anna',
             void_comment = 'why'",
    )
    .await;
}

#[tokio::test]
async fn audit_finds_rows_changed_by_hand() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    send(&app, accounting.delivery_id, delivered("INV-7"), Some(201)).await;
    send(&app, ledger.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    let contradictions = async || {
        let totals = app.totals().await;
        [
            totals.mirrored_without_delivery,
            totals.delivered_not_marked_mirrored,
            totals.dead_letters_contradicting_delivery,
            totals.failed_deliveries_without_dead_letter,
        ]
    };
    assert_eq!(contradictions().await, [0; 4]);
    let dead_letter = |state: &str| {
        format!(
            "update dead_letters set state = '{state}',
                 closed_at = case when '{state}' in ('resolved', 'discarded') then now() end,
                 outcome = case when '{state}' = 'resolved' then 'applied' end"
        )
    };
    app.execute("update invoices set mirrored_at = now()").await;
    assert_eq!(contradictions().await, [1, 0, 0, 0]);
    app.execute(
        "update deliveries set state = 'delivered', delivered_at = now()
                 where destination = 'ledger'",
    )
    .await;
    assert_eq!(contradictions().await, [0, 0, 1, 0], "an open dead letter of a delivered document");
    app.execute(&dead_letter("resolved")).await;
    assert_eq!(contradictions().await, [0; 4]);
    app.execute("update invoices set mirrored_at = null").await;
    assert_eq!(contradictions().await, [0, 1, 0, 0]);
    app.execute("update deliveries set state = 'failed', error = 'e' where destination = 'ledger'")
        .await;
    assert_eq!(
        contradictions().await,
        [0, 0, 1, 1],
        "a failed delivery whose dead letter is closed"
    );
    app.execute(&dead_letter("discarded")).await;
    assert_eq!(contradictions().await, [0, 0, 1, 1]);
    app.execute(&dead_letter("open")).await;
    assert_eq!(contradictions().await, [0; 4]);
    // Mirrored without any delivery.
    app.execute(
        "update invoices set mirrored_at = now();
                 update dead_letters set delivery_id = null;
                 delete from deliveries",
    )
    .await;
    assert_eq!(contradictions().await, [1, 0, 0, 0]);
}
