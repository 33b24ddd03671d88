//! What is asked of the receiver: take this file, and what became of it.

mod upload;

use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, StatusCode};
use reqwest::{Client, RequestBuilder, Response, Url, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    super::{receiver, show},
    answer::{Item, Page, Progress},
};
use crate::adapter::Adapter;
pub(super) use upload::{Input, MAYBE, Upload};

/// How long the receiver may take over an answer that it only looks up.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to come.
const CONNECT: Duration = Duration::from_secs(10);

/// A receiver of imports.
pub(super) struct Receiver {
    client: Client,
    base: Url,
}

/// Why the receiver's answer is not the one asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It answered with a problem.
    #[error("the receiver answered {status}{detail}")]
    Answered {
        status: StatusCode,
        /// What it says about it, behind a colon.
        detail: String,
        /// How long it asks to wait.
        wait: Option<Duration>,
    },
    /// There was no connection.
    #[error("no connection: {0}")]
    Unreached(String),
    /// There was no answer, or not all of it.
    #[error("{0}")]
    Silent(String),
}

impl Trouble {
    /// Whether the same may well be answered otherwise after a while.
    fn may_pass(&self) -> bool {
        match self {
            Self::Answered { status, .. } => {
                status.is_server_error()
                    || *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
            }
            Self::Unreached(_) | Self::Silent(_) => true,
        }
    }

    /// How long the receiver asks to wait.
    fn wait(&self) -> Option<Duration> {
        match self {
            Self::Answered { wait, .. } => *wait,
            Self::Unreached(_) | Self::Silent(_) => None,
        }
    }
}

/// The part of a problem (RFC 9457) that people read.
#[derive(Deserialize)]
struct Told {
    detail: String,
}

impl Receiver {
    /// Prepares to talk to a receiver.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub(super) fn new(base: Url) -> anyhow::Result<Self> {
        crate::tls::install_crypto();
        let mut builder = Client::builder()
            .user_agent(concat!("tallyhook-import/", env!("CARGO_PKG_VERSION")))
            // None for the whole: a file takes as long as it takes.
            .connect_timeout(CONNECT)
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
    pub(super) async fn progress(&self, import_id: Uuid) -> Result<Option<Progress>, Trouble> {
        let url = receiver::beneath(&self.base, &["imports", &import_id.to_string()]);
        match read(self.client.get(url).timeout(TIMEOUT)).await {
            Ok(progress) => Ok(Some(progress)),
            Err(Trouble::Answered { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// Hands on lines of an import in the order of the file: all of them or
    /// those with this outcome, and of these at most so many.
    ///
    /// # Errors
    /// The receiver could not be asked; or what taking a line says.
    pub(super) async fn lines(
        &self,
        import_id: Uuid,
        credentials: &HeaderMap,
        outcome: Option<&str>,
        most: usize,
        mut take: impl FnMut(Item) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let id = import_id.to_string();
        let mut url = receiver::beneath(&self.base, &["imports", &id, "items"]);
        url.query_pairs_mut().append_pair("limit", "1000");
        if let Some(outcome) = outcome {
            url.query_pairs_mut().append_pair("outcome", outcome);
        }
        let mut taken = 0;
        loop {
            let request = self.client.get(url.clone()).headers(credentials.clone());
            let page: Page = read(request.timeout(TIMEOUT)).await?;
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
pub(super) fn credentials(adapter: &Adapter, tenant: Option<&str>) -> HeaderMap {
    let tenant = tenant.or(match adapter.tenants() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let headers = adapter.import_headers(tenant.unwrap_or_default(), OffsetDateTime::now_utc());
    headers.into_iter().collect()
}

/// The JSON that a request is answered with.
async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Trouble> {
    let response = request.send().await.map_err(silent)?;
    understood(response).await
}

async fn understood<T: DeserializeOwned>(response: Response) -> Result<T, Trouble> {
    let status = response.status();
    let wait = retry_after(&response);
    let body = response.bytes().await.map_err(silent)?;
    if !status.is_success() {
        let told = serde_json::from_slice::<Told>(&body).ok();
        let detail =
            told.map_or_else(String::new, |told| format!(": {}", show::harmless(&told.detail)));
        return Err(Trouble::Answered { status, detail, wait });
    }
    serde_json::from_slice(&body)
        .map_err(|error| Trouble::Silent(format!("the receiver's answer is not ours: {error}")))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(http::header::RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

/// All that an error of the HTTP client says, in one line.
fn silent(error: reqwest::Error) -> Trouble {
    let is_connect = error.is_connect();
    let error = anyhow::Error::new(error.without_url());
    // The outermost only says that a request was sent.
    let causes = error.chain().skip(1).map(ToString::to_string).collect::<Vec<_>>();
    let told = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if is_connect { Trouble::Unreached(told) } else { Trouble::Silent(told) }
}
