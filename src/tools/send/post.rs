//! Posts one webhook and waits for its answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use reqwest::{Client, Response, Url, redirect};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long the receiver may take over its whole answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often one webhook is sent again; as often as Shopify does.
const MOST_RESENDS: u32 = 8;
/// The longest wait before a webhook is sent again, whatever the receiver asks.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Posts webhooks to one address.
#[derive(Clone, Debug)]
pub struct Poster {
    client: Client,
    url: Url,
    retry: bool,
}

/// What came of one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The last answer's status; `None` if there was no answer.
    pub status: Option<StatusCode>,
    /// How long the last answer took.
    pub latency: Duration,
    /// How often it was sent again.
    pub resends: u32,
    /// How many attempts ended so that nobody knows whether the receiver
    /// kept them: a 5xx, or no answer after the connection stood.
    pub uncertain: u32,
}

impl Poster {
    /// Prepares a pool of connections to `url`.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(url: Url, connections: usize, retry: bool) -> reqwest::Result<Self> {
        crate::net::tls::install_crypto_provider();
        let mut builder = Client::builder()
            .user_agent(concat!("tallyhook-send/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(connections)
            .redirect(redirect::Policy::none())
            // A proxy's latency and errors are not the receiver's.
            .no_proxy();
        if url.scheme() == "http" {
            // The system's certificates take a while to load, and an image
            // without any would fail for want of what is not needed.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { client: builder.build()?, url, retry })
    }

    /// Where it posts to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Posts a webhook; with `retry`, again while nobody took it, until
    /// `stop`. `dress` makes the headers of each attempt.
    pub async fn post(
        &self,
        dress: impl Fn() -> HeaderMap,
        body: &Bytes,
        stop: &CancellationToken,
    ) -> Answer {
        let (mut resends, mut uncertain) = (0, 0);
        loop {
            let begun = Instant::now();
            let request = self.client.post(self.url.clone()).headers(dress()).body(body.clone());
            let (status, wait) = match answer(request).await {
                Ok((status, wait)) => {
                    uncertain += u32::from(status.is_server_error());
                    (Some(status), wait)
                }
                Err(error) => {
                    uncertain += u32::from(!error.is_connect());
                    (None, None)
                }
            };
            let latency = begun.elapsed();
            let again = match status {
                None => true,
                Some(status) => {
                    status == StatusCode::TOO_MANY_REQUESTS
                        || status == StatusCode::SERVICE_UNAVAILABLE
                }
            };
            let answer = Answer { status, latency, resends, uncertain };
            if !(self.retry && again && resends < MOST_RESENDS) {
                return answer;
            }
            tokio::select! {
                () = sleep(wait.unwrap_or_else(|| backoff(resends)).min(LONGEST_WAIT)) => {}
                () = stop.cancelled() => return answer,
            }
            resends += 1;
        }
    }
}

/// The whole answer: its status and how long it asks to wait.
async fn answer(
    request: reqwest::RequestBuilder,
) -> reqwest::Result<(StatusCode, Option<Duration>)> {
    let response = request.send().await?;
    let told = (response.status(), retry_after(&response));
    // Read to its end, or the connection cannot be used again.
    response.bytes().await?;
    Ok(told)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// 1, 2, 4 ... s, where the receiver does not say.
fn backoff(resends: u32) -> Duration {
    Duration::from_secs(1 << resends.min(5))
}
