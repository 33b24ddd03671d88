//! Dead letters of failed deliveries.

use tallyhook::{
    domain::ReasonCode,
    review::{
        self,
        dead_letters::{ReviewError, SelectedDeadLetters},
    },
    store::dead_letters::DeadLetterFilter,
};

use super::{
    ANNA, DEAD_LETTER, REQUEST, app_with_invoice, assert_sound, delivered, delivery_by_id, failed,
    newest_delivery, reissue, retry, send, state,
};
use crate::support::{TestApp, erp_order};

async fn dead_letters(app: &TestApp) -> SelectedDeadLetters {
    let destination = Some("accounting".to_owned());
    app.select_dead_letters(DeadLetterFilter { destination, ..Default::default() }).await
}

async fn replay(app: &TestApp, selected: &SelectedDeadLetters) -> Result<(), ReviewError> {
    app.try_replay(selected, ANNA).await.failures.into_iter().next().map_or(Ok(()), Err)
}

#[tokio::test]
async fn replay_of_delivery_dead_letter_sends_to_its_destination() {
    let app = app_with_invoice().await;
    let id = newest_delivery(&app, "accounting").await.delivery_id;
    send(&app, id, failed(ReasonCode::AttemptsExhausted), Some(503)).await;
    let selected = dead_letters(&app).await;
    let dead_letter = &selected.rows()[0];
    assert_eq!(
        (dead_letter.delivery_id, dead_letter.destination.as_deref()),
        (Some(id), Some("accounting"))
    );
    let shown =
        review::dead_letters::show(&app.context.store, dead_letter.dead_letter_id).await.unwrap();
    assert_eq!(shown.payload.as_deref(), Some(REQUEST));
    assert_eq!(shown.headers["response"], "{\"answered\":503}");

    replay(&app, &selected).await.unwrap();
    assert_eq!(app.text(DEAD_LETTER).await, "replayed attempts_exhausted");
    assert_eq!(state(&app, id).await, "uncertain");
    // A replay from an outdated list is rejected, and nothing is published.
    let again = replay(&app, &selected).await;
    assert!(
        matches!(&again, Err(ReviewError::AlreadyClosed(_, now)) if now == "replayed"),
        "{again:?}"
    );
    app.consumer("erp").await.assert_idle(&app, erp_order("1", 1, "1.00")).await;
    // It fails again, and then arrives.
    send(&app, id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    assert_eq!(app.text(DEAD_LETTER).await, "open delivery_refused");
    assert_sound(&app).await;
    replay(&app, &dead_letters(&app).await).await.unwrap();
    send(&app, id, delivered("INV-7"), Some(201)).await;
    assert_eq!(app.text(DEAD_LETTER).await, "resolved applied delivery_refused");
    let again = replay(&app, &selected).await;
    assert!(
        matches!(&again, Err(ReviewError::AlreadyClosed(_, now)) if now == "resolved"),
        "{again:?}"
    );
    let history = review::dead_letters::show(&app.context.store, dead_letter.dead_letter_id)
        .await
        .unwrap()
        .history;
    assert_eq!(history.len(), 2);
    assert_eq!(review::deliveries::show(&app.context.store, id).await.unwrap().history.len(), 2);
    assert_sound(&app).await;
    app.assert_conserved(2).await;
}

#[tokio::test]
async fn discard_of_delivery_dead_letter_voids_only_its_delivery() {
    let app = app_with_invoice().await;
    let [accounting, ledger] =
        [newest_delivery(&app, "accounting").await, newest_delivery(&app, "ledger").await];
    for id in [accounting.delivery_id, ledger.delivery_id] {
        send(&app, id, failed(ReasonCode::DeliveryRefused), Some(422)).await;
    }
    let selected = dead_letters(&app).await;
    let discard = || review::dead_letters::discard(&app.context.store, &selected, ANNA);
    // If the delivery cannot be voided, the dead letter stays open.
    app.execute(
        "create function hold() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger hold before update on deliveries for each row execute function hold()",
    )
    .await;
    assert!(discard().await.is_err());
    assert_eq!(dead_letters(&app).await.rows()[0].state, "open");
    app.execute("drop trigger hold on deliveries").await;

    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0, "it is gone already");
    assert_eq!(dead_letters(&app).await.rows()[0].state, "discarded");
    let voided = delivery_by_id(&app, accounting.delivery_id).await;
    assert_eq!(voided.state, "voided");
    assert_eq!(voided.voided_by.as_deref(), Some("anna"));
    assert_eq!(voided.void_comment.as_deref(), Some(ANNA.comment));
    assert_eq!(state(&app, ledger.delivery_id).await, "failed");
    let shown = review::deliveries::show(&app.context.store, accounting.delivery_id).await.unwrap();
    assert_eq!(
        shown.history.iter().map(|entry| entry.action.as_str()).collect::<Vec<_>>(),
        ["discard"]
    );
    // Neither an outdated list nor a retry sends it again; a re-issue does.
    let sent = replay(&app, &selected).await;
    assert!(
        matches!(&sent, Err(ReviewError::AlreadyClosed(_, now)) if now == "discarded"),
        "{sent:?}"
    );
    assert!(retry(&app, &[accounting.delivery_id]).await.deliveries.is_empty());
    assert_eq!(reissue(&app, accounting.delivery_id, true).await.unwrap().delivery.issue, 1);
    // A dead letter whose delivery is being retried is not discarded.
    let other =
        app.text("select dead_letter_id::text from dead_letters where state = 'open'").await;
    retry(&app, &[ledger.delivery_id]).await;
    let late = app.discard_dead_letter(other.parse().unwrap(), ANNA).await;
    assert_eq!(late.unwrap(), 0);
    assert_sound(&app).await;
}
