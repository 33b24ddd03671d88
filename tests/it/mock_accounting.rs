//! The mock accounting server as a process. Its API is tested in
//! `tests/mock_accounting/tests.rs`.

use serde_json::json;

use crate::support::{MockAccounting, eventually, seconds};

const INVOICE: &str =
    r#"{"vendor":"ACME","number":"A 1","amount":"12.50","currency":"EUR","due":"2026-12-01"}"#;

#[tokio::test]
async fn mock_accounting_killed_keeps_invoices_keys_and_counts() {
    let mut accounting = MockAccounting::start().await;
    let (url, pid) = (accounting.url(), accounting.pid());
    let first = accounting.create("one", INVOICE).await.bytes().await.unwrap();
    accounting.create("two", &INVOICE.replace("A 1", "A 2")).await;
    accounting.delete("INV-000002").await;
    // Kill it after it created the third invoice and before its response.
    accounting.faults(json!({"timeout_after_create_every": 1})).await;
    let third = INVOICE.replace("A 1", "A 3");
    let unanswered = tokio::spawn(accounting.creation("three", &third).send());
    eventually("the third", seconds(10), async || accounting.invoices().await.len() == 2).await;
    accounting.kill().await;
    unanswered.await.unwrap().unwrap_err();
    assert!(accounting.creation("one", INVOICE).send().await.unwrap_err().is_connect());

    accounting.restart().await;
    assert_eq!(accounting.url(), url);
    assert_ne!(accounting.pid(), pid);
    let invoices = accounting.invoices().await;
    let numbers: Vec<&str> = invoices.iter().map(|invoice| invoice.number.as_str()).collect();
    assert_eq!(numbers, ["A 1", "A 3"]);
    assert_eq!(accounting.create("one", INVOICE).await.bytes().await.unwrap(), first);
    let third = accounting.create("three", &third).await;
    assert!(third.text().await.unwrap().contains("INV-000003"));
    assert_eq!(accounting.calls("one").await.arrived, 2);
    assert_eq!(accounting.arrived().await, 5);
    // Ids are not reused.
    let fourth = accounting.create("four", &INVOICE.replace("A 1", "A 4")).await;
    assert!(fourth.text().await.unwrap().contains("INV-000004"));
}
