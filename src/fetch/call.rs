//! One call of any method, with the answer whatever its status. A call may
//! change something over there, so that it must be known whether it can have
//! arrived.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, Response, Url, redirect::Policy, retry};
use time::OffsetDateTime;

use super::{Cause, FetchError, Options, boxed, client, retry_after, target, told};

/// The longest that connecting may take: what is not there by then is away.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an unused connection is kept.
///
/// Whoever listens closes it after a time of its own (gunicorn after 2 s,
/// Node and Apache after 5, nginx after 75), and a request that is written
/// just then is lost with no word about whether it arrived: it is in doubt,
/// which costs a look-up. So connections are kept while calls come one after
/// the other, which spares a handshake each, and none is used that stood idle
/// for longer than the shortest of those.
const IDLE: Duration = Duration::from_secs(1);

/// Makes calls.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client,
    options: Options,
}

/// An answer, of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// How long it asks to wait.
    pub retry_after: Option<Duration>,
    /// The start of its body, up to the limit.
    pub body: Bytes,
    /// Why that is not all of it.
    pub cut: Option<Cause>,
}

impl Caller {
    /// Prepares a pool of connections.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(options: Options) -> reqwest::Result<Self> {
        let client = client(&options)
            // A redirect of a POST would be another call, or none.
            .redirect(Policy::none())
            // Whoever calls decides what is sent again. What the pool does
            // over a connection that was closed before the first byte of the
            // request is left to it.
            .retry(retry::never())
            .connect_timeout(CONNECT.min(options.timeout / 2))
            .pool_idle_timeout(IDLE)
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
    ) -> Result<Answer, FetchError> {
        let failed = |(cause, source)| FetchError {
            method: method.clone(),
            target: target(url),
            cause,
            source,
        };
        self.options.admit(url).map_err(|refusal| failed((Cause::Refused, boxed(refusal))))?;
        let mut request = self.client.request(method.clone(), url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response =
            request.send().await.map_err(|error| failed(told(error, self.options.timeout)))?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
        let (body, cut) = self.body(response).await;
        Ok(Answer { status, retry_after, body, cut })
    }

    async fn body(&self, mut response: Response) -> (Bytes, Option<Cause>) {
        let limit = self.options.body_limit;
        let mut body = BytesMut::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => {
                    let room = limit - body.len();
                    body.extend_from_slice(&piece[..piece.len().min(room)]);
                    if piece.len() > room {
                        return (body.freeze(), Some(Cause::TooLarge(limit)));
                    }
                }
                Ok(None) => return (body.freeze(), None),
                Err(error) => {
                    let (cause, _) = told(error, self.options.timeout);
                    return (body.freeze(), Some(cause));
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
