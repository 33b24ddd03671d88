//! The stand-in economy system of one test: a process of its own, to be
//! killed and asked what it has.

use reqwest::{Client, RequestBuilder, Response};
use serde::Deserialize;
use serde_json::Value;
use tallyhook::tools::dev::servers::{MockAccountingOptions, MockAccountingServer, Options};
use tempfile::TempDir;

use super::http::client;

/// What its callers must send as a bearer token.
pub(crate) const ECONOMY_TOKEN: &str = "a-token-of-the-economy-system";

/// A running stand-in. It ends, and its data goes, when this is dropped.
pub(crate) struct Economy {
    server: MockAccountingServer,
    client: Client,
    // Declared last: it goes after the process that writes to it.
    _folder: TempDir,
}

/// An invoice, as the stand-in has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Mirrored {
    pub(crate) id: String,
    pub(crate) vendor: String,
    pub(crate) number: String,
    pub(crate) amount: String,
    pub(crate) currency: String,
    pub(crate) due: Option<String>,
}

/// How often a key came, and what was created under it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Calls {
    pub(crate) arrived: u32,
    pub(crate) created: Vec<String>,
}

impl Economy {
    /// Starts one without faults on a free port, which stays its own.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let economy = MockAccountingOptions {
            program: MockAccountingServer::program().unwrap(),
            token: ECONOMY_TOKEN.to_owned(),
            faults: "{}".to_owned(),
        };
        let server = MockAccountingServer::start_with(folder.path(), &economy, &Options::default())
            .await
            .unwrap();
        Self { server, client: client(), _folder: folder }
    }

    /// Its URL, without a path.
    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await.unwrap();
    }

    /// Starts it again on the same port and data, without faults.
    pub(crate) async fn restart(&mut self) {
        self.server.restart().await.unwrap();
        // Connections to the one before are no good.
        self.client = client();
    }

    /// Sets faults, as the stand-in's `POST /faults` takes them.
    pub(crate) async fn faults(&self, faults: Value) {
        let request = self.client.post(format!("{}/faults", self.url()));
        let answer = request.bearer_auth(ECONOMY_TOKEN).body(faults.to_string()).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    }

    /// A call that creates an invoice, as a target's.
    pub(crate) fn creation(&self, key: &str, body: &str) -> RequestBuilder {
        let request = self.client.post(format!("{}/invoices", self.url()));
        request
            .bearer_auth(ECONOMY_TOKEN)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    /// Creates an invoice as a target would, and takes any answer.
    pub(crate) async fn create(&self, key: &str, body: &str) -> Response {
        self.creation(key, body).send().await.unwrap()
    }

    /// All invoices but the deleted ones, the oldest first.
    pub(crate) async fn invoices(&self) -> Vec<Mirrored> {
        self.listed("/invoices").await
    }

    /// The invoices of a vendor with this number, without the deleted ones.
    pub(crate) async fn find(&self, vendor: &str, number: &str) -> Vec<Mirrored> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("vendor", vendor).append_pair("number", number);
        self.listed(&format!("/invoices?{}", query.finish())).await
    }

    /// Deletes an invoice, as a person there would.
    pub(crate) async fn delete(&self, id: &str) {
        let request = self.client.delete(format!("{}/invoices/{id}", self.url()));
        let answer = request.bearer_auth(ECONOMY_TOKEN).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{id} is not there");
    }

    /// How often calls came under this key, and what they made.
    pub(crate) async fn calls(&self, key: &str) -> Calls {
        serde_json::from_str(&self.get(&format!("/calls?key={key}")).await).unwrap()
    }

    /// How often calls came, whatever their key.
    pub(crate) async fn arrived(&self) -> u32 {
        let calls: std::collections::BTreeMap<String, Calls> =
            serde_json::from_str(&self.get("/calls").await).unwrap();
        calls.values().map(|calls| calls.arrived).sum()
    }

    async fn listed(&self, path: &str) -> Vec<Mirrored> {
        #[derive(Deserialize)]
        struct Listed {
            invoices: Vec<Mirrored>,
        }
        serde_json::from_str::<Listed>(&self.get(path).await).unwrap().invoices
    }

    async fn get(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.url()));
        let answer = request.bearer_auth(ECONOMY_TOKEN).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        text
    }
}
