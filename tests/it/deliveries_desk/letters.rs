//! The dead letters that lay failed deliveries before people.

use std::sync::Arc;

use tallyhook::{
    domain::Reason,
    review::{self, Replay, ReviewError, deliveries as desk},
    store::dead_letters,
};

use super::{
    ANNA, LETTER, REQUEST, assert_sound, delivered, failed, one, reissue, retry, send, state, to,
    with_an_invoice,
};
use crate::support::Rig;

async fn letters(rig: &Rig) -> Vec<dead_letters::Summary> {
    let filter = dead_letters::Filter { target: Some("economy".to_owned()), ..Default::default() };
    review::select(&rig.tools.store, &filter).await.unwrap()
}

async fn replay(rig: &Rig, letter: &dead_letters::Summary) -> Result<(), ReviewError> {
    let topology = Arc::clone(&rig.tools.topology);
    let (store, publisher) = (&rig.tools.store, &rig.tools.publisher);
    let filter = dead_letters::Filter::default();
    let run = Replay::open(store, publisher, topology, ANNA, &filter, 1).await.unwrap();
    run.send(letter).await
}

#[tokio::test]
async fn a_letter_of_a_delivery_is_replayed_to_its_target() {
    let rig = with_an_invoice().await;
    let id = to(&rig, "economy").await.delivery_id;
    send(&rig, id, failed(Reason::AttemptsExhausted), Some(503)).await;
    let letter = letters(&rig).await.pop().unwrap();
    assert_eq!((letter.delivery_id, letter.target.as_deref()), (Some(id), Some("economy")));
    let shown = review::show(&rig.tools.store, letter.dead_letter_id).await.unwrap();
    assert_eq!(shown.payload.as_deref(), Some(REQUEST));
    assert_eq!(shown.headers["response"], "{\"answered\":503}");

    replay(&rig, &letter).await.unwrap();
    assert_eq!(rig.text(LETTER).await, "replayed attempts_exhausted");
    assert_eq!(state(&rig, id).await, "uncertain");
    // An old list does not send it a second time, and it is in no queue.
    let again = replay(&rig, &letter).await;
    assert!(matches!(&again, Err(ReviewError::Closed(_, now)) if now == "replayed"), "{again:?}");
    assert!(rig.lane("erp").await.is_quiet().await);
    // It fails again, and then arrives.
    send(&rig, id, failed(Reason::DeliveryRefused), Some(422)).await;
    assert_eq!(rig.text(LETTER).await, "open delivery_refused");
    assert_sound(&rig).await;
    replay(&rig, &letters(&rig).await[0]).await.unwrap();
    send(&rig, id, delivered("INV-7"), Some(201)).await;
    assert_eq!(rig.text(LETTER).await, "resolved applied delivery_refused");
    let again = replay(&rig, &letter).await;
    assert!(matches!(&again, Err(ReviewError::Closed(_, now)) if now == "resolved"), "{again:?}");
    let acts = review::show(&rig.tools.store, letter.dead_letter_id).await.unwrap().acts;
    assert_eq!(acts.len(), 2);
    assert_eq!(desk::show(&rig.tools.store, id).await.unwrap().acts.len(), 2);
    assert_sound(&rig).await;
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn discarding_a_letter_voids_its_delivery_and_nothing_else() {
    let rig = with_an_invoice().await;
    let [economy, ledger] = [to(&rig, "economy").await, to(&rig, "ledger").await];
    for id in [economy.delivery_id, ledger.delivery_id] {
        send(&rig, id, failed(Reason::DeliveryRefused), Some(422)).await;
    }
    let letter = letters(&rig).await.pop().unwrap();
    let id = [letter.dead_letter_id];
    let discard = || review::discard(&rig.tools.store, &id, ANNA);
    // If it cannot be voided, the letter stays open.
    rig.execute(
        "create function hold() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger hold before update on deliveries for each row execute function hold()",
    )
    .await;
    assert!(discard().await.is_err());
    assert_eq!(letters(&rig).await[0].state, "open");
    rig.execute("drop trigger hold on deliveries").await;

    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0, "it is gone already");
    assert_eq!(letters(&rig).await[0].state, "discarded");
    let voided = one(&rig, economy.delivery_id).await;
    assert_eq!(voided.state, "voided");
    assert_eq!(voided.voided_by.as_deref(), Some("anna"));
    assert_eq!(voided.void_reason.as_deref(), Some(ANNA.reason));
    assert_eq!(state(&rig, ledger.delivery_id).await, "failed");
    let shown = desk::show(&rig.tools.store, economy.delivery_id).await.unwrap();
    assert_eq!(shown.acts.iter().map(|act| act.act.as_str()).collect::<Vec<_>>(), ["discard"]);
    // Neither an old list nor a retry brings it back; a re-issue does.
    let sent = replay(&rig, &letter).await;
    assert!(matches!(&sent, Err(ReviewError::Closed(_, now)) if now == "discarded"), "{sent:?}");
    assert!(retry(&rig, &[economy.delivery_id]).await.deliveries.is_empty());
    assert_eq!(reissue(&rig, economy.delivery_id, true).await.unwrap().delivery.generation, 1);
    // And one whose delivery is tried again meanwhile is not discarded.
    let other =
        rig.text("select dead_letter_id::text from dead_letters where state = 'open'").await;
    retry(&rig, &[ledger.delivery_id]).await;
    let late = review::discard(&rig.tools.store, &[other.parse().unwrap()], ANNA).await;
    assert_eq!(late.unwrap(), 0);
    assert_sound(&rig).await;
}
