//! Void, re-issue and retry: the states in which each is allowed, and the rows it writes.

use std::time::Duration;

use serde_json::json;
use tallyhook::{
    domain::ReasonCode,
    review::deliveries::{self as desk, DeliveryError},
    store::deliveries::ActionRefusal,
};
use uuid::Uuid;

use super::{
    ANNA, LEASE, LETTER, REQUEST, TICKED, assert_sound, attempt, claim, delivered, failed, one,
    reissue, retry, send, settle, state, to, uncertain, void, with_an_invoice,
};
use crate::support::erp_invoice;

#[tokio::test]
async fn void_every_state_but_sending_succeeds_once() {
    let app = with_an_invoice().await;
    let id = to(&app, "accounting").await.delivery_id;
    let [pending, expired] = [to(&app, "ledger").await, to(&app, "events").await];
    assert_eq!(void(&app, pending.delivery_id).await.unwrap().state, "voided");

    let until = claim(&app, &one(&app, id).await, LEASE).await;
    let refused = void(&app, id).await;
    assert!(
        matches!(refused, Err(DeliveryError::Refused(ActionRefusal::InFlight(_)))),
        "{refused:?}"
    );
    assert_eq!(state(&app, id).await, "sending");
    settle(&app, attempt(id, Some(until), uncertain(), None)).await;
    assert_eq!(void(&app, id).await.unwrap().state, "voided");

    // The lease of a killed worker does not block a void for ever.
    claim(&app, &expired, Duration::ZERO).await;
    assert_eq!(void(&app, expired.delivery_id).await.unwrap().state, "voided");

    let again = void(&app, id).await;
    assert!(
        matches!(&again, Err(DeliveryError::Refused(ActionRefusal::WrongState { .. }))),
        "{again:?}"
    );
    let nobody = void(&app, Uuid::now_v7()).await;
    assert!(
        matches!(nobody, Err(DeliveryError::Refused(ActionRefusal::NotFound(_)))),
        "{nobody:?}"
    );
    let acts = "select count(*) from audit_log where action = 'void' and actor = 'anna'
                and comment = 'deleted there by hand' and delivery_id is not null";
    assert_eq!(app.count(acts).await, 3);
    assert_sound(&app).await;
}

#[tokio::test]
async fn void_failed_and_delivered_updates_related_rows() {
    let app = with_an_invoice().await;
    let [accounting, ledger] = [to(&app, "accounting").await, to(&app, "ledger").await];
    send(&app, accounting.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    assert_eq!(app.text(LETTER).await, "open delivery_refused");
    let voided = void(&app, accounting.delivery_id).await.unwrap();
    assert_eq!(voided.void_comment.as_deref(), Some(ANNA.comment));
    assert_eq!(app.text(LETTER).await, "discarded delivery_refused");
    let shown = desk::show(&app.tools.store, accounting.delivery_id).await.unwrap();
    assert_eq!(shown.contents.request.as_deref(), Some(REQUEST));
    assert_eq!(shown.contents.response.as_deref(), Some("{\"answered\":422}"));
    assert_eq!(shown.history.iter().map(|act| act.action.as_str()).collect::<Vec<_>>(), ["void"]);
    assert_eq!(shown.dead_letter.unwrap().destination.as_deref(), Some("accounting"));

    send(&app, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    let voided = void(&app, ledger.delivery_id).await.unwrap();
    assert_eq!((voided.remote_id.as_deref(), voided.delivered_at.is_some()), (Some("L-1"), true));
    assert_sound(&app).await;
}

#[tokio::test]
async fn invoice_is_mirrored_while_every_mirror_is_delivered() {
    let app = with_an_invoice().await;
    let [accounting, ledger] = [to(&app, "accounting").await, to(&app, "ledger").await];
    assert!(accounting.is_mirror && ledger.is_mirror && !to(&app, "events").await.is_mirror);
    send(&app, accounting.delivery_id, delivered("INV-7"), Some(201)).await;
    assert_eq!(app.count(TICKED).await, 0, "one of two");
    send(&app, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    assert_eq!(app.count(TICKED).await, 1);
    assert_sound(&app).await;

    void(&app, accounting.delivery_id).await.unwrap();
    assert_eq!(app.count(TICKED).await, 0, "one does not stand any more");
    let new = reissue(&app, accounting.delivery_id, true).await.unwrap().delivery;
    assert_eq!(app.count(TICKED).await, 0, "the new one is not there yet");
    assert_sound(&app).await;
    send(&app, new.delivery_id, delivered("INV-8"), Some(201)).await;
    assert_eq!(app.count(TICKED).await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn reissue_of_voided_delivery_uses_a_new_key_and_the_current_document() {
    let app = with_an_invoice().await;
    let old = to(&app, "accounting").await;
    let early = reissue(&app, old.delivery_id, true).await;
    assert!(
        matches!(&early, Err(DeliveryError::Refused(ActionRefusal::WrongState { .. }))),
        "{early:?}"
    );
    send(&app, old.delivery_id, delivered("INV-7"), Some(201)).await;
    let early = reissue(&app, old.delivery_id, true).await;
    assert!(
        matches!(&early, Err(DeliveryError::Refused(ActionRefusal::WrongState { .. }))),
        "{early:?}"
    );
    // The invoice has changed since then.
    app.publish_all(&[erp_invoice("I-1", 2, "12.50")]).await;
    app.consumer("erp").await.drain(1).await;
    void(&app, old.delivery_id).await.unwrap();
    let old = one(&app, old.delivery_id).await;

    let new = reissue(&app, old.delivery_id, true).await.unwrap();
    assert_eq!((new.delivery.issue, new.delivery.state.as_str()), (1, "pending"));
    assert!(new.key.is_some() && new.key != old.idempotency_key, "{new:?}");
    let shown = desk::show(&app.tools.store, new.delivery.delivery_id).await.unwrap();
    assert_eq!(shown.contents.document["total"], "12.50");
    let issues: Vec<_> =
        shown.issues.iter().map(|issue| (issue.issue, issue.state.as_str())).collect();
    assert_eq!(issues, [(0, "voided"), (1, "pending")]);
    let acts = desk::show(&app.tools.store, old.delivery_id).await.unwrap().history;
    let act = acts.last().unwrap();
    assert_eq!((act.action.as_str(), act.comment.as_str()), ("reissue", ANNA.comment));
    assert_eq!(act.detail["delivery_id"], json!(new.delivery.delivery_id));
    assert_eq!(
        (&act.detail["confirmed_gone"], &act.detail["was_sent"]),
        (&json!(true), &json!(true))
    );

    let again = reissue(&app, old.delivery_id, true).await;
    let newest = new.delivery.delivery_id;
    let expected = ActionRefusal::AlreadyReissued { id: old.delivery_id, newest, issue: 1 };
    match again {
        Err(DeliveryError::Refused(refusal)) => assert_eq!(refusal, expected),
        other => panic!("{other:?}"),
    }
    // A retry of the new one has the new one's key; the next issue a third.
    send(&app, newest, uncertain(), None).await;
    assert_eq!(one(&app, newest).await.idempotency_key, new.key);
    send(&app, newest, failed(ReasonCode::AttemptsExhausted), None).await;
    assert_eq!(retry(&app, &[newest]).await.deliveries, [newest]);
    send(&app, newest, delivered("INV-8"), Some(201)).await;
    assert_eq!(one(&app, newest).await.idempotency_key, new.key);
    void(&app, newest).await.unwrap();
    let third = reissue(&app, newest, true).await.unwrap();
    assert_eq!(third.delivery.issue, 2);
    assert!(![old.idempotency_key, new.key].contains(&third.key));
    assert_sound(&app).await;
}

#[tokio::test]
async fn retry_of_failed_delivery_keeps_its_key() {
    let app = with_an_invoice().await;
    let [refused, lost, pending] =
        [to(&app, "accounting").await, to(&app, "ledger").await, to(&app, "events").await];
    send(&app, refused.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    send(&app, lost.delivery_id, failed(ReasonCode::AttemptsExhausted), Some(429)).await;
    let keys = [one(&app, refused.delivery_id).await, one(&app, lost.delivery_id).await]
        .map(|delivery| delivery.idempotency_key);

    let ids = [refused.delivery_id, lost.delivery_id, pending.delivery_id, Uuid::nil()];
    let retried = retry(&app, &ids).await;
    assert_eq!(retried.deliveries.len(), 2, "{retried:?}");
    assert!(
        matches!(
            &retried.refused[..],
            [ActionRefusal::WrongState { .. }, ActionRefusal::NotFound(_)]
        ),
        "{retried:?}"
    );
    // A rejected request is rendered again. An uncertain one is looked up first and sent unchanged.
    let row = async |target: &str| {
        let sql = format!(
            "select concat_ws(' ', state, attempts, request) from deliveries
             where destination = '{target}'"
        );
        app.text(&sql).await
    };
    assert_eq!(row("accounting").await, "pending 0");
    assert_eq!(row("ledger").await, format!("uncertain 0 {REQUEST}"));
    assert_eq!(app.count("select count(*) from dead_letters where state = 'replayed'").await, 2);
    assert_eq!(app.count("select count(*) from replays where letter_count = 4").await, 1);
    assert_sound(&app).await;
    for (id, key) in ids.into_iter().zip(keys) {
        send(&app, id, delivered("INV-7"), Some(201)).await;
        assert_eq!(one(&app, id).await.idempotency_key, key);
        assert!(key.is_some());
    }
    assert_eq!(app.count("select count(*) from dead_letters where state = 'resolved'").await, 2);

    // Without a matching delivery no audit entry is written.
    let nothing = retry(&app, &[pending.delivery_id]).await;
    assert!(nothing.deliveries.is_empty() && nothing.replay_id.is_none(), "{nothing:?}");
    assert_eq!(app.count("select count(*) from replays").await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn retry_after_failed_rendering_is_allowed() {
    let app = with_an_invoice().await;
    let id = to(&app, "accounting").await.delivery_id;
    send(&app, id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    retry(&app, &[id]).await;
    // Its template fails now, so there is no request and no response.
    let unsent = attempt(id, None, failed(ReasonCode::InvalidValue), None);
    assert_eq!(settle(&app, unsent).await, 1);
    assert_eq!(app.text(LETTER).await, "open invalid_value");
    assert_eq!(retry(&app, &[id]).await.deliveries, [id]);
    assert_eq!(state(&app, id).await, "pending");
    assert_sound(&app).await;
}
