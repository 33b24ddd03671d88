//! One source's way to its platform: its rate, its breaker, its headers.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use prometheus::{Histogram, IntGauge};
use tokio::sync::{Notify, Semaphore};
use tracing::{info, warn};

use super::{
    breaker::{Breaker, Leave, Verdict},
    pace::Pace,
};
use crate::{
    config::{Enrichment, HeaderText},
    domain::{Failure, Reference, SourceName},
    fetch::{Cause, FetchError, Fetcher, Values},
    metrics::Metrics,
};

/// How many seconds' worth of fetches a batch may need: it is not
/// acknowledged before all of them are done.
const BATCH_SECONDS: usize = 5;

/// Fetches what one source's events name. The source's lanes share it.
pub struct Enricher {
    source: SourceName,
    settings: Enrichment,
    fetcher: Fetcher,
    permits: Semaphore,
    pace: Mutex<Pace>,
    breaker: Mutex<Breaker>,
    /// The breaker was told something.
    told: Notify,
    seconds: Histogram,
    open: IntGauge,
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
    Denied(std::time::Duration),
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
        Ok(Self {
            fetcher: Fetcher::new(settings.fetch.clone())?,
            permits: Semaphore::new(settings.concurrency),
            pace: Mutex::new(Pace::new(settings.per_second)),
            breaker: Mutex::new(Breaker::new(settings.breaker_failures, settings.breaker_open)),
            told: Notify::new(),
            seconds: metrics.enrichment_seconds.with_label_values(labels),
            open,
            source: source.clone(),
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
        let values = Values { tenant, kind, id };
        // Only what is wanted is asked for.
        let Some(template) = self.settings.urls.get(kind) else {
            return Got::Refused(format!("no URL is configured for {kind}"));
        };
        let url = match template.fill(&values) {
            Ok(url) => url,
            Err(unfit) => return Got::Never(Failure::invalid(unfit.place, unfit.to_string())),
        };
        // Never closed.
        let _permit = self.permits.acquire().await;
        let mut turn = match self.turn().await {
            Ok(turn) => turn,
            Err(wait) => return Got::Denied(wait),
        };
        let headers = match self.headers(&values).await {
            Ok(headers) => headers,
            Err(error) => return Got::Failed(error),
        };
        let slot = lock(&self.pace).slot(Instant::now());
        tokio::time::sleep(slot).await;
        let begun = Instant::now();
        let got = self.fetcher.get(&url, headers).await;
        self.seconds.observe(begun.elapsed().as_secs_f64());
        turn.verdict = match &got {
            Ok(_) => Verdict::Answered,
            Err(error) => verdict(error),
        };
        drop(turn);
        match got {
            Ok(body) => Got::Whole(body),
            Err(error) => {
                let refused = error.cause == Cause::Refused;
                let error = format!("{:#}", anyhow::Error::from(error));
                if refused { Got::Refused(error) } else { Got::Failed(error) }
            }
        }
    }

    /// Waits for the breaker's leave; or how long it is open.
    async fn turn(&self) -> Result<Turn<'_>, std::time::Duration> {
        loop {
            // Before asking, so that nothing that is told is missed.
            let told = self.told.notified();
            let leave = lock(&self.breaker).ask(Instant::now());
            match leave {
                Leave::Granted { probe } => {
                    return Ok(Turn { enricher: self, probe, verdict: Verdict::Nothing });
                }
                Leave::Wait => told.await,
                Leave::Denied(wait) => return Err(wait),
            }
        }
    }

    async fn headers(&self, values: &Values<'_>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, text) in &self.settings.headers {
            let value = match text {
                HeaderText::Secret(value) => value.clone(),
                HeaderText::Written(text) => HeaderValue::try_from(text.fill(values))
                    .map_err(|error| format!("the header {name}: {error}"))?,
                HeaderText::File { scheme, path } => {
                    let path_told = path.display();
                    let secret = tokio::fs::read_to_string(path).await.map_err(|error| {
                        format!("the header {name}: the file {path_told} cannot be read: {error}")
                    })?;
                    let secret = secret.trim_end_matches(['\r', '\n']);
                    let mut value = HeaderValue::try_from(format!("{scheme}{secret}"))
                        .map_err(|error| format!("the header {name}: {path_told}: {error}"))?;
                    value.set_sensitive(true);
                    value
                }
            };
            headers.insert(name.clone(), value);
        }
        Ok(headers)
    }
}

/// Leave to ask. What came of it is told to the breaker when this is
/// dropped, so that a fetch that is given up blocks no other.
struct Turn<'a> {
    enricher: &'a Enricher,
    probe: bool,
    verdict: Verdict,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Enricher { breaker, told, open, source, .. } = self.enricher;
        let (before, after) = {
            let mut breaker = lock(breaker);
            let before = breaker.is_open();
            breaker.tell(Instant::now(), self.probe, self.verdict);
            (before, breaker.is_open())
        };
        told.notify_waiters();
        if before == after {
            return;
        }
        open.set(i64::from(after));
        if after {
            warn!(%source, "the platform does not answer; fetching pauses");
        } else {
            info!(%source, "the platform answers again");
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
