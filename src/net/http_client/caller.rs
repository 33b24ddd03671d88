//! One call of any method, with the answer whatever its status. A call may
//! change something over there, so that it must be known whether it can have
//! arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, Response, Url, redirect::Policy, retry};
use time::OffsetDateTime;

use super::{
    FetchError, FetchErrorKind, HttpOptions, boxed, classify_error, client_builder,
    redacted_location, retry_after,
};

/// The longest that connecting may take: what is not there by then is away.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
///
/// Whoever listens closes it after a time of its own (gunicorn after 2 s,
/// Node and Apache after 5, nginx after 75), and a request that is written
/// just then is lost with no word about whether it arrived: it is in doubt,
/// which costs a look-up. So connections are kept while calls come one after
/// the other, which spares a handshake each, and none is used that stood idle
/// for longer than the shortest of those.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes calls.
#[derive(Clone, Debug)]
pub struct HttpCaller {
    client: Client,
    options: HttpOptions,
}

/// An answer, of any status.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Its status.
    pub status: StatusCode,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
    /// The start of its body, up to the limit.
    pub body: Bytes,
    /// Why that is not all of it.
    pub truncated_by: Option<FetchErrorKind>,
}

impl HttpCaller {
    /// Prepares a pool of connections.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(options: HttpOptions) -> reqwest::Result<Self> {
        let client = client_builder(&options)
            // A redirect of a POST would be another call, or none.
            .redirect(Policy::none())
            // Whoever calls decides what is sent again. What the pool does
            // over a connection that was closed before the first byte of the
            // request is left to it.
            .retry(retry::never())
            .connect_timeout(MAX_CONNECT_TIMEOUT.min(options.timeout / 2))
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .build()?;
        Ok(Self { client, options })
    }

    /// Makes a call. Redirects are answers like any other, and so is a body
    /// that is too large or breaks off: the status was told.
    ///
    /// # Errors
    /// [`FetchError`] if no status came; see [`FetchError::may_have_arrived`].
    pub async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<HttpResponse, FetchError> {
        let failed = |(cause, source)| FetchError {
            method: method.clone(),
            location: redacted_location(url),
            kind: cause,
            source,
        };
        self.options
            .check_url(url)
            .map_err(|refusal| failed((FetchErrorKind::Blocked, boxed(refusal))))?;
        let mut request = self.client.request(method.clone(), url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| failed(classify_error(error, self.options.timeout)))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
        let (body, cut) = self.body(response).await;
        Ok(HttpResponse { status, retry_after, body, truncated_by: cut })
    }

    async fn body(&self, mut response: Response) -> (Bytes, Option<FetchErrorKind>) {
        let limit = self.options.body_limit;
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    let room = limit - body.len();
                    body.extend_from_slice(&piece[..piece.len().min(room)]);
                    if piece.len() > room {
                        return (body.freeze(), Some(FetchErrorKind::TooLarge(limit)));
                    }
                }
                Ok(None) => return (body.freeze(), None),
                Err(error) => {
                    let (cause, _) = classify_error(error, self.options.timeout);
                    return (body.freeze(), Some(cause));
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
