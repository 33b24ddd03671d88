//! Void, re-issue and retry: the states in which each is allowed, and the rows it writes.

use std::time::Duration;

use serde_json::json;
use tallyhook::{
    domain::ReasonCode,
    review::{self, deliveries::DeliveryError},
    store::deliveries::ActionRefusal,
};
use uuid::Uuid;

use super::{
    ANNA, DEAD_LETTER, LEASE, MIRRORED_INVOICES, REQUEST, app_with_invoice, assert_sound, attempt,
    claim, delivered, delivery_by_id, failed, newest_delivery, record_attempt, reissue, retry,
    send, state, uncertain, void,
};
use crate::support::erp_invoice;

#[tokio::test]
async fn void_every_state_but_sending_succeeds_once() {
    let app = app_with_invoice().await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    let [pending, expired] =
        [newest_delivery(&app, "ledger").await, newest_delivery(&app, "events").await];
    assert_eq!(void(&app, pending.delivery_id).await.unwrap().state, "voided");

    let until = claim(&app, &delivery_by_id(&app, id).await, LEASE).await;
    let refused = void(&app, id).await;
    assert!(
        matches!(refused, Err(DeliveryError::Refused(ActionRefusal::InFlight(_)))),
        "{refused:?}"
    );
    assert_eq!(state(&app, id).await, "sending");
    record_attempt(&app, attempt(id, Some(until), uncertain(), None)).await;
    assert_eq!(void(&app, id).await.unwrap().state, "voided");

    // The lease of a killed worker does not block a void for ever.
    claim(&app, &expired, Duration::ZERO).await;
    assert_eq!(void(&app, expired.delivery_id).await.unwrap().state, "voided");

    let again = void(&app, id).await;
    assert!(
        matches!(&again, Err(DeliveryError::Refused(ActionRefusal::WrongState { .. }))),
        "{again:?}"
    );
    let missing = void(&app, Uuid::now_v7()).await;
    assert!(
        matches!(missing, Err(DeliveryError::Refused(ActionRefusal::NotFound(_)))),
        "{missing:?}"
    );
    let void_count = "select count(*) from audit_log where action = 'void' and actor = 'anna'
                and comment = 'deleted there by hand' and delivery_id is not null";
    assert_eq!(app.count(void_count).await, 3);
    assert_sound(&app).await;
}

#[tokio::test]
async fn void_failed_and_delivered_updates_related_rows() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    send(&app, accounting.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    assert_eq!(app.text(DEAD_LETTER).await, "open delivery_refused");
    let voided = void(&app, accounting.delivery_id).await.unwrap();
    assert_eq!(voided.void_comment.as_deref(), Some(ANNA.comment));
    assert_eq!(app.text(DEAD_LETTER).await, "discarded delivery_refused");
    let shown = review::deliveries::show(&app.context.store, accounting.delivery_id).await.unwrap();
    assert_eq!(shown.contents.request.as_deref(), Some(REQUEST));
    assert_eq!(shown.contents.response.as_deref(), Some("{\"answered\":422}"));
    assert_eq!(
        shown.history.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(),
        ["void"]
    );
    assert_eq!(shown.dead_letter.unwrap().destination.as_deref(), Some("accounting"));

    send(&app, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    let voided = void(&app, ledger.delivery_id).await.unwrap();
    assert_eq!((voided.remote_id.as_deref(), voided.delivered_at.is_some()), (Some("L-1"), true));
    assert_sound(&app).await;
}

#[tokio::test]
async fn invoice_is_mirrored_while_every_mirror_is_delivered() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    assert!(
        accounting.is_mirror
            && ledger.is_mirror
            && !newest_delivery(&app, "events").await.is_mirror
    );
    send(&app, accounting.delivery_id, delivered("INV-7"), Some(201)).await;
    assert_eq!(app.count(MIRRORED_INVOICES).await, 0, "one of two mirrors is delivered");
    send(&app, ledger.delivery_id, delivered("L-1"), Some(201)).await;
    assert_eq!(app.count(MIRRORED_INVOICES).await, 1);
    assert_sound(&app).await;

    void(&app, accounting.delivery_id).await.unwrap();
    assert_eq!(app.count(MIRRORED_INVOICES).await, 0, "a mirror delivery is voided");
    let new = reissue(&app, accounting.delivery_id, true).await.unwrap().delivery;
    assert_eq!(app.count(MIRRORED_INVOICES).await, 0, "the new delivery is pending");
    assert_sound(&app).await;
    send(&app, new.delivery_id, delivered("INV-8"), Some(201)).await;
    assert_eq!(app.count(MIRRORED_INVOICES).await, 1);
    assert_sound(&app).await;
}

#[tokio::test]
async fn reissue_of_voided_delivery_uses_a_new_key_and_the_current_document() {
    let app = app_with_invoice().await;
    let old = newest_delivery(&app, "accounting").await;
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
    let old = delivery_by_id(&app, old.delivery_id).await;

    let new = reissue(&app, old.delivery_id, true).await.unwrap();
    assert_eq!((new.delivery.issue, new.delivery.state.as_str()), (1, "pending"));
    assert!(new.key.is_some() && new.key != old.idempotency_key, "{new:?}");
    let shown =
        review::deliveries::show(&app.context.store, new.delivery.delivery_id).await.unwrap();
    assert_eq!(shown.contents.document["total"], "12.50");
    let issues: Vec<_> =
        shown.issues.iter().map(|issue| (issue.issue, issue.state.as_str())).collect();
    assert_eq!(issues, [(0, "voided"), (1, "pending")]);
    let history =
        review::deliveries::show(&app.context.store, old.delivery_id).await.unwrap().history;
    let entry = history.last().unwrap();
    assert_eq!((entry.action.as_str(), entry.comment.as_str()), ("reissue", ANNA.comment));
    assert_eq!(entry.detail["delivery_id"], json!(new.delivery.delivery_id));
    assert_eq!(
        (&entry.detail["confirmed_gone"], &entry.detail["was_sent"]),
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
    assert_eq!(delivery_by_id(&app, newest).await.idempotency_key, new.key);
    send(&app, newest, failed(ReasonCode::AttemptsExhausted), None).await;
    assert_eq!(retry(&app, &[newest]).await.deliveries, [newest]);
    send(&app, newest, delivered("INV-8"), Some(201)).await;
    assert_eq!(delivery_by_id(&app, newest).await.idempotency_key, new.key);
    void(&app, newest).await.unwrap();
    let third = reissue(&app, newest, true).await.unwrap();
    assert_eq!(third.delivery.issue, 2);
    assert!(![old.idempotency_key, new.key].contains(&third.key));
    assert_sound(&app).await;
}

#[tokio::test]
async fn retry_of_failed_delivery_keeps_its_key() {
    let app = app_with_invoice().await;
    let [refused, lost, pending] = [
        newest_delivery(&app, "accounting").await,
        newest_delivery(&app, "ledger").await,
        newest_delivery(&app, "events").await,
    ];
    send(&app, refused.delivery_id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    send(&app, lost.delivery_id, failed(ReasonCode::AttemptsExhausted), Some(429)).await;
    let keys = [
        delivery_by_id(&app, refused.delivery_id).await,
        delivery_by_id(&app, lost.delivery_id).await,
    ]
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
    let row = async |destination: &str| {
        let sql = format!(
            "select concat_ws(' ', state, attempts, request) from deliveries
             where destination = '{destination}'"
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
        assert_eq!(delivery_by_id(&app, id).await.idempotency_key, key);
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
    let app = app_with_invoice().await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    send(&app, id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    retry(&app, &[id]).await;
    // Its template fails now, so there is no request and no response.
    let unsent = attempt(id, None, failed(ReasonCode::InvalidValue), None);
    assert_eq!(record_attempt(&app, unsent).await, 1);
    assert_eq!(app.text(DEAD_LETTER).await, "open invalid_value");
    assert_eq!(retry(&app, &[id]).await.deliveries, [id]);
    assert_eq!(state(&app, id).await, "pending");
    assert_sound(&app).await;
}
