//! An HTTP client of the receiver: uploads files and requests their status.

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

/// Timeout of a status request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one receiver.
pub(super) struct ReceiverClient {
    client: Client,
    base: Url,
}

/// Why a request to the receiver failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The receiver answered with an error.
    #[error("the receiver answered {status}{detail}")]
    ErrorResponse {
        status: StatusCode,
        /// The response's detail after a colon, or nothing.
        detail: String,
        /// The response's `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No connection was established.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// There was no complete response.
    #[error("{0}")]
    NoResponse(String),
}

impl UploadError {
    /// Whether a retry may succeed.
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

    /// The delay that the receiver asks for.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ErrorResponse { retry_after, .. } => *retry_after,
            Self::NotConnected(_) | Self::NoResponse(_) => None,
        }
    }
}

/// The readable part of `application/problem+json` (RFC 9457).
#[derive(Deserialize)]
struct ProblemDetails {
    detail: String,
}

impl ReceiverClient {
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        crate::net::tls::install_crypto_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("tallyhook-import/", env!("CARGO_PKG_VERSION")))
            // No timeout for the whole upload, which depends on the file.
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy();
        if base.scheme() == "http" {
            // Loading the system's certificates takes time, and fails in
            // images that have none.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().context("the HTTP client cannot be set up")?;
        Ok(Self { client, base })
    }

    /// The status of an import; `None` if the database does not have it (yet).
    ///
    /// # Errors
    /// [`UploadError`].
    pub(super) async fn status(
        &self,
        import_id: Uuid,
    ) -> Result<Option<ImportStatus>, UploadError> {
        let url = receiver_url::append_path(&self.base, &["imports", &import_id.to_string()]);
        match fetch_json(self.client.get(url).timeout(RESPONSE_TIMEOUT)).await {
            Ok(status) => Ok(Some(status)),
            Err(UploadError::ErrorResponse { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls `handle` for items in the order of the file: all or those with an
    /// outcome, and at most `limit`.
    ///
    /// # Errors
    /// [`UploadError`], or the error of `handle`.
    pub(super) async fn for_each_item(
        &self,
        import_id: Uuid,
        credentials: &HeaderMap,
        outcome: Option<&str>,
        limit: usize,
        mut handle: impl FnMut(ItemOutcome) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let id = import_id.to_string();
        let mut url = receiver_url::append_path(&self.base, &["imports", &id, "items"]);
        url.query_pairs_mut().append_pair("limit", "1000");
        if let Some(outcome) = outcome {
            url.query_pairs_mut().append_pair("outcome", outcome);
        }
        let mut count = 0;
        loop {
            let request = self.client.get(url.clone()).headers(credentials.clone());
            let page: ItemPage = fetch_json(request.timeout(RESPONSE_TIMEOUT)).await?;
            for item in page.items {
                if count == limit {
                    return Ok(());
                }
                handle(item)?;
                count += 1;
            }
            let Some(next) = page.next else { return Ok(()) };
            // Only the query is used: behind a proxy the receiver does not know
            // its own path.
            let query = next.split_once('?').map(|(_, query)| query);
            anyhow::ensure!(query != url.query(), "the receiver repeats a page of items");
            url.set_query(query);
        }
    }
}

/// The headers that authenticate an upload with the source's first secret. The
/// tenant matters for sources that read it from a header.
pub(super) fn credential_headers(source: &Source, tenant: Option<&str>) -> HeaderMap {
    let tenant = tenant.or(match source.tenants() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let headers = source.import_headers(tenant.unwrap_or_default(), OffsetDateTime::now_utc());
    headers.into_iter().collect()
}

async fn fetch_json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, UploadError> {
    let response = request.send().await.map_err(transport_error)?;
    parse_response(response).await
}

async fn parse_response<T: DeserializeOwned>(response: Response) -> Result<T, UploadError> {
    let status = response.status();
    let retry_after = retry_after_header(&response);
    let body = response.bytes().await.map_err(transport_error)?;
    if !status.is_success() {
        let problem = serde_json::from_slice::<ProblemDetails>(&body).ok();
        let detail = problem.map_or_else(String::new, |problem| {
            format!(": {}", output::strip_control_chars(&problem.detail))
        });
        return Err(UploadError::ErrorResponse { status, detail, retry_after });
    }
    serde_json::from_slice(&body).map_err(|error| {
        UploadError::NoResponse(format!("the response is not from a tallyhook receiver: {error}"))
    })
}

fn retry_after_header(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// An error of the HTTP client with its causes on one line.
fn transport_error(error: reqwest::Error) -> UploadError {
    let is_connect = error.is_connect();
    let error = anyhow::Error::new(error.without_url());
    // The outermost error only says that a request failed.
    let causes = error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>();
    let text = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if is_connect { UploadError::NotConnected(text) } else { UploadError::NoResponse(text) }
}
