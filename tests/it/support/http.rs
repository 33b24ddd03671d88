//! The whole service, and HTTP clients.

use std::net::SocketAddr;

use reqwest::{Client, Response};
use tallyhook::{
    app::{App, Components, Roles},
    config::Config,
    sources::OutgoingWebhook,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{app::now, seconds};

/// A running service.
pub(crate) struct TestServer {
    pub(crate) service: App,
    components: Components,
    client: Client,
}

impl TestServer {
    /// Starts the service and waits until it is ready.
    pub(crate) async fn start(config: &Config, roles: Roles) -> Self {
        let service = App::start(config, roles).await.unwrap();
        timeout(seconds(60), service.wait_until_ready())
            .await
            .expect("the service did not become ready");
        Self { service, components: Components::build(config).unwrap(), client: client() }
    }

    pub(crate) fn receiver(&self) -> SocketAddr {
        self.service.receiver_address.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.receiver())
    }

    /// A client that tasks can own.
    pub(crate) fn webhook_client(&self) -> WebhookClient {
        WebhookClient {
            url: self.url(""),
            components: self.components.clone(),
            client: self.client.clone(),
        }
    }

    /// Posts a webhook as the platform would.
    pub(crate) async fn post(&self, source: &str, event_id: &str, body: &str) -> Response {
        self.webhook_client().post(source, event_id, body).await.unwrap()
    }

    pub(crate) async fn get(&self, url: &str) -> Response {
        self.client.get(url).send().await.unwrap()
    }

    /// Sends raw bytes and reads the head of the first response.
    pub(crate) async fn first_answer(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.receiver()).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 1024];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = timeout(seconds(20), stream.read(&mut piece)).await.unwrap().unwrap();
            assert!(read > 0, "the connection was closed without an answer");
            answer.extend_from_slice(&piece[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) async fn stop(self) {
        timeout(seconds(30), self.service.stop()).await.expect("the service did not stop");
    }
}

/// Posts webhooks.
#[derive(Clone)]
pub(crate) struct WebhookClient {
    url: String,
    components: Components,
    client: Client,
}

impl WebhookClient {
    pub(crate) async fn post(
        &self,
        source: &str,
        event_id: &str,
        body: &str,
    ) -> Result<Response, reqwest::Error> {
        let mut request = self.client.post(format!("{}/hooks/{source}", self.url));
        for (name, value) in dress(&self.components, source, event_id, body) {
            request = request.header(name.as_str(), value.as_bytes());
        }
        request.header("content-type", "application/json").body(body.to_owned()).send().await
    }
}

/// The headers of a platform's webhook, signed.
pub(crate) fn dress(
    components: &Components,
    source: &str,
    event_id: &str,
    body: &str,
) -> Vec<(http::HeaderName, http::HeaderValue)> {
    let source_config = &components.sources[&source.parse().unwrap()];
    source_config.signed_headers(&OutgoingWebhook {
        topic: if source == "woo" { "order.updated" } else { "orders/updated" },
        tenant: "demo.myshopify.com",
        event_id,
        triggered_at: now(),
        sent_at: now(),
        body: body.as_bytes(),
    })
}

/// A client with a timeout and without a proxy.
pub(crate) fn client() -> Client {
    // Another test may have been first.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().timeout(seconds(20)).no_proxy().build().unwrap()
}
