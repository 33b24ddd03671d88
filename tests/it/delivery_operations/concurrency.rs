//! Operators and workers that change one delivery at the same time.

use std::time::Duration;

use tallyhook::{
    domain::ReasonCode,
    review::deliveries::DeliveryError,
    store::deliveries::{self, ActionRefusal},
};

use super::{
    ANNA, LEASE, MIRRORED_INVOICES, app_with_invoice, assert_sound, attempt, claim, claim_request,
    delivered, failed, newest_delivery, record_attempt, refusal, reissue, send, state, void,
};
use crate::support::{TestApp, eventually, seconds};

#[tokio::test]
async fn void_then_late_response_changes_nothing() {
    let app = app_with_invoice().await;
    let accounting = newest_delivery(&app, "accounting").await;
    let until = claim(&app, &accounting, Duration::ZERO).await;
    void(&app, accounting.delivery_id).await.unwrap();
    let row = "select deliveries::text from deliveries where destination = 'accounting'";
    let before = app.text(row).await;
    let late = attempt(accounting.delivery_id, Some(until), delivered("INV-7"), Some(201));
    assert_eq!(record_attempt(&app, late).await, 0);
    // Nor does a failure before sending.
    let unsent = attempt(accounting.delivery_id, None, failed(ReasonCode::InvalidValue), None);
    assert_eq!(record_attempt(&app, unsent).await, 0);
    assert_eq!(app.text(row).await, before);
    assert_eq!(app.count("select count(*) from dead_letters").await, 0);
    assert_eq!(app.count(MIRRORED_INVOICES).await, 0);
    assert_sound(&app).await;
}

/// Waits until one statement of this database waits for a lock.
async fn blocked(app: &TestApp) {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    eventually("a transaction waits for a lock", seconds(20), || async {
        app.count(sql).await == 1
    })
    .await;
}

#[tokio::test]
async fn void_during_claim_waits_and_is_rejected() {
    let app = app_with_invoice().await;
    let accounting = newest_delivery(&app, "accounting").await;
    let mut worker = app.context.store.begin().await.unwrap();
    assert_eq!(deliveries::lock_due(&mut worker, "accounting", 9).await.unwrap().len(), 1);
    let person = async { void(&app, accounting.delivery_id).await };
    let claiming = async {
        blocked(&app).await;
        deliveries::claim(&mut worker, &[claim_request(&accounting)], LEASE).await.unwrap();
        worker.commit().await.unwrap();
    };
    let (refused, ()) = tokio::join!(person, claiming);
    assert!(
        matches!(refused, Err(DeliveryError::Refused(ActionRefusal::InFlight(_)))),
        "{refused:?}"
    );
    assert_eq!(state(&app, accounting.delivery_id).await, "sending");
}

#[tokio::test]
async fn claim_during_void_skips_the_delivery() {
    let app = app_with_invoice().await;
    let accounting = newest_delivery(&app, "accounting").await;
    let mut person = app.context.store.begin().await.unwrap();
    deliveries::void(&mut person, accounting.delivery_id, ANNA).await.unwrap().unwrap();
    let mut worker = app.context.store.begin().await.unwrap();
    assert!(deliveries::lock_due(&mut worker, "accounting", 9).await.unwrap().is_empty());
    person.commit().await.unwrap();
    assert!(deliveries::lock_due(&mut worker, "accounting", 9).await.unwrap().is_empty());
    // A claim without a check violates the constraint.
    let error =
        deliveries::claim(&mut worker, &[claim_request(&accounting)], LEASE).await.unwrap_err();
    assert_eq!(error.constraint(), Some("deliveries_voided"), "{error}");
}

#[tokio::test]
async fn void_during_recording_waits_for_the_response() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    send(&app, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    let until = claim(&app, &accounting, Duration::ZERO).await;
    let mut worker = app.context.store.begin().await.unwrap();
    let record = attempt(accounting.delivery_id, Some(until), delivered("INV-7"), Some(201));
    assert_eq!(deliveries::record_attempts(&mut worker, &[record]).await.unwrap().len(), 1);
    let person = async { void(&app, accounting.delivery_id).await };
    let recording = async {
        blocked(&app).await;
        worker.commit().await.unwrap();
        app.count(MIRRORED_INVOICES).await
    };
    let (voided, _) = tokio::join!(person, recording);
    let voided = voided.unwrap();
    // The void has the remote id, and the invoice is not mirrored.
    assert_eq!((voided.state.as_str(), voided.remote_id.as_deref()), ("voided", Some("INV-7")));
    assert_eq!(app.count(MIRRORED_INVOICES).await, 0);
    assert_sound(&app).await;
}

#[tokio::test]
async fn mirrors_delivered_concurrently_mark_the_invoice_mirrored() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    let [first, second] =
        [claim(&app, &accounting, LEASE).await, claim(&app, &ledger, LEASE).await];
    let mut tx = app.context.store.begin().await.unwrap();
    let record = attempt(accounting.delivery_id, Some(first), delivered("INV-7"), Some(201));
    deliveries::record_attempts(&mut tx, &[record]).await.unwrap();
    let other = record_attempt(
        &app,
        attempt(ledger.delivery_id, Some(second), delivered("L-1"), Some(201)),
    );
    // Neither transaction sees the other before the commit.
    let commit = async {
        blocked(&app).await;
        tx.commit().await.unwrap();
    };
    assert_eq!(tokio::join!(other, commit).0, 1);
    assert_eq!(app.count(MIRRORED_INVOICES).await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn reissue_concurrently_creates_one_delivery() {
    let app = app_with_invoice().await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    void(&app, id).await.unwrap();
    let both = tokio::join!(reissue(&app, id, true), reissue(&app, id, true));
    let won = [both.0.is_ok(), both.1.is_ok()];
    assert_ne!(won[0], won[1], "{both:?}");
    let lost = both.0.err().or(both.1.err()).unwrap();
    assert!(
        matches!(lost, DeliveryError::Refused(ActionRefusal::AlreadyReissued { .. })),
        "{lost:?}"
    );

    // Without the lock, the constraint lets only one through.
    let id = newest_delivery(&app, "ledger").await.delivery_id;
    void(&app, id).await.unwrap();
    let copy = "insert into deliveries (destination, event, is_mirror, source, tenant, document_id,
                    issue, cause_receipt_id, receipt_id, document)
                select destination, event, is_mirror, source, tenant, document_id, 1, cause_receipt_id,
                    receipt_id, document
                from deliveries where destination = 'ledger' and state = 'voided'";
    app.execute(copy).await;
    assert_eq!(refusal(&app.db, copy).await, ("23505".to_owned(), "deliveries_unique".to_owned()));
    let lost = reissue(&app, id, true).await;
    assert!(
        matches!(
            &lost,
            Err(DeliveryError::Refused(ActionRefusal::AlreadyReissued { issue: 1, .. }))
        ),
        "{lost:?}"
    );
    assert_eq!(app.count("select count(*) from audit_log where action = 'reissue'").await, 1);
}
