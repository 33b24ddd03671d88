//! Fetching one resource over HTTPS, or making one call, at hosts that are
//! allowed and nowhere else. Knows HTTP and nothing of ours.
//!
//! The URL holds what an event says. Signed or not, it must not lead into
//! our own network: hosts stand on a list, names that resolve to private
//! addresses are refused, and so are redirects to anywhere else.

mod caller;

use std::{error::Error, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use reqwest::{
    Client, ClientBuilder, Response,
    redirect::{Attempt, Policy},
};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

pub use crate::net::url_template::{PlaceholderValues, TextTemplate, UrlTemplate};
pub use caller::{HttpCaller, HttpResponse};
pub use reqwest::Url;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;

/// What may be fetched, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The hosts that may be asked.
    pub hosts: Vec<String>,
    /// Whether hosts may be at addresses that are not the public's. Allows
    /// plain HTTP to loopback addresses too, for tests and development.
    pub allow_private_addresses: bool,
    /// How long a whole answer may take.
    pub timeout: Duration,
    /// The largest body, in bytes.
    pub body_limit: usize,
}

impl HttpOptions {
    /// Whether a URL may be asked, as far as it tells by itself.
    ///
    /// # Errors
    /// [`Refusal`]: why it may not.
    pub fn check_url(&self, url: &Url) -> Result<(), UrlPolicyViolation> {
        let host = url.host_str().unwrap_or_default();
        let literal = crate::net::ssrf_guard::literal_address(url);
        let tried_here = self.allow_private_addresses && literal.is_some_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if tried_here => {}
            _ => return Err(UrlPolicyViolation::Scheme),
        }
        if !self.hosts.iter().any(|allowed| allowed == host) {
            return Err(UrlPolicyViolation::HostNotAllowed(host.to_owned()));
        }
        if !self.allow_private_addresses
            && literal.is_some_and(|ip| !crate::net::ssrf_guard::is_public(ip))
        {
            return Err(UrlPolicyViolation::PrivateAddress(host.to_owned()));
        }
        Ok(())
    }
}

/// Why a URL is not asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlPolicyViolation {
    /// Not HTTPS.
    #[error("only https is fetched")]
    Scheme,
    /// A host that is not on the list.
    #[error("the host {0} is not one of the allowed hosts")]
    HostNotAllowed(String),
    /// A host with no address that is the public's.
    #[error("{0} is at a private address, which is not allowed")]
    PrivateAddress(String),
    /// A redirect to another scheme, host or port.
    #[error("it redirects to another host, {0}")]
    CrossOriginRedirect(String),
    /// Redirects without end.
    #[error("it redirects more than {MAX_REDIRECTS} times")]
    TooManyRedirects,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchErrorKind {
    /// We do not ask there.
    #[error("refused")]
    Blocked,
    /// The host could not be reached.
    #[error("no connection")]
    Unreachable,
    /// The whole answer did not come in time.
    #[error("no whole answer in {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The connection broke before the end of the answer.
    #[error("the answer broke off")]
    Interrupted,
    /// Any status but 200.
    #[error("answered {status}")]
    Status {
        /// The answer's status.
        status: StatusCode,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The body is larger than allowed.
    #[error("the body has more than {0} bytes")]
    TooLarge(usize),
}

/// A call that failed. Names the method, the host and the path; never the
/// query or a header, which may hold secrets.
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
    /// Whether the request may have arrived, if only in part. Only what the
    /// connector says happened before there was a connection, so that not a
    /// byte of a request was written: no address, no connection, no TLS. All
    /// else is in doubt.
    pub fn may_have_arrived(&self) -> bool {
        !matches!(self.kind, FetchErrorKind::Blocked | FetchErrorKind::Unreachable)
    }

    /// Whether the platform is to blame, not the request: others would fail
    /// as well.
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

/// Fetches resources.
#[derive(Clone, Debug)]
pub struct HttpFetcher {
    client: Client,
    options: HttpOptions,
}

impl HttpFetcher {
    /// Prepares a pool of connections.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(options: HttpOptions) -> reqwest::Result<Self> {
        let client = client_builder(&options).redirect(Policy::custom(redirect_policy)).build()?;
        Ok(Self { client, options })
    }

    /// The body of a 200.
    ///
    /// # Errors
    /// [`FetchError`] for everything else.
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Bytes, FetchError> {
        let failed = |(cause, source)| FetchError {
            method: Method::GET,
            location: redacted_location(url),
            kind: cause,
            source,
        };
        self.options
            .check_url(url)
            .map_err(|refusal| failed((FetchErrorKind::Blocked, boxed(refusal))))?;
        let request = self.client.get(url.clone()).headers(headers);
        let response = request
            .send()
            .await
            .map_err(|error| failed(classify_error(error, self.options.timeout)))?;
        let status = response.status();
        if status != StatusCode::OK {
            let retry_after = retry_after(response.headers(), OffsetDateTime::now_utc());
            return Err(failed((FetchErrorKind::Status { status, retry_after }, None)));
        }
        self.body(response).await.map_err(failed)
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, ClassifiedError> {
        let limit = self.options.body_limit;
        let announced = response.content_length().unwrap_or_default();
        if usize::try_from(announced).is_ok_and(|length| length > limit) {
            return Err((FetchErrorKind::TooLarge(limit), None));
        }
        let mut body = BytesMut::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| classify_error(error, self.options.timeout))?
        {
            if body.len() + piece.len() > limit {
                return Err((FetchErrorKind::TooLarge(limit), None));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}

/// A client with all that fetches and calls have in common.
fn client_builder(options: &HttpOptions) -> ClientBuilder {
    crate::net::tls::install_crypto_provider();
    let mut default_headers = HeaderMap::new();
    default_headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let guard = crate::net::resolver::PublicResolver {
        allow_private_addresses: options.allow_private_addresses,
    };
    Client::builder()
        .user_agent(concat!("tallyhook/", env!("CARGO_PKG_VERSION")))
        .default_headers(default_headers)
        .timeout(options.timeout)
        .referer(false)
        // A proxy would resolve names by itself, past the guard.
        .no_proxy()
        .dns_resolver(Arc::new(guard))
}

/// What an error of the client means.
fn classify_error(error: reqwest::Error, timeout: Duration) -> ClassifiedError {
    let error = error.without_url();
    if let Some(refusal) = policy_violation(&error) {
        return (FetchErrorKind::Blocked, boxed(refusal));
    }
    // Before the timeout: one that struck while connecting is this as well.
    if error.is_connect() {
        return (FetchErrorKind::Unreachable, Some(Box::new(error)));
    }
    if error.is_timeout() {
        return (FetchErrorKind::Timeout(timeout), None);
    }
    (FetchErrorKind::Interrupted, Some(Box::new(error)))
}

/// What went wrong, and the error behind it where it says more.
type ClassifiedError = (FetchErrorKind, Option<Box<dyn Error + Send + Sync>>);

#[expect(clippy::unnecessary_wraps, reason = "the shape of an error's source")]
fn boxed(refusal: UrlPolicyViolation) -> Option<Box<dyn Error + Send + Sync>> {
    Some(Box::new(refusal))
}

/// A refusal of ours that the client carries as the reason for its error.
fn policy_violation(error: &reqwest::Error) -> Option<UrlPolicyViolation> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(refusal) = error.downcast_ref::<UrlPolicyViolation>() {
            return Some(refusal.clone());
        }
        source = error.source();
    }
    None
}

/// Follows redirects within one scheme, host and port: whoever is asked was
/// allowed, and sees no more of the headers than before.
fn redirect_policy(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(UrlPolicyViolation::TooManyRedirects);
    }
    let origin = attempt.previous().first().map(Url::origin);
    if origin == Some(attempt.url().origin()) {
        return attempt.follow();
    }
    let to = attempt.url().host_str().unwrap_or_default().to_owned();
    attempt.error(UrlPolicyViolation::CrossOriginRedirect(to))
}

/// The host and the path, for messages.
fn redacted_location(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{host}{port}{}", url.path())
}

/// How long an answer asks to wait: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    // A date that has passed asks for no wait.
    Some(Duration::try_from(until - now).unwrap_or_default())
}

#[cfg(test)]
pub(crate) use caller::tests::server;
#[cfg(test)]
mod tests;
