//! People and workers who meet at one delivery.

use std::time::Duration;

use tallyhook::{
    domain::Reason,
    review::deliveries::DeliveryError,
    store::deliveries::{self, Refusal},
};

use super::{
    ANNA, LEASE, TICKED, assert_sound, attempt, claim, claimed, delivered, failed, refusal,
    reissue, send, settle, state, to, void, with_an_invoice,
};
use crate::support::{Rig, eventually, seconds};

#[tokio::test]
async fn an_answer_that_comes_after_the_void_changes_nothing() {
    let rig = with_an_invoice().await;
    let economy = to(&rig, "economy").await;
    let until = claim(&rig, &economy, Duration::ZERO).await;
    void(&rig, economy.delivery_id).await.unwrap();
    let row = "select deliveries::text from deliveries where target = 'economy'";
    let before = rig.text(row).await;
    let late = attempt(economy.delivery_id, Some(until), delivered("INV-7"), Some(201));
    assert_eq!(settle(&rig, late).await, 0);
    // Nor does what could not even be sent.
    let unsent = attempt(economy.delivery_id, None, failed(Reason::InvalidValue), None);
    assert_eq!(settle(&rig, unsent).await, 0);
    assert_eq!(rig.text(row).await, before);
    assert_eq!(rig.count("select count(*) from dead_letters").await, 0);
    assert_eq!(rig.count(TICKED).await, 0);
    assert_sound(&rig).await;
}

/// Waits until so many statements of this database wait for a lock.
async fn blocked(rig: &Rig) {
    let sql = "select count(*) from pg_stat_activity
               where datname = current_database() and wait_event_type = 'Lock'";
    eventually("somebody waits for a lock", seconds(20), || async { rig.count(sql).await == 1 })
        .await;
}

#[tokio::test]
async fn a_void_waits_for_a_worker_that_is_claiming_and_then_is_refused() {
    let rig = with_an_invoice().await;
    let economy = to(&rig, "economy").await;
    let mut worker = rig.tools.store.begin().await.unwrap();
    assert_eq!(deliveries::due(&mut worker, "economy", 9).await.unwrap().len(), 1);
    let person = async { void(&rig, economy.delivery_id).await };
    let claiming = async {
        blocked(&rig).await;
        deliveries::claim(&mut worker, &[claimed(&economy)], LEASE).await.unwrap();
        worker.commit().await.unwrap();
    };
    let (refused, ()) = tokio::join!(person, claiming);
    assert!(matches!(refused, Err(DeliveryError::Refused(Refusal::UnderWay(_)))), "{refused:?}");
    assert_eq!(state(&rig, economy.delivery_id).await, "sending");
}

#[tokio::test]
async fn a_worker_passes_over_what_is_being_voided() {
    let rig = with_an_invoice().await;
    let economy = to(&rig, "economy").await;
    let mut person = rig.tools.store.begin().await.unwrap();
    deliveries::void(&mut person, economy.delivery_id, ANNA).await.unwrap().unwrap();
    let mut worker = rig.tools.store.begin().await.unwrap();
    assert!(deliveries::due(&mut worker, "economy", 9).await.unwrap().is_empty());
    person.commit().await.unwrap();
    assert!(deliveries::due(&mut worker, "economy", 9).await.unwrap().is_empty());
    // One that claims without having looked meets the constraint.
    let error = deliveries::claim(&mut worker, &[claimed(&economy)], LEASE).await.unwrap_err();
    assert_eq!(error.constraint(), Some("deliveries_voided"), "{error}");
}

#[tokio::test]
async fn a_void_waits_for_an_answer_that_is_being_recorded() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    send(&rig, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    let until = claim(&rig, &economy, Duration::ZERO).await;
    let mut worker = rig.tools.store.begin().await.unwrap();
    let answer = attempt(economy.delivery_id, Some(until), delivered("INV-7"), Some(201));
    assert_eq!(deliveries::settle(&mut worker, &[answer]).await.unwrap().len(), 1);
    let person = async { void(&rig, economy.delivery_id).await };
    let recording = async {
        blocked(&rig).await;
        worker.commit().await.unwrap();
        rig.count(TICKED).await
    };
    let (voided, _) = tokio::join!(person, recording);
    let voided = voided.unwrap();
    // It knows what it took back, and the invoice is not ticked off by it.
    assert_eq!((voided.state.as_str(), voided.remote_id.as_deref()), ("voided", Some("INV-7")));
    assert_eq!(rig.count(TICKED).await, 0);
    assert_sound(&rig).await;
}

#[tokio::test]
async fn two_last_mirrors_that_arrive_at_once_tick_it_off() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    let [first, second] = [claim(&rig, &economy, LEASE).await, claim(&rig, &ledger, LEASE).await];
    let mut one = rig.tools.store.begin().await.unwrap();
    let answer = attempt(economy.delivery_id, Some(first), delivered("INV-7"), Some(201));
    deliveries::settle(&mut one, &[answer]).await.unwrap();
    let other =
        settle(&rig, attempt(ledger.delivery_id, Some(second), delivered("L-1"), Some(201)));
    // Neither sees that the other is there until it is committed.
    let commit = async {
        blocked(&rig).await;
        one.commit().await.unwrap();
    };
    assert_eq!(tokio::join!(other, commit).0, 1);
    assert_eq!(rig.count(TICKED).await, 1);
    assert_sound(&rig).await;
}

#[tokio::test]
async fn two_who_reissue_at_once_make_one() {
    let rig = with_an_invoice().await;
    let id = to(&rig, "economy").await.delivery_id;
    void(&rig, id).await.unwrap();
    let both = tokio::join!(reissue(&rig, id, true), reissue(&rig, id, true));
    let won = [both.0.is_ok(), both.1.is_ok()];
    assert_ne!(won[0], won[1], "{both:?}");
    let lost = both.0.err().or(both.1.err()).unwrap();
    assert!(matches!(lost, DeliveryError::Refused(Refusal::Reissued { .. })), "{lost:?}");

    // Without the lock it is the constraint that lets only one through.
    let id = to(&rig, "ledger").await.delivery_id;
    void(&rig, id).await.unwrap();
    let copy = "insert into deliveries (target, event, mirror, source, tenant, document_id,
                    generation, revision, receipt_id, document)
                select target, event, mirror, source, tenant, document_id, 1, revision,
                    receipt_id, document
                from deliveries where target = 'ledger' and state = 'voided'";
    rig.execute(copy).await;
    assert_eq!(refusal(&rig.db, copy).await, ("23505".to_owned(), "deliveries_once".to_owned()));
    let lost = reissue(&rig, id, true).await;
    assert!(
        matches!(&lost, Err(DeliveryError::Refused(Refusal::Reissued { generation: 1, .. }))),
        "{lost:?}"
    );
    assert_eq!(rig.count("select count(*) from audit_log where act = 'reissue'").await, 1);
}
