//! Sends one request of any method and returns the response whatever its status. A request may
//! change something at the destination, so errors tell whether it may have arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, Response, Url, redirect::Policy, retry};
use time::OffsetDateTime;

use super::{
    FetchError, FetchErrorKind, HttpOptions, blocked, classify_error, client_builder,
    redacted_location, retry_after,
};

/// The longest time to connect, unless half of the request's time limit is shorter.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept.
///
/// Servers close idle connections: gunicorn after 2 s, Node and Apache after 5, nginx after 75. If
/// a request is written at that moment, it is unknown whether it arrived, which costs a look-up.
/// One second is shorter than all of them, and consecutive requests still share a connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends requests.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    client: Client,
    options: HttpOptions,
}

/// A response of any status.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The `Retry-After` header.
    pub retry_after: Option<Duration>,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Why the body is incomplete, if it is.
    pub truncated_by: Option<FetchErrorKind>,
}

impl HttpCaller {
    /// A caller with a connection pool of its own.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(options: HttpOptions) -> reqwest::Result<Self> {
        let client = client_builder(&options)
            // A redirected POST would be sent twice, or become a GET.
            .redirect(Policy::none())
            // Whether a request is repeated is the destination's decision. The pool still replaces
            // a connection that was closed before the first byte of the request.
            .retry(retry::never())
            .connect_timeout(MAX_CONNECT_TIMEOUT.min(options.timeout / 2))
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        Ok(Self { client, options })
    }

    /// Sends a request. Redirects are responses like any other, and so is a response whose body is
    /// too large or incomplete, because its status is known.
    ///
    /// # Errors
    /// [`FetchError`] without a status; see [`FetchError::may_have_arrived`].
    pub async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<HttpResponse, FetchError> {
        let fetch_error = |(kind, source)| FetchError {
            method: method.clone(),
            location: redacted_location(url),
            kind,
            source,
        };
        self.options.check_url(url).map_err(|violation| fetch_error(blocked(violation)))?;
        let mut request = self.client.request(method.clone(), url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| fetch_error(classify_error(error, self.options.timeout)))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
        let (body, truncated_by) = self.read_body(response).await;
        Ok(HttpResponse { status, retry_after, body, truncated_by })
    }

    async fn read_body(&self, mut response: Response) -> (Bytes, Option<FetchErrorKind>) {
        let limit = self.options.body_limit;
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = limit - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        return (body.freeze(), Some(FetchErrorKind::TooLarge(limit)));
                    }
                }
                Ok(None) => return (body.freeze(), None),
                Err(error) => {
                    let (kind, _) = classify_error(error, self.options.timeout);
                    return (body.freeze(), Some(kind));
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
