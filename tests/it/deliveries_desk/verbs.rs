//! Void, re-issue and retry: what each starts from and what it leaves.

use std::time::Duration;

use serde_json::json;
use tallyhook::{
    domain::Reason,
    review::deliveries::{self as desk, DeliveryError},
    store::deliveries::Refusal,
};
use uuid::Uuid;

use super::{
    ANNA, LEASE, LETTER, REQUEST, TICKED, assert_sound, attempt, claim, delivered, failed, one,
    reissue, retry, send, settle, state, to, uncertain, void, with_an_invoice,
};
use crate::support::erp_invoice;

#[tokio::test]
async fn every_state_but_a_call_under_way_can_be_voided_once() {
    let rig = with_an_invoice().await;
    let id = to(&rig, "economy").await.delivery_id;
    let [pending, expired] = [to(&rig, "ledger").await, to(&rig, "events").await];
    assert_eq!(void(&rig, pending.delivery_id).await.unwrap().state, "voided");

    let until = claim(&rig, &one(&rig, id).await, LEASE).await;
    let refused = void(&rig, id).await;
    assert!(matches!(refused, Err(DeliveryError::Refused(Refusal::UnderWay(_)))), "{refused:?}");
    assert_eq!(state(&rig, id).await, "sending");
    settle(&rig, attempt(id, Some(until), uncertain(), None)).await;
    assert_eq!(void(&rig, id).await.unwrap().state, "voided");

    // A worker that died in the middle holds nobody up for ever.
    claim(&rig, &expired, Duration::ZERO).await;
    assert_eq!(void(&rig, expired.delivery_id).await.unwrap().state, "voided");

    let again = void(&rig, id).await;
    assert!(matches!(&again, Err(DeliveryError::Refused(Refusal::State { .. }))), "{again:?}");
    let nobody = void(&rig, Uuid::now_v7()).await;
    assert!(
        matches!(nobody, Err(DeliveryError::Refused(Refusal::NoSuchDelivery(_)))),
        "{nobody:?}"
    );
    let acts = "select count(*) from audit_log where act = 'void' and actor = 'anna'
                and reason = 'deleted there by hand' and delivery_id is not null";
    assert_eq!(rig.count(acts).await, 3);
    assert_sound(&rig).await;
}

#[tokio::test]
async fn a_failed_and_a_delivered_one_are_voided_with_all_that_hangs_on_them() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    send(&rig, economy.delivery_id, failed(Reason::DeliveryRefused), Some(422)).await;
    assert_eq!(rig.text(LETTER).await, "open delivery_refused");
    let voided = void(&rig, economy.delivery_id).await.unwrap();
    assert_eq!(voided.void_reason.as_deref(), Some(ANNA.reason));
    assert_eq!(rig.text(LETTER).await, "discarded delivery_refused");
    let shown = desk::show(&rig.tools.store, economy.delivery_id).await.unwrap();
    assert_eq!(shown.contents.request.as_deref(), Some(REQUEST));
    assert_eq!(shown.contents.response.as_deref(), Some("{\"answered\":422}"));
    assert_eq!(shown.acts.iter().map(|act| act.act.as_str()).collect::<Vec<_>>(), ["void"]);
    assert_eq!(shown.dead_letter.unwrap().target.as_deref(), Some("economy"));

    send(&rig, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    let voided = void(&rig, ledger.delivery_id).await.unwrap();
    assert_eq!((voided.remote_id.as_deref(), voided.delivered_at.is_some()), (Some("L-1"), true));
    assert_sound(&rig).await;
}

#[tokio::test]
async fn an_invoice_is_ticked_off_while_every_mirror_stands() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    assert!(economy.mirror && ledger.mirror && !to(&rig, "events").await.mirror);
    send(&rig, economy.delivery_id, delivered("INV-7"), Some(201)).await;
    assert_eq!(rig.count(TICKED).await, 0, "one of two");
    send(&rig, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    assert_eq!(rig.count(TICKED).await, 1);
    assert_sound(&rig).await;

    void(&rig, economy.delivery_id).await.unwrap();
    assert_eq!(rig.count(TICKED).await, 0, "one does not stand any more");
    let new = reissue(&rig, economy.delivery_id, true).await.unwrap().delivery;
    assert_eq!(rig.count(TICKED).await, 0, "the new one is not there yet");
    assert_sound(&rig).await;
    send(&rig, new.delivery_id, delivered("INV-8"), Some(201)).await;
    assert_eq!(rig.count(TICKED).await, 1);
    assert_sound(&rig).await;
}

#[tokio::test]
async fn a_voided_one_is_reissued_once_under_another_key_and_as_it_is_now() {
    let rig = with_an_invoice().await;
    let old = to(&rig, "economy").await;
    let early = reissue(&rig, old.delivery_id, true).await;
    assert!(matches!(&early, Err(DeliveryError::Refused(Refusal::State { .. }))), "{early:?}");
    send(&rig, old.delivery_id, delivered("INV-7"), Some(201)).await;
    let early = reissue(&rig, old.delivery_id, true).await;
    assert!(matches!(&early, Err(DeliveryError::Refused(Refusal::State { .. }))), "{early:?}");
    // The invoice changed since.
    rig.send(&[erp_invoice("I-1", 2, "12.50")]).await;
    rig.lane("erp").await.settle(1).await;
    void(&rig, old.delivery_id).await.unwrap();
    let old = one(&rig, old.delivery_id).await;

    let new = reissue(&rig, old.delivery_id, true).await.unwrap();
    assert_eq!((new.delivery.generation, new.delivery.state.as_str()), (1, "pending"));
    assert!(new.key.is_some() && new.key != old.idempotency_key, "{new:?}");
    let shown = desk::show(&rig.tools.store, new.delivery.delivery_id).await.unwrap();
    assert_eq!(shown.contents.document["total"], "12.50");
    let issues: Vec<_> =
        shown.issues.iter().map(|issue| (issue.generation, issue.state.as_str())).collect();
    assert_eq!(issues, [(0, "voided"), (1, "pending")]);
    let acts = desk::show(&rig.tools.store, old.delivery_id).await.unwrap().acts;
    let act = acts.last().unwrap();
    assert_eq!((act.act.as_str(), act.reason.as_str()), ("reissue", ANNA.reason));
    assert_eq!(act.detail["delivery_id"], json!(new.delivery.delivery_id));
    assert_eq!((&act.detail["told_gone"], &act.detail["was_sent"]), (&json!(true), &json!(true)));

    let again = reissue(&rig, old.delivery_id, true).await;
    let newest = new.delivery.delivery_id;
    let expected = Refusal::Reissued { id: old.delivery_id, newest, generation: 1 };
    match again {
        Err(DeliveryError::Refused(refusal)) => assert_eq!(refusal, expected),
        other => panic!("{other:?}"),
    }
    // A retry of the new one has the new one's key; the next issue a third.
    send(&rig, newest, uncertain(), None).await;
    assert_eq!(one(&rig, newest).await.idempotency_key, new.key);
    send(&rig, newest, failed(Reason::AttemptsExhausted), None).await;
    assert_eq!(retry(&rig, &[newest]).await.deliveries, [newest]);
    send(&rig, newest, delivered("INV-8"), Some(201)).await;
    assert_eq!(one(&rig, newest).await.idempotency_key, new.key);
    void(&rig, newest).await.unwrap();
    let third = reissue(&rig, newest, true).await.unwrap();
    assert_eq!(third.delivery.generation, 2);
    assert!(![old.idempotency_key, new.key].contains(&third.key));
    assert_sound(&rig).await;
}

#[tokio::test]
async fn only_what_failed_is_tried_again_and_its_key_stays() {
    let rig = with_an_invoice().await;
    let [refused, lost, pending] =
        [to(&rig, "economy").await, to(&rig, "ledger").await, to(&rig, "events").await];
    send(&rig, refused.delivery_id, failed(Reason::DeliveryRefused), Some(422)).await;
    send(&rig, lost.delivery_id, failed(Reason::AttemptsExhausted), Some(429)).await;
    let keys = [one(&rig, refused.delivery_id).await, one(&rig, lost.delivery_id).await]
        .map(|delivery| delivery.idempotency_key);

    let ids = [refused.delivery_id, lost.delivery_id, pending.delivery_id, Uuid::nil()];
    let retried = retry(&rig, &ids).await;
    assert_eq!(retried.deliveries.len(), 2, "{retried:?}");
    assert!(
        matches!(&retried.refused[..], [Refusal::State { .. }, Refusal::NoSuchDelivery(_)]),
        "{retried:?}"
    );
    // What was refused for what it said is written anew; of the other nobody
    // knows whether it worked, so it is asked for first and sent as it was.
    let row = async |target: &str| {
        let sql = format!(
            "select concat_ws(' ', state, attempts, request) from deliveries
             where target = '{target}'"
        );
        rig.text(&sql).await
    };
    assert_eq!(row("economy").await, "pending 0");
    assert_eq!(row("ledger").await, format!("uncertain 0 {REQUEST}"));
    assert_eq!(rig.count("select count(*) from dead_letters where state = 'replayed'").await, 2);
    assert_eq!(rig.count("select count(*) from replays where letters = 4").await, 1);
    assert_sound(&rig).await;
    for (id, key) in ids.into_iter().zip(keys) {
        send(&rig, id, delivered("INV-7"), Some(201)).await;
        assert_eq!(one(&rig, id).await.idempotency_key, key);
        assert!(key.is_some());
    }
    assert_eq!(rig.count("select count(*) from dead_letters where state = 'resolved'").await, 2);

    // Nothing to do leaves no run behind.
    let nothing = retry(&rig, &[pending.delivery_id]).await;
    assert!(nothing.deliveries.is_empty() && nothing.replay_id.is_none(), "{nothing:?}");
    assert_eq!(rig.count("select count(*) from replays").await, 1);
    assert_sound(&rig).await;
}

#[tokio::test]
async fn what_was_to_be_written_anew_and_could_not_is_tried_again_all_the_same() {
    let rig = with_an_invoice().await;
    let id = to(&rig, "economy").await.delivery_id;
    send(&rig, id, failed(Reason::DeliveryRefused), Some(422)).await;
    retry(&rig, &[id]).await;
    // Its template fails now, so that there is no request and no answer.
    let unsent = attempt(id, None, failed(Reason::InvalidValue), None);
    assert_eq!(settle(&rig, unsent).await, 1);
    assert_eq!(rig.text(LETTER).await, "open invalid_value");
    assert_eq!(retry(&rig, &[id]).await.deliveries, [id]);
    assert_eq!(state(&rig, id).await, "pending");
    assert_sound(&rig).await;
}
