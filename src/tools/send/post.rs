//! Posts one webhook and waits for its response.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use reqwest::{Client, Response, Url, redirect};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Time limit for a whole response.
const TIMEOUT: Duration = Duration::from_secs(30);
/// As many retries as Shopify makes.
const MAX_RESENDS: u32 = 8;
/// The maximum delay of a retry, whatever `Retry-After` says.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Posts webhooks to one URL.
#[derive(Clone, Debug)]
pub(crate) struct Poster {
    client: Client,
    url: Url,
    retry: bool,
}

/// The result of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostResult {
    /// The last response's status; `None` without a response.
    pub(crate) status: Option<StatusCode>,
    /// The latency of the last response.
    pub(crate) latency: Duration,
    /// The number of retries.
    pub(crate) resends: u32,
    /// Attempts that the receiver may or may not have published: a 5xx, or no
    /// response on an open connection.
    pub(crate) uncertain: u32,
}

impl Poster {
    pub(crate) fn new(url: Url, connections: usize, retry: bool) -> reqwest::Result<Self> {
        crate::net::tls::install_crypto_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("tallyhook-send/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(connections)
            .redirect(redirect::Policy::none())
            // A proxy would add its own latency and errors.
            .no_proxy();
        if url.scheme() == "http" {
            // Loading the system's certificates takes time, and fails in images
            // without any.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build()?, url, retry })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Posts a webhook, and with `retry` again after 429, 503 or no response, until
    /// `stop`. `headers` returns the headers of an attempt.
    pub(crate) async fn post(
        &self,
        headers: impl Fn() -> HeaderMap,
        body: &Bytes,
        stop: &CancellationToken,
    ) -> PostResult {
        let (mut resends, mut uncertain) = (0, 0);
        loop {
            let started = Instant::now();
            let request = self.client.post(self.url.clone()).headers(headers()).body(body.clone());
            let (status, delay) = match response(request).await {
                Ok((status, delay)) => {
                    uncertain += u32::from(status.is_server_error());
                    (Some(status), delay)
                }
                Err(error) => {
                    uncertain += u32::from(!error.is_connect());
                    (None, None)
                }
            };
            let latency = started.elapsed();
            let retryable = match status {
                None => true,
                Some(status) => {
                    status == StatusCode::TOO_MANY_REQUESTS
                        || status == StatusCode::SERVICE_UNAVAILABLE
                }
            };
            let result = PostResult { status, latency, resends, uncertain };
            if !(self.retry && retryable && resends < MAX_RESENDS) {
                return result;
            }
            tokio::select! {
                () = sleep(delay.unwrap_or_else(|| backoff(resends)).min(MAX_DELAY)) => {}
                () = stop.cancelled() => return result,
            }
            resends += 1;
        }
    }
}

/// Reads the whole response: its status and `Retry-After`.
async fn response(
    request: reqwest::RequestBuilder,
) -> reqwest::Result<(StatusCode, Option<Duration>)> {
    let response = request.send().await?;
    let result = (response.status(), retry_after(&response));
    // The connection can only be reused after the whole body.
    response.bytes().await?;
    Ok(result)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// 1, 2, 4 ... s, without `Retry-After`.
fn backoff(resends: u32) -> Duration {
    Duration::from_secs(1 << resends.min(5))
}
