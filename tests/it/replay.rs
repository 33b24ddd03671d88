//! A dead letter leaves only by a person's act, and a replay is harmless (P5).

use std::sync::Arc;

use tallyhook::{
    domain::Envelope,
    review::{self, Replay, ReviewError},
    store::{
        acts::Actor,
        dead_letters::{Filter, Summary},
    },
};
use uuid::Uuid;

use crate::support::{Rig, events::again, shop_order};

const ANNA: Actor<'static> = Actor { name: "anna", reason: "ticket 17" };
const STATE: &str = "select concat_ws(' ', state, outcome, closed_at is not null,
                         replay_id is not null) from dead_letters";
const REFUSE: &str = "create function refuse() returns trigger language plpgsql as $$ begin
        raise division_by_zero; end $$;
    create trigger refuse before insert on orders for each row execute function refuse()";

/// A rig with one letter, whose cause is a trigger.
async fn with_a_letter() -> (Rig, Envelope) {
    let rig = Rig::new().await;
    rig.execute(REFUSE).await;
    let order = shop_order(1, 1, "10.00");
    rig.send(std::slice::from_ref(&order)).await;
    rig.lane("shop").await.step().await;
    rig.archive(1).await;
    (rig, order)
}

async fn mend(rig: &Rig) {
    rig.execute("drop trigger refuse on orders").await;
}

async fn letters(rig: &Rig) -> Vec<Summary> {
    review::select(&rig.tools.store, &Filter::default()).await.unwrap()
}

/// Sends letters again; gives the run's id.
async fn replay(rig: &Rig, letters: &[Summary]) -> Uuid {
    let run = open(rig, letters.len()).await;
    for letter in letters {
        run.send(letter).await.unwrap();
    }
    run.replay_id
}

async fn open(rig: &Rig, letters: usize) -> Replay<'_> {
    let topology = Arc::clone(&rig.tools.topology);
    let (store, publisher) = (&rig.tools.store, &rig.tools.publisher);
    Replay::open(store, publisher, topology, ANNA, &Filter::default(), letters).await.unwrap()
}

#[tokio::test]
async fn a_mended_letter_is_applied_and_resolved_in_one_transaction() {
    let (rig, order) = with_a_letter().await;
    assert_eq!(rig.text(STATE).await, "open f f");
    mend(&rig).await;
    // If the letter cannot be resolved, the order is not applied either.
    rig.execute(
        "create function hold() returns trigger language plpgsql as $$ begin
             raise division_by_zero; end $$;
         create trigger hold before update on dead_letters for each row
             when (new.state = 'resolved') execute function hold()",
    )
    .await;
    let letter = letters(&rig).await;
    let run = replay(&rig, &letter).await;
    assert_eq!(rig.text(STATE).await, "replayed f t");
    let mut lane = rig.lane("shop").await;
    lane.step().await;
    assert_eq!(rig.count("select count(*) from orders").await, 0);
    rig.archive(1).await;
    assert_eq!(rig.text(STATE).await, "open f t");

    rig.execute("drop trigger hold on dead_letters").await;
    replay(&rig, &letters(&rig).await).await;
    lane.step().await;
    assert_eq!(rig.text(STATE).await, "resolved applied t t");
    rig.assert_fates(&[order], &["applied"]).await;
    assert_eq!(rig.count("select count(*) from orders").await, 1);
    let audited = format!(
        "select count(*) from audit_log where actor = 'anna' and reason = 'ticket 17'
         and act = 'replay' and detail->>'replay_id' = '{run}' and dead_letter_id is not null"
    );
    assert_eq!(rig.count(&audited).await, 1);
    assert_eq!(rig.count("select count(*) from replays where letters = 1").await, 2);
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_letter_replayed_twice_is_applied_once() {
    let (rig, order) = with_a_letter().await;
    mend(&rig).await;
    let letter = letters(&rig).await;
    replay(&rig, &letter).await;
    replay(&rig, &letter).await;
    let mut lane = rig.lane("shop").await;
    lane.settle(2).await;
    assert_eq!(rig.text(STATE).await, "resolved applied t t");
    // And once more, after it was resolved, by somebody with an old list.
    let sent = open(&rig, 1).await.send(&letter[0]).await;
    assert!(matches!(sent, Err(ReviewError::Closed(..))), "{sent:?}");
    assert!(lane.is_quiet().await);
    assert_eq!(rig.text(STATE).await, "resolved applied t t");
    rig.assert_fates(&[order], &["applied"]).await;
    assert_eq!(rig.count("select count(*) from orders").await, 1);
    assert_eq!(rig.count("select count(*) from audit_log where act = 'replay'").await, 2);
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_replay_that_fails_again_opens_the_letter_again() {
    let (rig, order) = with_a_letter().await;
    let failed = "select last_failed_at::text from dead_letters";
    let first = "select first_failed_at::text from dead_letters";
    let (before, begun) = (rig.text(failed).await, rig.text(first).await);
    replay(&rig, &letters(&rig).await).await;
    rig.lane("shop").await.step().await;
    assert_eq!(rig.text(STATE).await, "replayed f t");
    rig.archive(1).await;
    assert_eq!(rig.text(STATE).await, "open f t");
    assert!(rig.text(failed).await > before);
    assert_eq!(rig.text(first).await, begun);
    rig.assert_fates(&[order], &["dead"]).await;
    assert_eq!(rig.count("select count(*) from dead_letters").await, 1);
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_letter_that_was_applied_meanwhile_is_resolved_as_a_duplicate() {
    let (rig, order) = with_a_letter().await;
    mend(&rig).await;
    let resent = again(&order);
    rig.send(std::slice::from_ref(&resent)).await;
    let mut lane = rig.lane("shop").await;
    lane.step().await;
    replay(&rig, &letters(&rig).await).await;
    lane.step().await;
    assert_eq!(rig.text(STATE).await, "resolved duplicate t t");
    rig.assert_fates(&[order, resent], &["duplicate", "applied"]).await;
    assert_eq!(rig.count("select count(*) from orders").await, 1);
    rig.assert_conserved(2).await;
}

#[tokio::test]
async fn archiving_a_message_twice_makes_one_letter_and_opens_no_resolved_one() {
    let (rig, order) = with_a_letter().await;
    let first = rig.text("select dead_letters::text from dead_letters").await;
    // The same message dies again, as after a crash before the acknowledgement.
    rig.send(std::slice::from_ref(&order)).await;
    let mut lane = rig.lane("shop").await;
    lane.step().await;
    rig.archive(1).await;
    assert_eq!(rig.text("select dead_letters::text from dead_letters").await, first);

    // Its second copy reaches the archiver only after it was resolved.
    rig.send(std::slice::from_ref(&order)).await;
    lane.step().await;
    mend(&rig).await;
    replay(&rig, &letters(&rig).await).await;
    lane.step().await;
    assert_eq!(rig.text(STATE).await, "resolved applied t t");
    rig.archive(1).await;
    assert_eq!(rig.text(STATE).await, "resolved applied t t");
    rig.assert_fates(&[order], &["applied"]).await;
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn only_an_open_letter_is_discarded_and_it_is_said_by_whom_and_why() {
    let (rig, _) = with_a_letter().await;
    let letter = letters(&rig).await;
    let id = [letter[0].dead_letter_id];
    replay(&rig, &letter).await;
    let discard = || review::discard(&rig.tools.store, &id, ANNA);
    assert_eq!(discard().await.unwrap(), 0, "it is under way");
    rig.lane("shop").await.step().await;
    rig.archive(1).await;
    assert_eq!(discard().await.unwrap(), 1);
    assert_eq!(discard().await.unwrap(), 0, "it is gone already");
    assert_eq!(rig.text(STATE).await, "discarded t t");
    let acts = "select string_agg(concat_ws(' ', act, actor, reason), ', ' order by audit_id)
                from audit_log";
    assert_eq!(rig.text(acts).await, "replay anna ticket 17, discard anna ticket 17");
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_discarded_letter_is_not_sent_again_by_an_old_list() {
    let (rig, order) = with_a_letter().await;
    mend(&rig).await;
    let letter = letters(&rig).await;
    let id = [letter[0].dead_letter_id];
    assert_eq!(review::discard(&rig.tools.store, &id, ANNA).await.unwrap(), 1);
    let sent = open(&rig, 1).await.send(&letter[0]).await;
    assert!(matches!(sent, Err(ReviewError::Closed(..))), "{sent:?}");
    assert!(rig.lane("shop").await.is_quiet().await);
    rig.assert_fates(&[order], &["dead"]).await;
    rig.assert_conserved(1).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_sent_stays_open() {
    let (servers, rig) = Rig::own(&[crate::support::SHOP], |_| ()).await;
    rig.execute(REFUSE).await;
    rig.send(&[shop_order(1, 1, "10.00")]).await;
    rig.lane("shop").await.step().await;
    rig.archive(1).await;
    let mut servers = servers;
    servers.rabbitmq.kill().await.unwrap();
    let letter = letters(&rig).await;
    let sent = open(&rig, 1).await.send(&letter[0]).await;
    assert!(matches!(sent, Err(ReviewError::NotSent { .. })), "{sent:?}");
    assert_eq!(rig.text(STATE).await, "open f f");
    rig.assert_conserved(1).await;
}
