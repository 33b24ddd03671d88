//! What is asked of the receiver: take this file, and what became of it.

mod upload;

use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use super::api::{ImportStatus, ItemOutcome, ItemPage};
use crate::{
    cli::{output, receiver_url},
    sources::Source,
};
pub(super) use upload::{FileUpload, Input, MAYBE_TAKEN};

/// How long the receiver may take over an answer that it only looks up.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A receiver of imports.
pub(super) struct ReceiverClient {
    client: Client,
    base: Url,
}

/// Why the receiver's answer is not the one asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// It answered with a problem.
    #[error("the receiver answered {status}{detail}")]
    ErrorResponse {
        status: StatusCode,
        /// What it says about it, behind a colon.
        detail: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// There was no connection.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// There was no answer, or not all of it.
    #[error("{0}")]
    NoResponse(String),
}

impl UploadError {
    /// Whether the same may well be answered otherwise after a while.
    fn is_transient(&self) -> bool {
        match self {
            Self::ErrorResponse { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::NotConnected(_) | Self::NoResponse(_) => true,
        }
    }

    /// How long the receiver asks to wait.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ErrorResponse { retry_after: wait, .. } => *wait,
            Self::NotConnected(_) | Self::NoResponse(_) => None,
        }
    }
}

/// The part of a problem (RFC 9457) that people read.
#[derive(Deserialize)]
struct ProblemDetails {
    detail: String,
}

impl ReceiverClient {
    /// Prepares to talk to a receiver.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        crate::net::tls::install_crypto_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("tallyhook-import/", env!("CARGO_PKG_VERSION")))
            // None for the whole: a file takes as long as it takes.
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy();
        if base.scheme() == "http" {
            // The system's certificates take a while to load, and an image
            // without any would fail for want of what is not needed.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().context("the HTTP client cannot be set up")?;
        Ok(Self { client, base })
    }

    /// How far an import has come; `None` while the database does not know it.
    ///
    /// # Errors
    /// [`Trouble`]: it could not be asked.
    pub(super) async fn status(
        &self,
        import_id: Uuid,
    ) -> Result<Option<ImportStatus>, UploadError> {
        let url = receiver_url::append_path(&self.base, &["imports", &import_id.to_string()]);
        match fetch_json(self.client.get(url).timeout(RESPONSE_TIMEOUT)).await {
            Ok(progress) => Ok(Some(progress)),
            Err(UploadError::ErrorResponse { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Hands on lines of an import in the order of the file: all of them or
    /// those with this outcome, and of these at most so many.
    ///
    /// # Errors
    /// The receiver could not be asked; or what taking a line says.
    pub(super) async fn for_each_item(
        &self,
        import_id: Uuid,
        credentials: &HeaderMap,
        outcome: Option<&str>,
        most: usize,
        mut take: impl FnMut(ItemOutcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let id = import_id.to_string();
        let mut url = receiver_url::append_path(&self.base, &["imports", &id, "items"]);
        url.query_pairs_mut().append_pair("limit", "1000");
        if let Some(outcome) = outcome {
            url.query_pairs_mut().append_pair("outcome", outcome);
        }
        let mut taken = 0;
        loop {
            let request = self.client.get(url.clone()).headers(credentials.clone());
            let page: ItemPage = fetch_json(request.timeout(RESPONSE_TIMEOUT)).await?;
            for line in page.items {
                if taken == most {
                    return Ok(());
                }
                take(line)?;
                taken += 1;
            }
            let Some(next) = page.next else { return Ok(()) };
            // Of the address it tells only what is asked: a receiver behind a
            // proxy does not know its own path.
            let query = next.split_once('?').map(|(_, query)| query);
            anyhow::ensure!(query != url.query(), "the receiver tells the same lines again");
            url.set_query(query);
        }
    }
}

/// The headers that prove a file of this source, with its first secret. The
/// tenant is of use where a header tells it.
pub(super) fn credential_headers(adapter: &Source, tenant: Option<&str>) -> HeaderMap {
    let tenant = tenant.or(match adapter.tenants() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let headers = adapter.import_headers(tenant.unwrap_or_default(), OffsetDateTime::now_utc());
    headers.into_iter().collect()
}

/// The JSON that a request is answered with.
async fn fetch_json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, UploadError> {
    let response = request.send().await.map_err(transport_error)?;
    parse_response(response).await
}

async fn parse_response<T: DeserializeOwned>(response: Response) -> Result<T, UploadError> {
    let status = response.status();
    let wait = retry_after_header(&response);
    let body = response.bytes().await.map_err(transport_error)?;
    if !status.is_success() {
        let told = serde_json::from_slice::<ProblemDetails>(&body).ok();
        let detail = told.map_or_else(String::new, |told| {
            format!(": {}", output::strip_control_chars(&told.detail))
        });
        return Err(UploadError::ErrorResponse { status, detail, retry_after: wait });
    }
    serde_json::from_slice(&body).map_err(|error| {
        UploadError::NoResponse(format!("the receiver's answer is not ours: {error}"))
    })
}

fn retry_after_header(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// All that an error of the HTTP client says, in one line.
fn transport_error(error: reqwest::Error) -> UploadError {
    let is_connect = error.is_connect();
    let error = anyhow::Error::new(error.without_url());
    // The outermost only says that a request was sent.
    let causes = error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>();
    let told = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if is_connect { UploadError::NotConnected(told) } else { UploadError::NoResponse(told) }
}
