//! HTTPS clients for configured hosts: [`HttpFetcher`] gets a resource, [`HttpCaller`] sends a
//! request of any method. The SSRF guard checks every URL.

mod caller;

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{
    Client, ClientBuilder, Response,
    redirect::{Attempt, Policy},
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::ssrf_guard::{self, PublicResolver, UrlPolicyViolation};

pub use caller::{HttpCaller, HttpResponse};
pub use reqwest::Url;

/// The most redirects that are followed.
pub(super) const MAX_REDIRECTS: usize = 3;

/// What a client may request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The allowed hosts.
    pub hosts: Vec<String>,
    /// Whether hosts may have private addresses. This also allows plain HTTP to loopback
    /// addresses, for tests and development.
    pub allow_private_addresses: bool,
    /// The time limit of a whole request.
    pub timeout: Duration,
    /// The largest response body, in bytes.
    pub body_limit: usize,
}

impl HttpOptions {
    /// Checks a URL before its host is resolved.
    ///
    /// # Errors
    /// Why it is not allowed.
    pub fn check_url(&self, url: &Url) -> Result<(), UrlPolicyViolation> {
        ssrf_guard::check_url(url, &self.hosts, self.allow_private_addresses)
    }
}

/// Why a request has no complete response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchErrorKind {
    /// The SSRF guard blocked the request.
    #[error("blocked")]
    Blocked,
    /// There is no connection to the host.
    #[error("no connection")]
    Unreachable,
    /// The response was not complete in time.
    #[error("no complete response within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection was lost before the end of the response.
    #[error("the connection was lost before the end of the response")]
    Interrupted,
    /// The status is not 200.
    #[error("answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The `Retry-After` of the response.
        retry_after: Option<Duration>,
    },
    /// The body exceeds the limit.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
}

/// A failed request. The message names the method, the host and the path; never the query or a
/// header, which may hold secrets.
#[derive(Debug, thiserror::Error)]
#[error("{method} {location}: {kind}")]
pub struct FetchError {
    method: Method,
    location: String,
    /// What went wrong.
    pub kind: FetchErrorKind,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl FetchError {
    /// Whether the request may have reached the server, if only in part. It has not if the URL was
    /// blocked, or if there was no address, no connection or no TLS session.
    pub fn may_have_arrived(&self) -> bool {
        !matches!(self.kind, FetchErrorKind::Blocked | FetchErrorKind::Unreachable)
    }

    /// Whether every other request to the platform would fail too.
    pub fn is_outage(&self) -> bool {
        match &self.kind {
            FetchErrorKind::Unreachable
            | FetchErrorKind::Timeout(_)
            | FetchErrorKind::Interrupted => true,
            FetchErrorKind::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            FetchErrorKind::Blocked | FetchErrorKind::TooLarge(_) => false,
        }
    }

    /// How long the platform asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.kind {
            FetchErrorKind::Status { status, retry_after }
                if matches!(
                    *status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                ) =>
            {
                *retry_after
            }
            _ => None,
        }
    }
}

/// Gets resources.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    client: Client,
    options: HttpOptions,
}

impl HttpFetcher {
    /// A fetcher with a connection pool of its own.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(options: HttpOptions) -> reqwest::Result<Self> {
        let client = client_builder(&options).redirect(Policy::custom(redirect_policy)).build()?;
        Ok(Self { client, options })
    }

    /// The body of a response with status 200.
    ///
    /// # Errors
    /// [`FetchError`] for everything else.
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Bytes, FetchError> {
        let fetch_error = |(kind, source)| FetchError {
            method: Method::GET,
            location: redacted_location(url),
            kind,
            source,
        };
        self.options.check_url(url).map_err(|violation| fetch_error(blocked(violation)))?;
        let request = self.client.get(url.clone()).headers(headers);
        let response = request
            .send()
            .await
            .map_err(|error| fetch_error(classify_error(error, self.options.timeout)))?;
        let status = response.status();
        if status != StatusCode::OK {
            let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
            return Err(fetch_error((FetchErrorKind::Status { status, retry_after }, None)));
        }
        self.read_body(response).await.map_err(fetch_error)
    }

    async fn read_body(&self, mut response: Response) -> Result<Bytes, ClassifiedError> {
        let limit = self.options.body_limit;
        let content_length = response.content_length().unwrap_or_default();
        if usize::try_from(content_length).is_ok_and(|length| length > limit) {
            return Err((FetchErrorKind::TooLarge(limit), None));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| classify_error(error, self.options.timeout))?
        {
            if body.len() + chunk.len() > limit {
                return Err((FetchErrorKind::TooLarge(limit), None));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// The settings that [`HttpFetcher`] and [`HttpCaller`] have in common.
fn client_builder(options: &HttpOptions) -> ClientBuilder {
    super::tls::install_crypto_provider();
    let mut default_headers = HeaderMap::new();
    default_headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let resolver = PublicResolver { allow_private_addresses: options.allow_private_addresses };
    Client::builder()
        .user_agent(concat!("tallyhook/", env!("CARGO_PKG_VERSION")))
        .default_headers(default_headers)
        .timeout(options.timeout)
        .referer(false)
        // A proxy would resolve names itself, without the guard.
        .no_proxy()
        .dns_resolver(Arc::new(resolver))
}

/// A kind of error, and the error itself where its message says more.
type ClassifiedError = (FetchErrorKind, Option<Box<dyn Error + Send + Sync>>);

fn blocked(violation: UrlPolicyViolation) -> ClassifiedError {
    (FetchErrorKind::Blocked, Some(Box::new(violation)))
}

fn classify_error(error: reqwest::Error, timeout: Duration) -> ClassifiedError {
    let error = error.without_url();
    if let Some(violation) = policy_violation(&error) {
        return blocked(violation);
    }
    // Before the timeout: a timeout while connecting is a connection error too.
    if error.is_connect() {
        return (FetchErrorKind::Unreachable, Some(Box::new(error)));
    }
    if error.is_timeout() {
        return (FetchErrorKind::Timeout(timeout), None);
    }
    (FetchErrorKind::Interrupted, Some(Box::new(error)))
}

/// The violation that our resolver or redirect policy passed through the client.
fn policy_violation(error: &reqwest::Error) -> Option<UrlPolicyViolation> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(violation) = error.downcast_ref::<UrlPolicyViolation>() {
            return Some(violation.clone());
        }
        source = error.source();
    }
    None
}

/// Follows redirects within one origin, so that no other host sees the headers.
fn redirect_policy(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(UrlPolicyViolation::TooManyRedirects);
    }
    let origin = attempt.previous().first().map(Url::origin);
    if origin == Some(attempt.url().origin()) {
        return attempt.follow();
    }
    let host = attempt.url().host_str().unwrap_or_default().to_owned();
    attempt.error(UrlPolicyViolation::CrossOriginRedirect(host))
}

/// The host and path of a URL, for messages.
fn redacted_location(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{host}{port}{}", url.path())
}

/// The `Retry-After` of a response: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    // A date in the past asks for no wait.
    Some(Duration::try_from(until - now).unwrap_or_default())
}

#[cfg(test)]
pub(crate) use caller::tests::server;
#[cfg(test)]
mod tests;
