//! The same invoice number with another transaction is never a second invoice.

use tallyhook::{domain::Envelope, review::Actor};

use crate::support::{
    TestApp,
    events::{again, robot_invoice},
};

fn robot(on_conflict: &str) -> String {
    format!(
        "[sources.robot]\nkind = 'callback'\nsecrets = ['env:TOKEN']\n\
         on_conflict = '{on_conflict}'\n"
    )
}

async fn app(on_conflict: &str) -> TestApp {
    TestApp::with(&[&robot(on_conflict)], |_| ()).await
}

/// The same number with two transactions, the second one twice.
fn events() -> [Envelope; 4] {
    // In this order: the receipt ids decide which is the later one.
    let first = robot_invoice("R-7", "T1", "10.00");
    let second = robot_invoice("R-7", "T2", "12.00");
    let repeated = again(&second);
    [first, second, repeated, robot_invoice("R-8", "T3", "1.00")]
}

const INVOICES: &str = "select string_agg(
        concat_ws(' ', invoice_number, transaction_id, total), ', ' order by invoice_number)
    from invoices";

/// Applies events in one batch, or each in a batch of its own.
async fn apply(app: &TestApp, events: &[Envelope], at_once: bool) {
    let mut consumer = app.consumer("robot").await;
    if at_once {
        app.publish_all(events).await;
        consumer.drain(events.len()).await;
    } else {
        for event in events {
            app.publish_all(std::slice::from_ref(event)).await;
            consumer.step().await;
        }
    }
}

#[tokio::test]
async fn invoice_conflict_review_dead_letters_the_second() {
    for at_once in [true, false] {
        let app = app("review").await;
        let events = events();
        apply(&app, &events, at_once).await;
        app.archive_dead_letters(2).await;
        app.assert_outcomes(&events, &["applied", "dead", "dead", "applied"]).await;
        assert_eq!(app.text(INVOICES).await, "R-7 T1 10.00, R-8 T3 1.00");
        let dead_letter = app.text("select error from dead_letters limit 1").await;
        for side in ["R-7", "ACME", "T1", "10.00 EUR", "T2", "12.00 EUR"] {
            assert!(dead_letter.contains(side), "{side} is not shown: {dead_letter}");
        }
        let reason = "select count(*) from dead_letters where reason = 'invoice_conflict'
                      and business_key = 'R-7'";
        assert_eq!(app.count(reason).await, 2);
        app.assert_conserved(4).await;
    }
}

#[tokio::test]
async fn invoice_conflict_review_is_replayable_after_deletion() {
    let app = app("review").await;
    let events = events();
    apply(&app, &events[..2], true).await;
    app.archive_dead_letters(1).await;
    // An operator decides that the first one was wrong.
    app.execute("delete from invoices").await;
    let dead_letters = app.dead_letters().await;
    let anna = Actor { name: "anna", comment: "T1 was a mistake" };
    app.replay(&dead_letters, anna).await;
    app.consumer("robot").await.drain(1).await;
    assert_eq!(app.text(INVOICES).await, "R-7 T2 12.00");
    assert_eq!(app.text("select state from dead_letters").await, "resolved");
}

#[tokio::test]
async fn invoice_conflict_update_applies_the_later_one() {
    for at_once in [true, false] {
        let app = app("update").await;
        let events = events();
        apply(&app, &events, at_once).await;
        app.assert_outcomes(&events, &["applied", "applied", "duplicate", "applied"]).await;
        assert_eq!(app.text(INVOICES).await, "R-7 T2 12.00, R-8 T3 1.00");
        app.assert_conserved(4).await;
    }
}

#[tokio::test]
async fn invoice_conflict_duplicate_keeps_the_first() {
    for at_once in [true, false] {
        let app = app("duplicate").await;
        let events = events();
        apply(&app, &events, at_once).await;
        app.assert_outcomes(&events, &["applied", "duplicate", "duplicate", "applied"]).await;
        assert_eq!(app.text(INVOICES).await, "R-7 T1 10.00, R-8 T3 1.00");
        app.assert_conserved(4).await;
    }
}
