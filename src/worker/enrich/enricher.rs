//! Fetches resources from the platform of one source.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus::Histogram;
use tracing::{info, warn};

use crate::{
    domain::{PermanentFailure, ResourceChange, SourceName},
    net::{
        call_limiter::{CallLimiter, CallLimits, CallResult},
        http_client::{FetchError, FetchErrorKind, HttpFetcher, HttpOptions},
        secret_headers::{self, SecretHeaders},
        url_template::UrlTemplate,
    },
    observability::metrics::Metrics,
};

/// A batch is acknowledged after all its fetches, so its size is limited to
/// what the rate limit allows in this time.
const MAX_BATCH_FETCH_SECONDS: usize = 5;

/// How the resources that a source's thin events name are fetched.
#[derive(Clone, Debug)]
pub struct EnricherSettings {
    /// The URL of each kind of resource.
    pub urls: BTreeMap<String, UrlTemplate>,
    /// The headers of each request.
    pub headers: SecretHeaders,
    /// What may be fetched, and the limits of one fetch.
    pub http_options: HttpOptions,
    /// The limits of all fetches.
    pub call_limits: CallLimits,
}

/// Fetches the resources that the events of one source refer to. All consumers
/// of the source share it.
pub struct Enricher {
    settings: EnricherSettings,
    fetcher: HttpFetcher,
    limiter: CallLimiter,
    duration_seconds: Histogram,
}

/// A resource on a platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Resource {
    pub(super) tenant: String,
    pub(super) kind: String,
    pub(super) id: String,
}

/// The outcome of a fetch.
#[derive(Clone, Debug)]
pub(super) enum FetchOutcome {
    /// The body of the response.
    Fetched(Bytes),
    /// The attempt failed; the error and its causes.
    Failed(String),
    /// The configuration or the URL policy forbids the request.
    Blocked(String),
    /// The resource has no valid URL.
    Permanent(PermanentFailure),
    /// Not attempted: the circuit breaker stays open for this long.
    CircuitOpen(Duration),
}

impl Enricher {
    /// Builds the HTTP client and registers the metrics.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(
        source: &SourceName,
        settings: &EnricherSettings,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let labels = &[source.as_str()];
        let open = metrics.circuit_breaker_open.with_label_values(&["enrichment", source.as_str()]);
        open.set(0);
        // Exported before the first fetch, so that an alert sees 0.
        for result in super::ENRICHMENT_RESULTS {
            metrics.enrichments.with_label_values(&[source.as_str(), result]);
        }
        let source = source.clone();
        let on_state_change = move |is_open| {
            open.set(i64::from(is_open));
            if is_open {
                warn!(%source, "the platform does not respond; the circuit breaker is open");
            } else {
                info!(%source, "the platform responds again; the circuit breaker is closed");
            }
        };
        Ok(Self {
            fetcher: HttpFetcher::new(settings.http_options.clone())?,
            limiter: CallLimiter::new(&settings.call_limits, on_state_change),
            duration_seconds: metrics.enrichment_duration.with_label_values(labels),
            settings: settings.clone(),
        })
    }

    /// The maximum batch size of this source.
    pub fn batch_size(&self) -> usize {
        usize::try_from(self.settings.call_limits.rate_limit_per_second)
            .unwrap_or(usize::MAX)
            .saturating_mul(MAX_BATCH_FETCH_SECONDS)
    }

    /// Whether the resource of an event is fetched.
    pub(super) fn handles(&self, change: &ResourceChange) -> bool {
        !change.is_deletion() && self.settings.urls.contains_key(&change.kind)
    }

    /// Fetches a resource once the limits allow it.
    pub(super) async fn fetch(&self, resource: &Resource) -> FetchOutcome {
        let Resource { tenant, kind, id } = resource;
        let values = [("tenant", tenant.as_str()), ("kind", kind), ("id", id)];
        // Only resources that it handles are fetched.
        let Some(template) = self.settings.urls.get(kind) else {
            return FetchOutcome::Blocked(format!("no URL is configured for {kind}"));
        };
        let url = match template.fill(&values) {
            Ok(url) => url,
            Err(invalid) => {
                let failure = PermanentFailure::invalid(invalid.placeholder, invalid.to_string());
                return FetchOutcome::Permanent(failure);
            }
        };
        let permit = match self.limiter.acquire().await {
            Ok(permit) => permit,
            Err(retry_after) => return FetchOutcome::CircuitOpen(retry_after),
        };
        let headers = match secret_headers::resolve(&self.settings.headers, &values).await {
            Ok(headers) => headers,
            Err(error) => return FetchOutcome::Failed(error),
        };
        let begun = Instant::now();
        let response = self.fetcher.get(&url, headers).await;
        self.duration_seconds.observe(begun.elapsed().as_secs_f64());
        permit.record(match &response {
            Ok(_) => CallResult::Responded,
            Err(error) => call_result(error),
        });
        match response {
            Ok(body) => FetchOutcome::Fetched(body),
            Err(error) => {
                let is_blocked = error.kind == FetchErrorKind::Blocked;
                let error = format!("{:#}", anyhow::Error::from(error));
                if is_blocked { FetchOutcome::Blocked(error) } else { FetchOutcome::Failed(error) }
            }
        }
    }
}

/// What a failed fetch means for the circuit breaker.
fn call_result(error: &FetchError) -> CallResult {
    if error.is_outage() {
        CallResult::Unavailable(error.retry_after())
    } else if error.kind == FetchErrorKind::Blocked {
        CallResult::NotCalled
    } else {
        CallResult::Responded
    }
}
