//! The same invoice number with another transaction is never a second invoice.

use std::sync::Arc;

use tallyhook::{
    domain::Envelope,
    review::{self, Replay},
    store::{acts::Actor, dead_letters::Filter},
};

use crate::support::{
    Rig,
    events::{again, robot_invoice},
};

fn robot(on_conflict: &str) -> String {
    format!(
        "[sources.robot]\nkind = 'callback'\nsecrets = ['env:TOKEN']\n\
         on_conflict = '{on_conflict}'\n"
    )
}

async fn rig(on_conflict: &str) -> Rig {
    Rig::with(&[&robot(on_conflict)], |_| ()).await
}

/// The same number with two transactions, the second one twice.
fn events() -> [Envelope; 4] {
    // In this order: their receipts tell which one is the later.
    let first = robot_invoice("R-7", "T1", "10.00");
    let second = robot_invoice("R-7", "T2", "12.00");
    let repeated = again(&second);
    [first, second, repeated, robot_invoice("R-8", "T3", "1.00")]
}

const BOOKS: &str = "select string_agg(
        concat_ws(' ', invoice_number, transaction_id, total), ', ' order by invoice_number)
    from invoices";

/// In one batch, and each in one of its own.
async fn settle(rig: &Rig, events: &[Envelope], at_once: bool) {
    let mut lane = rig.lane("robot").await;
    if at_once {
        rig.send(events).await;
        lane.settle(events.len()).await;
    } else {
        for event in events {
            rig.send(std::slice::from_ref(event)).await;
            lane.step().await;
        }
    }
}

#[tokio::test]
async fn by_review_a_person_sees_both_and_the_first_stands() {
    for at_once in [true, false] {
        let rig = rig("review").await;
        let events = events();
        settle(&rig, &events, at_once).await;
        rig.archive(2).await;
        rig.assert_fates(&events, &["applied", "dead", "dead", "applied"]).await;
        assert_eq!(rig.text(BOOKS).await, "R-7 T1 10.00, R-8 T3 1.00");
        let letter = rig.text("select error from dead_letters limit 1").await;
        for side in ["R-7", "ACME", "T1", "10.00 EUR", "T2", "12.00 EUR"] {
            assert!(letter.contains(side), "{side} is not shown: {letter}");
        }
        let reason = "select count(*) from dead_letters where reason = 'invoice_conflict'
                      and business_key = 'R-7'";
        assert_eq!(rig.count(reason).await, 2);
        rig.assert_conserved(4).await;
    }
}

#[tokio::test]
async fn what_was_reviewed_can_be_replayed_once_the_first_is_gone() {
    let rig = rig("review").await;
    let events = events();
    settle(&rig, &events[..2], true).await;
    rig.archive(1).await;
    // A person decides that the first one was wrong.
    rig.execute("delete from invoices").await;
    let letters = review::select(&rig.tools.store, &Filter::default()).await.unwrap();
    let anna = Actor { name: "anna", reason: "T1 was a mistake" };
    let topology = Arc::clone(&rig.tools.topology);
    let (store, publisher) = (&rig.tools.store, &rig.tools.publisher);
    let run = Replay::open(store, publisher, topology, anna, &Filter::default(), 1).await.unwrap();
    run.send(&letters[0]).await.unwrap();
    rig.lane("robot").await.settle(1).await;
    assert_eq!(rig.text(BOOKS).await, "R-7 T2 12.00");
    assert_eq!(rig.text("select state from dead_letters").await, "resolved");
}

#[tokio::test]
async fn by_update_the_later_one_tells_the_state() {
    for at_once in [true, false] {
        let rig = rig("update").await;
        let events = events();
        settle(&rig, &events, at_once).await;
        rig.assert_fates(&events, &["applied", "applied", "duplicate", "applied"]).await;
        assert_eq!(rig.text(BOOKS).await, "R-7 T2 12.00, R-8 T3 1.00");
        rig.assert_conserved(4).await;
    }
}

#[tokio::test]
async fn by_duplicate_the_first_stands_and_nobody_is_asked() {
    for at_once in [true, false] {
        let rig = rig("duplicate").await;
        let events = events();
        settle(&rig, &events, at_once).await;
        rig.assert_fates(&events, &["applied", "duplicate", "duplicate", "applied"]).await;
        assert_eq!(rig.text(BOOKS).await, "R-7 T1 10.00, R-8 T3 1.00");
        rig.assert_conserved(4).await;
    }
}
