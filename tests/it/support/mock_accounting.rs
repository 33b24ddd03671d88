//! A mock accounting server for one test, as a process of its own.

use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tallyhook::tools::dev::servers::{MockAccountingOptions, MockAccountingServer, Options};
use tempfile::TempDir;

use super::http::client;

/// The bearer token of its clients.
pub(crate) const ACCOUNTING_TOKEN: &str = "mock-accounting-token";

/// A running mock accounting server. Dropping it ends the process and deletes its data.
pub(crate) struct MockAccounting {
    server: MockAccountingServer,
    client: Client,
    // Declared last: it goes after the process that writes to it.
    _folder: TempDir,
}

/// An invoice as the mock returns it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct MirroredInvoice {
    pub(crate) id: String,
    pub(crate) vendor: String,
    pub(crate) number: String,
    pub(crate) amount: String,
    pub(crate) currency: String,
    pub(crate) due: Option<String>,
}

/// Requests and created invoices of an idempotency key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Calls {
    pub(crate) arrived: u32,
    pub(crate) created: Vec<String>,
}

impl MockAccounting {
    /// Starts a server without faults on a free port.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = MockAccountingOptions {
            program: MockAccountingServer::program().unwrap(),
            token: ACCOUNTING_TOKEN.to_owned(),
            faults: "{}".to_owned(),
        };
        let server = MockAccountingServer::start_with(folder.path(), &options, &Options::default())
            .await
            .unwrap();
        Self { server, client: client(), _folder: folder }
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Restarts it on the same port and data, without faults.
    pub(crate) async fn restart(&mut self) {
        self.server.restart().await.unwrap();
        // Connections of the old client are closed.
        self.client = client();
    }

    /// Sets faults with `POST /faults`.
    pub(crate) async fn faults(&self, faults: Value) {
        let request = self.client.post(format!("{}/faults", self.url()));
        let response = request.bearer_auth(ACCOUNTING_TOKEN).body(faults.to_string()).send().await;
        let response = response.unwrap();
        assert_eq!(response.status(), 204, "{}", response.text().await.unwrap());
    }

    /// A request that creates an invoice, like a destination's.
    pub(crate) fn creation(&self, key: &str, body: &str) -> RequestBuilder {
        let request = self.client.post(format!("{}/invoices", self.url()));
        request
            .bearer_auth(ACCOUNTING_TOKEN)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    /// Creates an invoice; any response is accepted.
    pub(crate) async fn create(&self, key: &str, body: &str) -> Response {
        self.creation(key, body).send().await.unwrap()
    }

    /// All invoices but the deleted ones, the oldest first.
    pub(crate) async fn invoices(&self) -> Vec<MirroredInvoice> {
        self.listed("/invoices").await
    }

    /// The invoices of a vendor with this number, without the deleted ones.
    pub(crate) async fn find(&self, vendor: &str, number: &str) -> Vec<MirroredInvoice> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("vendor", vendor).append_pair("number", number);
        self.listed(&format!("/invoices?{}", query.finish())).await
    }

    /// Deletes an invoice, as a user of that system would.
    pub(crate) async fn delete(&self, id: &str) {
        let request = self.client.delete(format!("{}/invoices/{id}", self.url()));
        let response = request.bearer_auth(ACCOUNTING_TOKEN).send().await.unwrap();
        assert_eq!(response.status(), 204, "{id} is not there");
    }

    /// Requests and created invoices of this key.
    pub(crate) async fn calls(&self, key: &str) -> Calls {
        serde_json::from_str(&self.get(&format!("/calls?key={key}")).await).unwrap()
    }

    /// The number of create requests with any key.
    pub(crate) async fn arrived(&self) -> u32 {
        let calls: std::collections::BTreeMap<String, Calls> =
            serde_json::from_str(&self.get("/calls").await).unwrap();
        calls.values().map(|calls| calls.arrived).sum()
    }

    async fn listed(&self, path: &str) -> Vec<MirroredInvoice> {
        #[derive(Deserialize)]
        struct Listed {
            invoices: Vec<MirroredInvoice>,
        }
        serde_json::from_str::<Listed>(&self.get(path).await).unwrap().invoices
    }

    async fn get(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.url()));
        let response = request.bearer_auth(ACCOUNTING_TOKEN).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}
