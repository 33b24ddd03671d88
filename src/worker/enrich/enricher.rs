//! One source's way to its platform: its gate, its URLs, its headers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Histogram;
use tracing::{info, warn};

use crate::{
    config::EnrichmentSettings,
    domain::{PermanentFailure, ResourceChange, SourceName},
    net::{
        call_limiter::{CallLimiter, CallLimits, CallResult},
        http_client::{FetchError, FetchErrorKind, HttpFetcher},
        secret_headers,
    },
    observability::metrics::Metrics,
};

/// How many seconds' worth of fetches a batch may need: it is not
/// acknowledged before all of them are done.
const MAX_BATCH_FETCH_SECONDS: usize = 5;

/// Fetches what one source's events name. The source's lanes share it.
pub struct Enricher {
    settings: EnrichmentSettings,
    fetcher: HttpFetcher,
    limiter: CallLimiter,
    duration_seconds: Histogram,
}

/// One thing on a platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Resource {
    pub(super) tenant: String,
    pub(super) kind: String,
    pub(super) id: String,
}

/// What came of a wish to have a resource.
#[derive(Clone, Debug)]
pub(super) enum FetchOutcome {
    /// Its bytes.
    Fetched(Bytes),
    /// An attempt that failed; the error and its causes.
    Failed(String),
    /// As that, and it was we who refused.
    Blocked(String),
    /// It can never be fetched.
    Permanent(PermanentFailure),
    /// It was not asked for: the breaker is open for so long.
    CircuitOpen(Duration),
}

impl Enricher {
    /// Prepares the client.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(
        source: &SourceName,
        settings: &EnrichmentSettings,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let labels = &[source.as_str()];
        let open = metrics.enrichment_breaker_open.with_label_values(labels);
        open.set(0);
        // Shown before anything was fetched, so that an alert can tell 0 from nothing.
        for result in super::ENRICHMENT_RESULTS {
            metrics.enrichments.with_label_values(&[source.as_str(), result]);
        }
        let limits = CallLimits {
            max_concurrency: settings.max_concurrency,
            rate_limit_per_second: settings.rate_limit_per_second,
            circuit_breaker_threshold: settings.circuit_breaker_threshold,
            circuit_breaker_open: settings.circuit_breaker_open,
        };
        let source = source.clone();
        let changed = move |is_open| {
            open.set(i64::from(is_open));
            if is_open {
                warn!(%source, "the platform does not answer; fetching pauses");
            } else {
                info!(%source, "the platform answers again");
            }
        };
        Ok(Self {
            fetcher: HttpFetcher::new(settings.http_options.clone())?,
            limiter: CallLimiter::new(&limits, changed),
            duration_seconds: metrics.enrichment_duration.with_label_values(labels),
            settings: settings.clone(),
        })
    }

    /// The most messages that a batch of this source should have.
    pub fn batch_size(&self) -> usize {
        usize::try_from(self.settings.rate_limit_per_second)
            .unwrap_or(usize::MAX)
            .saturating_mul(MAX_BATCH_FETCH_SECONDS)
    }

    /// Whether what an event names is to be fetched.
    pub(super) fn handles(&self, reference: &ResourceChange) -> bool {
        !reference.is_deletion() && self.settings.urls.contains_key(&reference.kind)
    }

    /// Fetches a resource, when it is its turn.
    pub(super) async fn fetch(&self, resource: &Resource) -> FetchOutcome {
        let Resource { tenant, kind, id } = resource;
        let values = [("tenant", tenant.as_str()), ("kind", kind), ("id", id)];
        // Only what is wanted is asked for.
        let Some(template) = self.settings.urls.get(kind) else {
            return FetchOutcome::Blocked(format!("no URL is configured for {kind}"));
        };
        let url = match template.fill(&values) {
            Ok(url) => url,
            Err(unfit) => {
                return FetchOutcome::Permanent(PermanentFailure::invalid(
                    unfit.placeholder,
                    unfit.to_string(),
                ));
            }
        };
        let pass = match self.limiter.acquire().await {
            Ok(pass) => pass,
            Err(wait) => return FetchOutcome::CircuitOpen(wait),
        };
        let headers = match secret_headers::resolve(&self.settings.headers, &values).await {
            Ok(headers) => headers,
            Err(error) => return FetchOutcome::Failed(error),
        };
        let begun = Instant::now();
        let got = self.fetcher.get(&url, headers).await;
        self.duration_seconds.observe(begun.elapsed().as_secs_f64());
        pass.record(match &got {
            Ok(_) => CallResult::Responded,
            Err(error) => call_result(error),
        });
        match got {
            Ok(body) => FetchOutcome::Fetched(body),
            Err(error) => {
                let refused = error.kind == FetchErrorKind::Blocked;
                let error = format!("{:#}", anyhow::Error::from(error));
                if refused { FetchOutcome::Blocked(error) } else { FetchOutcome::Failed(error) }
            }
        }
    }
}

/// What a failed fetch tells about the platform.
fn call_result(error: &FetchError) -> CallResult {
    if error.is_outage() {
        CallResult::Unavailable(error.retry_after())
    } else if error.kind == FetchErrorKind::Blocked {
        CallResult::NotCalled
    } else {
        CallResult::Responded
    }
}
