//! One source's way to its platform: its gate, its URLs, its headers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prometheus::Histogram;
use tracing::{info, warn};

use crate::{
    config::Enrichment,
    domain::{Failure, Reference, SourceName},
    fetch::{Cause, FetchError, Fetcher, headers},
    gate::{Gate, Limits, Verdict},
    metrics::Metrics,
};

/// How many seconds' worth of fetches a batch may need: it is not
/// acknowledged before all of them are done.
const BATCH_SECONDS: usize = 5;

/// Fetches what one source's events name. The source's lanes share it.
pub struct Enricher {
    settings: Enrichment,
    fetcher: Fetcher,
    gate: Gate,
    seconds: Histogram,
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
pub(super) enum Got {
    /// Its bytes.
    Whole(Bytes),
    /// An attempt that failed; the error and its causes.
    Failed(String),
    /// As that, and it was we who refused.
    Refused(String),
    /// It can never be fetched.
    Never(Failure),
    /// It was not asked for: the breaker is open for so long.
    Denied(Duration),
}

impl Enricher {
    /// Prepares the client.
    ///
    /// # Errors
    /// What the HTTP client says.
    pub fn new(
        source: &SourceName,
        settings: &Enrichment,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let labels = &[source.as_str()];
        let open = metrics.enrichment_breaker_open.with_label_values(labels);
        open.set(0);
        // Shown before anything was fetched, so that an alert can tell 0 from nothing.
        for result in super::RESULTS {
            metrics.enrichments.with_label_values(&[source.as_str(), result]);
        }
        let limits = Limits {
            concurrency: settings.concurrency,
            per_second: settings.per_second,
            breaker_failures: settings.breaker_failures,
            breaker_open: settings.breaker_open,
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
            fetcher: Fetcher::new(settings.fetch.clone())?,
            gate: Gate::new(&limits, changed),
            seconds: metrics.enrichment_seconds.with_label_values(labels),
            settings: settings.clone(),
        })
    }

    /// The most messages that a batch of this source should have.
    pub fn batch_size(&self) -> usize {
        usize::try_from(self.settings.per_second)
            .unwrap_or(usize::MAX)
            .saturating_mul(BATCH_SECONDS)
    }

    /// Whether what an event names is to be fetched.
    pub(super) fn wants(&self, reference: &Reference) -> bool {
        !reference.is_gone() && self.settings.urls.contains_key(&reference.kind)
    }

    /// Fetches a resource, when it is its turn.
    pub(super) async fn get(&self, resource: &Resource) -> Got {
        let Resource { tenant, kind, id } = resource;
        let values = [("tenant", tenant.as_str()), ("kind", kind), ("id", id)];
        // Only what is wanted is asked for.
        let Some(template) = self.settings.urls.get(kind) else {
            return Got::Refused(format!("no URL is configured for {kind}"));
        };
        let url = match template.fill(&values) {
            Ok(url) => url,
            Err(unfit) => return Got::Never(Failure::invalid(unfit.place, unfit.to_string())),
        };
        let pass = match self.gate.enter().await {
            Ok(pass) => pass,
            Err(wait) => return Got::Denied(wait),
        };
        let headers = match headers::fill(&self.settings.headers, &values).await {
            Ok(headers) => headers,
            Err(error) => return Got::Failed(error),
        };
        let begun = Instant::now();
        let got = self.fetcher.get(&url, headers).await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        pass.tell(match &got {
            Ok(_) => Verdict::Answered,
            Err(error) => verdict(error),
        });
        match got {
            Ok(body) => Got::Whole(body),
            Err(error) => {
                let refused = error.cause == Cause::Refused;
                let error = format!("{:#}", anyhow::Error::from(error));
                if refused { Got::Refused(error) } else { Got::Failed(error) }
            }
        }
    }
}

/// What a failed fetch tells about the platform.
fn verdict(error: &FetchError) -> Verdict {
    if error.is_outage() {
        Verdict::Away(error.retry_after())
    } else if error.cause == Cause::Refused {
        Verdict::Nothing
    } else {
        Verdict::Answered
    }
}
