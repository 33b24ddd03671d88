//! The stand-in economy system does what the tests of mirrors rely on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Economy, eventually, seconds};

const ONE: &str =
    r#"{"vendor":"ACME","number":"A 1","amount":"12.50","currency":"EUR","due":"2026-12-01"}"#;

#[tokio::test]
async fn a_key_replays_its_answer_after_the_invoice_was_deleted() {
    let economy = Economy::start().await;
    let first = economy.create("key", ONE).await;
    assert_eq!(first.status(), 201);
    let first = first.bytes().await.unwrap();
    let there = economy.find("ACME", "A 1").await;
    assert_eq!(there, economy.invoices().await);
    assert_eq!((there.len(), there[0].amount.as_str()), (1, "12.50"));
    assert_eq!(there[0].due.as_deref(), Some("2026-12-01"));

    economy.delete(&there[0].id).await;
    let again = economy.create("key", ONE).await;
    assert_eq!(again.status(), 201);
    assert_eq!(again.bytes().await.unwrap(), first);
    assert_eq!(economy.invoices().await, []);
    // A new key is a new invoice: what a re-issue needs.
    assert_eq!(economy.create("another", ONE).await.status(), 201);
    assert_ne!(economy.find("ACME", "A 1").await[0].id, there[0].id);
}

#[tokio::test]
async fn a_call_that_got_no_answer_created_its_invoice() {
    let economy = Economy::start().await;
    economy.faults(json!({"timeout_after_create_every": 1})).await;
    let patience = Duration::from_millis(300);
    let error = economy.creation("key", ONE).timeout(patience).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let there = economy.find("ACME", "A 1").await;
    assert_eq!(there.len(), 1);
    // The same key tells of the same invoice, once the first call is over.
    eventually("the first call to end", seconds(10), async || {
        let answer = economy.create("key", ONE).await;
        if answer.status() == 409 {
            assert!(answer.text().await.unwrap().contains("in progress"));
            return false;
        }
        assert_eq!(answer.status(), 201);
        let told: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(told["id"], *there[0].id);
        true
    })
    .await;
    let calls = economy.calls("key").await;
    assert!(calls.arrived >= 2, "{calls:?}");
    assert_eq!(calls.created, [there[0].id.clone()]);
}

#[tokio::test]
async fn a_crash_loses_neither_invoices_nor_keys_nor_counts() {
    let mut economy = Economy::start().await;
    let (url, pid) = (economy.url(), economy.pid());
    let first = economy.create("one", ONE).await.bytes().await.unwrap();
    economy.create("two", &ONE.replace("A 1", "A 2")).await;
    economy.delete("INV-000002").await;
    // In the middle of a call: it was created, and nobody was told.
    economy.faults(json!({"timeout_after_create_every": 1})).await;
    let unanswered = tokio::spawn(economy.creation("three", &ONE.replace("A 1", "A 3")).send());
    eventually("the third", seconds(10), async || economy.invoices().await.len() == 2).await;
    economy.kill().await;
    unanswered.await.unwrap().unwrap_err();
    assert!(economy.creation("one", ONE).send().await.unwrap_err().is_connect());

    economy.restart().await;
    assert_eq!(economy.url(), url);
    assert_ne!(economy.pid(), pid);
    let numbers: Vec<String> =
        economy.invoices().await.into_iter().map(|invoice| invoice.number).collect();
    assert_eq!(numbers, ["A 1", "A 3"]);
    assert_eq!(economy.create("one", ONE).await.bytes().await.unwrap(), first);
    let third = economy.create("three", &ONE.replace("A 1", "A 3")).await;
    assert!(third.text().await.unwrap().contains("INV-000003"));
    assert_eq!(economy.calls("one").await.arrived, 2);
    assert_eq!(economy.arrived().await, 5);
    // Numbers go on where they were: none is given twice.
    let fourth = economy.create("four", &ONE.replace("A 1", "A 4")).await;
    assert!(fourth.text().await.unwrap().contains("INV-000004"));
}

#[tokio::test]
async fn another_key_for_an_invoice_that_is_there_is_a_conflict_with_its_id() {
    let economy = Economy::start().await;
    economy.create("one", ONE).await;
    let conflict = economy.create("two", ONE).await;
    assert_eq!(conflict.status(), 409);
    let told: Value = serde_json::from_str(&conflict.text().await.unwrap()).unwrap();
    assert_eq!(told, json!({"error": "invoice already exists", "id": "INV-000001"}));
    assert_eq!(economy.create("one", &ONE.replace("12.50", "13")).await.status(), 422);
    // Unless the system is one that does not look.
    economy.faults(json!({"duplicates_pass": true})).await;
    assert_eq!(economy.create("two", ONE).await.status(), 201);
    assert_eq!(economy.find("ACME", "A 1").await.len(), 2);
}

#[tokio::test]
async fn a_late_creation_holds_its_key_and_happens_though_nobody_waits() {
    let economy = Economy::start().await;
    economy.faults(json!({"late_create_every": 1, "late_ms": 1500})).await;
    let patience = Duration::from_millis(300);
    let error = economy.creation("key", ONE).timeout(patience).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(economy.find("ACME", "A 1").await, []);
    let early = economy.create("key", ONE).await;
    assert_eq!(early.status(), 409);
    assert!(early.text().await.unwrap().contains("in progress"));
    eventually("the late one", seconds(10), async || economy.invoices().await.len() == 1).await;
    assert_eq!(economy.create("key", ONE).await.status(), 201);
    assert_eq!(economy.calls("key").await.created, ["INV-000001"]);
}

#[tokio::test]
async fn it_vanishes_for_a_while_and_answers_as_it_is_told_to() {
    let economy = Economy::start().await;
    economy.faults(json!({"answer": {"status": 503, "retry_after": 2, "times": 1}})).await;
    let refused = economy.create("key", ONE).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"2".parse().unwrap())
    );
    assert_eq!(economy.create("key", ONE).await.status(), 201);
    economy.faults(json!({"vanish": {"ms": 500}})).await;
    assert!(economy.creation("key", ONE).send().await.unwrap_err().is_connect());
    eventually("it to come back", seconds(10), async || {
        economy.creation("key", ONE).send().await.is_ok_and(|answer| answer.status() == 201)
    })
    .await;
    assert_eq!(economy.invoices().await.len(), 1);
}
