//! What the tables refuse, and what the audit sees.

use tallyhook::domain::Reason;

use super::{delivered, failed, refusal, send, to, with_an_invoice};

#[tokio::test]
async fn states_that_cannot_be_are_refused_by_the_table() {
    let rig = with_an_invoice().await;
    rig.execute("delete from deliveries where target <> 'economy'").await;
    for (set, constraint) in [
        (
            "state = 'lost', first_sent_at = now(), idempotency_key = gen_random_uuid(),
             request = '{}'",
            "deliveries_state_check",
        ),
        ("target = ''", "deliveries_target_check"),
        ("event = 'invoice.eaten'", "deliveries_event_check"),
        ("document_id = ''", "deliveries_document_id_check"),
        ("document = '[]'", "deliveries_document_check"),
        ("generation = -1", "deliveries_generation_check"),
        ("attempts = -1", "deliveries_attempts_check"),
        ("first_sent_at = now()", "deliveries_keyed"),
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
            "state = 'voided', voided_at = now(), voided_by = 'anna', void_reason = ''",
            "deliveries_voided",
        ),
    ] {
        let sql = format!("update deliveries set {set}");
        assert_eq!(
            refusal(&rig.db, &sql).await,
            ("23514".to_owned(), constraint.to_owned()),
            "{set}"
        );
    }
    let sql = "insert into deliveries (target, event, mirror, source, tenant, document_id,
                   document_number, generation, revision, receipt_id, document)
               select target, event, mirror, source, tenant, document_id, document_number,
                   generation, revision, receipt_id, document from deliveries";
    assert_eq!(refusal(&rig.db, sql).await, ("23505".to_owned(), "deliveries_once".to_owned()));
    rig.execute(
        "update deliveries set state = 'voided', voided_at = now(), voided_by = 'anna',
             void_reason = 'why'",
    )
    .await;
}

#[tokio::test]
async fn the_audit_sees_what_goes_around_the_verbs() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    send(&rig, economy.delivery_id, delivered("INV-7"), Some(201)).await;
    send(&rig, ledger.delivery_id, failed(Reason::DeliveryRefused), Some(422)).await;
    let wrong = async || {
        let sums = rig.sums().await;
        [
            sums.ticked_off_without_mirror,
            sums.mirrored_without_tick,
            sums.letters_against_delivery,
            sums.failed_without_letter,
        ]
    };
    assert_eq!(wrong().await, [0; 4]);
    let letter = |state: &str| {
        format!(
            "update dead_letters set state = '{state}',
                 closed_at = case when '{state}' in ('resolved', 'discarded') then now() end,
                 outcome = case when '{state}' = 'resolved' then 'applied' end"
        )
    };
    rig.execute("update invoices set ticked_off_at = now()").await;
    assert_eq!(wrong().await, [1, 0, 0, 0]);
    rig.execute(
        "update deliveries set state = 'delivered', delivered_at = now()
                 where target = 'ledger'",
    )
    .await;
    assert_eq!(wrong().await, [0, 0, 1, 0], "an open letter of what is there");
    rig.execute(&letter("resolved")).await;
    assert_eq!(wrong().await, [0; 4]);
    rig.execute("update invoices set ticked_off_at = null").await;
    assert_eq!(wrong().await, [0, 1, 0, 0]);
    rig.execute("update deliveries set state = 'failed', error = 'e' where target = 'ledger'")
        .await;
    assert_eq!(wrong().await, [0, 0, 1, 1], "a failed one, and its letter is closed");
    rig.execute(&letter("discarded")).await;
    assert_eq!(wrong().await, [0, 0, 1, 1]);
    rig.execute(&letter("open")).await;
    assert_eq!(wrong().await, [0; 4]);
    // Ticked off with no delivery at all.
    rig.execute(
        "update invoices set ticked_off_at = now();
                 update dead_letters set delivery_id = null;
                 delete from deliveries",
    )
    .await;
    assert_eq!(wrong().await, [1, 0, 0, 0]);
}
