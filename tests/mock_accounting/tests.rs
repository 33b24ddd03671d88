//! Tests of the mock accounting server; the API tests call it over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod admin_api;
mod faults;
mod listener;
mod state;
mod wal;

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{admin_api::Api, faults::Faults, state::State, wal::Wal};

const ONE: &str = r#"{"vendor":"ACME","number":"A 1","amount":"12.50","currency":"EUR"}"#;

/// A server in this process with its own log.
struct MockAccounting {
    folder: TempDir,
    url: String,
    server: JoinHandle<()>,
    client: Client,
}

impl MockAccounting {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let (url, server) = serve(folder.path()).await;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { folder, url, server, client }
    }

    /// Restarts with nothing but the log, as after `kill -9`.
    async fn restart(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.unwrap_err().is_cancelled());
        // Open connections hold the log's lock for a moment.
        self.client =
            Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        (self.url, self.server) = serve(self.folder.path()).await;
    }

    async fn create(&self, key: &str, body: &str) -> Response {
        self.creation(key, body).send().await.unwrap()
    }

    fn creation(&self, key: &str, body: &str) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/invoices", self.url)).bearer_auth("token");
        request.header("idempotency-key", key).body(body.to_owned())
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.client.get(format!("{}{path}", self.url)).bearer_auth("token");
        json_of(request.send().await.unwrap()).await
    }

    async fn delete(&self, id: &str) -> u16 {
        let request = self.client.delete(format!("{}/invoices/{id}", self.url));
        request.bearer_auth("token").send().await.unwrap().status().as_u16()
    }

    async fn faults(&self, faults: Value) {
        let request = self.client.post(format!("{}/faults", self.url)).bearer_auth("token");
        let answer = request.body(faults.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    }

    async fn count(&self) -> usize {
        self.get("/invoices").await["invoices"].as_array().unwrap().len()
    }
}

async fn serve(folder: &Path) -> (String, JoinHandle<()>) {
    // The previous server's connections may still hold the lock.
    let (wal, entries) = loop {
        match Wal::open(&folder.join("wal")) {
            Ok(opened) => break opened,
            Err(error) => assert!(error.to_string().contains("another process"), "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut state = State::default();
    for entry in entries {
        state.apply(entry);
    }
    let api = Api::new("token".to_owned(), Faults::default(), wal, state);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { listener::serve(listener, Arc::new(api)).await.unwrap() }))
}

async fn json_of(answer: Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn invoice_is_created_found_and_deleted() {
    let accounting = MockAccounting::start().await;
    let answer = accounting.create("a", ONE).await;
    assert_eq!(answer.status(), 201);
    let invoice = json!({"id": "INV-000001", "vendor": "ACME", "number": "A 1",
        "amount": "12.50", "currency": "EUR", "due": null});
    assert_eq!(json_of(answer).await, invoice);
    assert_eq!(accounting.get("/invoices/INV-000001").await, invoice);
    let found = accounting.get("/invoices?vendor=ACME&number=A%201").await;
    assert_eq!(found, json!({"invoices": [invoice]}));
    assert_eq!(accounting.get("/invoices?vendor=ACME&number=1").await, json!({"invoices": []}));
    assert_eq!(accounting.delete("INV-000001").await, 204);
    assert_eq!(accounting.delete("INV-000001").await, 404);
    assert_eq!(accounting.count().await, 0);
}

#[tokio::test]
async fn key_replays_response_after_restart_and_deletion() {
    let mut accounting = MockAccounting::start().await;
    let first = accounting.create("a", ONE).await.bytes().await.unwrap();
    assert_eq!(accounting.create("a", ONE).await.bytes().await.unwrap(), first);
    assert_eq!(accounting.delete("INV-000001").await, 204);
    accounting.restart().await;
    let again = accounting.create("a", ONE).await;
    assert_eq!(again.status(), 201);
    assert_eq!(again.bytes().await.unwrap(), first);
    assert_eq!(accounting.count().await, 0, "the response was replayed, no invoice was created");
    assert_eq!(
        accounting.get("/calls?key=a").await,
        json!({"arrived": 3, "created": ["INV-000001"]})
    );
    // Another key, as after a re-issue, makes another one.
    assert_eq!(json_of(accounting.create("b", ONE).await).await["id"], "INV-000002");
}

#[tokio::test]
async fn create_conflicting_invoice_is_rejected() {
    let accounting = MockAccounting::start().await;
    accounting.create("a", ONE).await;
    let other = accounting.create("a", &ONE.replace("12.50", "13")).await;
    assert_eq!(other.status(), 422);
    let exists = accounting.create("b", ONE).await;
    assert_eq!(exists.status(), 409);
    assert_eq!(
        json_of(exists).await,
        json!({"error": "invoice already exists", "id": "INV-000001"})
    );
    let wrong = accounting.create("c", "{}").await;
    assert_eq!(wrong.status(), 400);
    assert!(json_of(wrong).await["error"].as_str().unwrap().contains("vendor is missing"));
    assert_eq!(accounting.count().await, 1);
}

#[tokio::test]
async fn token_wrong_is_rejected() {
    let accounting = MockAccounting::start().await;
    for path in ["/invoices", "/faults"] {
        let request = accounting.client.post(format!("{}{path}", accounting.url)).body(ONE);
        assert_eq!(request.bearer_auth("other").send().await.unwrap().status(), 401);
    }
    assert_eq!(accounting.count().await, 0);
}

#[tokio::test]
async fn timeout_after_create_keeps_the_invoice() {
    let accounting = MockAccounting::start().await;
    accounting.faults(json!({"timeout_after_create_every": 2})).await;
    assert_eq!(accounting.create("a", ONE).await.status(), 201);
    let two = ONE.replace("A 1", "A 2");
    let timeout = Duration::from_millis(300);
    let error = accounting.creation("b", &two).timeout(timeout).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(accounting.count().await, 2);
    // The same key replays the response.
    loop {
        let answer = accounting.create("b", &two).await;
        // 409 until the server notices that the client gave up.
        if answer.status() == 409 {
            continue;
        }
        assert_eq!(answer.status(), 201);
        assert_eq!(json_of(answer).await["id"], "INV-000002");
        break;
    }
    assert_eq!(accounting.count().await, 2);
    // The next that is created is the first of two again.
    assert_eq!(accounting.create("c", &ONE.replace("A 1", "A 3")).await.status(), 201);
}

#[tokio::test]
async fn connection_closed_after_create_keeps_the_invoice() {
    let accounting = MockAccounting::start().await;
    accounting.faults(json!({"timeout_after_create_every": 1, "hang_ms": 0})).await;
    let error = accounting.creation("a", ONE).send().await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(accounting.count().await, 1);
}

#[tokio::test]
async fn create_late_holds_its_key_and_completes() {
    let accounting = MockAccounting::start().await;
    accounting.faults(json!({"late_create_every": 1, "late_ms": 700})).await;
    let timeout = Duration::from_millis(200);
    let error = accounting.creation("a", ONE).timeout(timeout).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(accounting.count().await, 0);
    let early = accounting.create("a", ONE).await;
    assert_eq!(early.status(), 409);
    assert_eq!(json_of(early).await["error"], "a request with this key is in progress");
    while accounting.count().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = json!({"arrived": 2, "created": ["INV-000001"]});
    assert_eq!(accounting.get("/calls?key=a").await, calls);
    assert_eq!(accounting.create("a", ONE).await.status(), 201);
    assert_eq!(accounting.count().await, 1);
}

#[tokio::test]
async fn fixed_response_replaces_the_real_one() {
    let accounting = MockAccounting::start().await;
    accounting
        .faults(json!({"answer": {"status": 429, "retry_after": 1, "body": "slow", "times": 2}}))
        .await;
    for _ in 0..2 {
        let answer = accounting.create("a", ONE).await;
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.text().await.unwrap(), "slow");
    }
    assert_eq!(accounting.count().await, 0);
    assert_eq!(accounting.create("a", ONE).await.status(), 201);
    accounting.faults(json!({"answer": {"status": 500, "method": "GET"}})).await;
    let found = accounting.client.get(format!("{}/invoices", accounting.url)).bearer_auth("token");
    assert_eq!(found.send().await.unwrap().status(), 500);
    accounting.faults(json!({"clear": true})).await;
    assert_eq!(accounting.count().await, 1);
}

#[tokio::test]
async fn duplicates_pass_creates_second_invoice() {
    let accounting = MockAccounting::start().await;
    accounting.faults(json!({"duplicates_pass": true})).await;
    accounting.create("a", ONE).await;
    assert_eq!(accounting.create("b", ONE).await.status(), 201);
    assert_eq!(accounting.count().await, 2);
}

#[tokio::test]
async fn vanish_for_a_time_keeps_all_invoices() {
    let accounting = MockAccounting::start().await;
    accounting.create("a", ONE).await;
    accounting.faults(json!({"vanish": {"ms": 400}, "timeout_after_create_every": 1})).await;
    // No request is accepted after the response.
    let error = accounting.creation("b", ONE).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    while accounting.creation("a", ONE).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(accounting.count().await, 1);
}

#[tokio::test]
async fn vanish_closes_waiting_connections() {
    let accounting = MockAccounting::start().await;
    accounting.faults(json!({"timeout_after_create_every": 1})).await;
    let waiting = tokio::spawn(accounting.creation("a", ONE).send());
    while accounting.count().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    accounting.faults(json!({"vanish": true})).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(!error.is_timeout(), "{error}");
}
