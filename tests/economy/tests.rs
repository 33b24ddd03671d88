//! The server as its callers see it, over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{books::Books, desk::Desk, door, faults::Faults, journal::Journal};

const ONE: &str = r#"{"vendor":"ACME","number":"A 1","amount":"12.50","currency":"EUR"}"#;

/// A server in this process, with a journal of its own.
struct Economy {
    folder: TempDir,
    url: String,
    server: JoinHandle<()>,
    client: Client,
}

impl Economy {
    async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let (url, server) = serve(folder.path()).await;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { folder, url, server, client }
    }

    /// As after `kill -9`: nothing but the journal is left.
    async fn restart(&mut self) {
        self.server.abort();
        assert!((&mut self.server).await.unwrap_err().is_cancelled());
        // Its connections hold the desk, and so the journal's lock, for a moment.
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
    // A moment's patience for the lock of the one before.
    let (journal, entries) = loop {
        match Journal::open(&folder.join("journal")) {
            Ok(opened) => break opened,
            Err(error) => assert!(error.to_string().contains("another process"), "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let mut books = Books::default();
    for entry in entries {
        books.enter(entry);
    }
    let desk = Desk::new("token".to_owned(), Faults::default(), journal, books);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { door::serve(listener, Arc::new(desk)).await.unwrap() }))
}

async fn json_of(answer: Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_invoice_is_created_found_and_deleted() {
    let economy = Economy::start().await;
    let answer = economy.create("a", ONE).await;
    assert_eq!(answer.status(), 201);
    let invoice = json!({"id": "INV-000001", "vendor": "ACME", "number": "A 1",
        "amount": "12.50", "currency": "EUR", "due": null});
    assert_eq!(json_of(answer).await, invoice);
    assert_eq!(economy.get("/invoices/INV-000001").await, invoice);
    let found = economy.get("/invoices?vendor=ACME&number=A%201").await;
    assert_eq!(found, json!({"invoices": [invoice]}));
    assert_eq!(economy.get("/invoices?vendor=ACME&number=1").await, json!({"invoices": []}));
    assert_eq!(economy.delete("INV-000001").await, 204);
    assert_eq!(economy.delete("INV-000001").await, 404);
    assert_eq!(economy.count().await, 0);
}

#[tokio::test]
async fn a_key_is_answered_alike_even_after_a_restart_and_a_deletion() {
    let mut economy = Economy::start().await;
    let first = economy.create("a", ONE).await.bytes().await.unwrap();
    assert_eq!(economy.create("a", ONE).await.bytes().await.unwrap(), first);
    assert_eq!(economy.delete("INV-000001").await, 204);
    economy.restart().await;
    let again = economy.create("a", ONE).await;
    assert_eq!(again.status(), 201);
    assert_eq!(again.bytes().await.unwrap(), first);
    assert_eq!(economy.count().await, 0, "the answer was remembered, not the invoice made anew");
    assert_eq!(economy.get("/calls?key=a").await, json!({"arrived": 3, "created": ["INV-000001"]}));
    // Another key, as after a re-issue, makes another one.
    assert_eq!(json_of(economy.create("b", ONE).await).await["id"], "INV-000002");
}

#[tokio::test]
async fn what_contradicts_is_refused() {
    let economy = Economy::start().await;
    economy.create("a", ONE).await;
    let other = economy.create("a", &ONE.replace("12.50", "13")).await;
    assert_eq!(other.status(), 422);
    let exists = economy.create("b", ONE).await;
    assert_eq!(exists.status(), 409);
    assert_eq!(
        json_of(exists).await,
        json!({"error": "invoice already exists", "id": "INV-000001"})
    );
    let wrong = economy.create("c", "{}").await;
    assert_eq!(wrong.status(), 400);
    assert!(json_of(wrong).await["error"].as_str().unwrap().contains("vendor is missing"));
    assert_eq!(economy.count().await, 1);
}

#[tokio::test]
async fn nobody_gets_in_without_the_token() {
    let economy = Economy::start().await;
    for path in ["/invoices", "/faults"] {
        let request = economy.client.post(format!("{}{path}", economy.url)).body(ONE);
        assert_eq!(request.bearer_auth("other").send().await.unwrap().status(), 401);
    }
    assert_eq!(economy.count().await, 0);
}

#[tokio::test]
async fn a_timeout_after_the_creation_has_created() {
    let economy = Economy::start().await;
    economy.faults(json!({"timeout_after_create_every": 2})).await;
    assert_eq!(economy.create("a", ONE).await.status(), 201);
    let two = ONE.replace("A 1", "A 2");
    let patience = Duration::from_millis(300);
    let error = economy.creation("b", &two).timeout(patience).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(economy.count().await, 2);
    // Asked again, it tells what it did.
    loop {
        let answer = economy.create("b", &two).await;
        // Until it has seen that the client gave up.
        if answer.status() == 409 {
            continue;
        }
        assert_eq!(answer.status(), 201);
        assert_eq!(json_of(answer).await["id"], "INV-000002");
        break;
    }
    assert_eq!(economy.count().await, 2);
    // The next that is created is the first of two again.
    assert_eq!(economy.create("c", &ONE.replace("A 1", "A 3")).await.status(), 201);
}

#[tokio::test]
async fn a_connection_can_be_lost_after_the_creation() {
    let economy = Economy::start().await;
    economy.faults(json!({"timeout_after_create_every": 1, "hang_ms": 0})).await;
    let error = economy.creation("a", ONE).send().await.unwrap_err();
    assert!(!error.is_timeout() && !error.is_connect(), "{error:?}");
    assert_eq!(economy.count().await, 1);
}

#[tokio::test]
async fn a_late_creation_holds_its_key_and_happens_though_nobody_waits() {
    let economy = Economy::start().await;
    economy.faults(json!({"late_create_every": 1, "late_ms": 700})).await;
    let patience = Duration::from_millis(200);
    let error = economy.creation("a", ONE).timeout(patience).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(economy.count().await, 0);
    let early = economy.create("a", ONE).await;
    assert_eq!(early.status(), 409);
    assert_eq!(json_of(early).await["error"], "a call with this key is under way");
    while economy.count().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = json!({"arrived": 2, "created": ["INV-000001"]});
    assert_eq!(economy.get("/calls?key=a").await, calls);
    assert_eq!(economy.create("a", ONE).await.status(), 201);
    assert_eq!(economy.count().await, 1);
}

#[tokio::test]
async fn answers_are_given_as_they_are_asked_for() {
    let economy = Economy::start().await;
    economy
        .faults(json!({"answer": {"status": 429, "retry_after": 1, "body": "slow", "times": 2}}))
        .await;
    for _ in 0..2 {
        let answer = economy.create("a", ONE).await;
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.text().await.unwrap(), "slow");
    }
    assert_eq!(economy.count().await, 0);
    assert_eq!(economy.create("a", ONE).await.status(), 201);
    economy.faults(json!({"answer": {"status": 500, "method": "GET"}})).await;
    let found = economy.client.get(format!("{}/invoices", economy.url)).bearer_auth("token");
    assert_eq!(found.send().await.unwrap().status(), 500);
    economy.faults(json!({"clear": true})).await;
    assert_eq!(economy.count().await, 1);
}

#[tokio::test]
async fn a_system_that_does_not_look_makes_a_second_one() {
    let economy = Economy::start().await;
    economy.faults(json!({"duplicates_pass": true})).await;
    economy.create("a", ONE).await;
    assert_eq!(economy.create("b", ONE).await.status(), 201);
    assert_eq!(economy.count().await, 2);
}

#[tokio::test]
async fn it_vanishes_and_comes_back_with_everything() {
    let economy = Economy::start().await;
    economy.create("a", ONE).await;
    economy.faults(json!({"vanish": {"ms": 400}, "timeout_after_create_every": 1})).await;
    // At once: no call gets through between the answer and the end.
    let error = economy.creation("b", ONE).send().await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    while economy.creation("a", ONE).send().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(economy.count().await, 1);
}

#[tokio::test]
async fn vanishing_cuts_off_who_is_waiting() {
    let economy = Economy::start().await;
    economy.faults(json!({"timeout_after_create_every": 1})).await;
    let waiting = tokio::spawn(economy.creation("a", ONE).send());
    while economy.count().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    economy.faults(json!({"vanish": true})).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert!(!error.is_timeout(), "{error}");
}
