//! Every metric: its name, its labels and its help text.
//!
//! Label values come from closed sets only (configured sources, outcomes, reasons), never from
//! requests: otherwise anyone could add series without limit.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::domain::{Outcome, SourceName};

/// Buckets of durations: from a tenth of a millisecond to a minute.
const SECONDS: [f64; 16] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
    60.0,
];

/// Buckets of all other histograms.
const COUNTS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0];

/// Defines a struct of metrics and registers each of them.
macro_rules! metrics {
    ($($field:ident: $type:ident = $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// The metrics themselves.
        pub struct MetricSet {
            registry: Registry,
            recent: Mutex<HashMap<String, RecentOutcomes>>,
            $(#[doc = $help] pub $field: $type,)*
        }

        impl MetricSet {
            /// The names of all metrics.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                Ok(Self {
                    $($field: register::<$type>(&registry, $name, &[$($label),*], $help)?,)*
                    recent: Mutex::default(),
                    registry,
                })
            }
        }
    };
}

metrics! {
    http_requests: IntCounterVec = "tallyhook_http_requests_total" ["source", "status"]
        "HTTP requests for webhooks and imports, by response status.";
    http_request_duration: HistogramVec = "tallyhook_http_request_duration_seconds" ["source"]
        "Time from the first byte of a webhook request to its response.";
    http_requests_in_flight: IntGauge = "tallyhook_http_requests_in_flight" []
        "HTTP requests in progress.";
    invalid_signatures: IntCounterVec = "tallyhook_invalid_signatures_total" ["source"]
        "HTTP requests that no configured secret verified.";
    rejected_requests_unlogged: IntCounterVec = "tallyhook_rejected_requests_unlogged_total" ["source"]
        "Unauthenticated requests that were rejected without a record in the call log: more than one a second, or no connection to the broker.";
    secret_last_used: IntGaugeVec = "tallyhook_secret_last_used_timestamp_seconds" ["source", "secret"]
        "When a secret last verified a request; 0 if not since the start of this process.";
    publish_confirm_duration: Histogram = "tallyhook_publish_confirm_duration_seconds" []
        "Time from publishing a message to its publisher confirm.";
    messages: IntCounterVec = "tallyhook_messages_total" ["source", "outcome"]
        "Messages by outcome, counted when the outcome is committed.";
    batch_messages: Histogram = "tallyhook_batch_messages" []
        "Messages in a committed batch.";
    batch_duration: Histogram = "tallyhook_batch_duration_seconds" []
        "Time from the first message of a batch to its commit.";
    end_to_end_lag: HistogramVec = "tallyhook_end_to_end_lag_seconds" ["source"]
        "Time from receiving an event to committing it.";
    failed_attempts: IntCounterVec = "tallyhook_failed_attempts_total" ["source"]
        "Failed attempts to apply a message, each followed by a retry or a dead letter.";
    enrichments: IntCounterVec = "tallyhook_enrichments_total" ["source", "result"]
        "Thin events by the result of fetching their resource.";
    enrichment_duration: HistogramVec = "tallyhook_enrichment_duration_seconds" ["source"]
        "Time to fetch the resource of a thin event.";
    circuit_breaker_open: IntGaugeVec = "tallyhook_circuit_breaker_open" ["kind", "name"]
        "1 while the circuit breaker of a platform (kind enrichment) or destination (kind destination) is open.";
    imports: IntCounterVec = "tallyhook_imports_total" ["source", "state"]
        "Completed imports by the state of their file: received or interrupted.";
    import_duplicate_ratio: GaugeVec = "tallyhook_import_duplicate_ratio" ["source"]
        "Share of duplicates among the items of the newest completed import.";
    import_items_in_flight: IntGauge = "tallyhook_import_items_in_flight" []
        "Items of imports that are parsed and not confirmed yet.";
    deliveries: IntGaugeVec = "tallyhook_deliveries" ["destination", "state"]
        "Unfinished deliveries.";
    oldest_delivery_age: GaugeVec = "tallyhook_delivery_oldest_age_seconds" ["destination", "state"]
        "Age of the oldest unfinished delivery.";
    delivery_attempts: IntCounterVec = "tallyhook_delivery_attempts_total" ["destination", "result"]
        "Delivery attempts by result: `delivered`, `uncertain`, `retry_later`, `rejected`.";
    delivery_duration: HistogramVec = "tallyhook_delivery_duration_seconds" ["destination"]
        "Time of one delivery attempt.";
    dead_letters: IntGaugeVec = "tallyhook_dead_letters" ["reason", "state"]
        "Dead letters.";
    oldest_dead_letter_age: GaugeVec = "tallyhook_dead_letter_oldest_age_seconds" ["reason", "state"]
        "Time since the oldest dead letter first failed.";
    queue_messages_ready: IntGaugeVec = "tallyhook_queue_messages_ready" ["queue", "role", "source"]
        "Messages ready for delivery in a queue. Absent while the queue does not exist.";
    queue_missing: IntGaugeVec = "tallyhook_queue_missing" ["queue", "role", "source"]
        "1 while a queue does not exist.";
    broker_up: IntGaugeVec = "tallyhook_broker_up" ["connection"]
        "1 while a connection to RabbitMQ (publish, consume) is open.";
    inbox_partitions: IntGaugeVec = "tallyhook_inbox_partitions" ["state"]
        "Partitions of the inbox; retained: expired, but dead letters need their keys.";
    inbox_bytes: IntGauge = "tallyhook_inbox_bytes" []
        "Size of the inbox with its indexes.";
    inbox_dedupe_window: IntGauge = "tallyhook_inbox_dedupe_window_seconds" []
        "The time back to which the inbox has every key.";
    inbox_partitions_dropped: IntCounter = "tallyhook_inbox_partitions_dropped_total" []
        "Partitions of the inbox that this process dropped.";
    receipts_dropped: IntCounter = "tallyhook_receipts_dropped_total" []
        "Expired receipts that this process dropped.";
    receipts_partitions_retained: IntGauge = "tallyhook_receipts_partitions_retained" []
        "Expired partitions of the call log that are still needed.";
    maintenance_last_success: IntGauge = "tallyhook_maintenance_last_success_timestamp_seconds" []
        "When maintenance last succeeded; before that, when this process started.";
    maintenance_failures: IntCounter = "tallyhook_maintenance_failures_total" []
        "Maintenance runs that failed or left something undone.";
    database_up: IntGauge = "tallyhook_database_up" []
        "1 if PostgreSQL answered the last query of the metrics sampler.";
    database_connections: IntGaugeVec = "tallyhook_database_connections" ["state"]
        "Connections to PostgreSQL: idle, used.";
}

/// The process's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<MetricSet>);

impl Deref for Metrics {
    type Target = MetricSet;

    fn deref(&self) -> &MetricSet {
        &self.0
    }
}

/// Recent messages of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentOutcomes {
    /// Messages that had a key.
    pub messages: u32,
    /// The duplicates among them.
    pub duplicates: u32,
}

/// Beyond twice this many messages, older ones count half.
const RECENT_MESSAGES: u32 = 1000;

impl Metrics {
    /// New metrics in a registry of their own.
    ///
    /// # Errors
    /// Two metrics have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        Ok(Self(Arc::new(MetricSet::new()?)))
    }

    /// Creates the series of every outcome of these sources, so that alerts see a 0 before the
    /// first message.
    pub fn register_outcomes<'a>(&self, sources: impl Iterator<Item = &'a SourceName>) {
        for source in sources {
            for outcome in Outcome::ALL {
                self.messages.with_label_values(&[source.as_str(), outcome.as_str()]);
            }
            self.failed_attempts.with_label_values(&[source.as_str()]);
        }
    }

    /// Counts committed outcomes of a source.
    pub fn record_outcomes(&self, source: &SourceName, outcomes: impl Iterator<Item = Outcome>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.entry(source.to_string()).or_default();
        for outcome in outcomes {
            self.messages.with_label_values(&[source.as_str(), outcome.as_str()]).inc();
            if outcome == Outcome::Rejected {
                // Without a key it could not be a duplicate.
                continue;
            }
            recent.messages += 1;
            recent.duplicates += u32::from(outcome == Outcome::Duplicate);
        }
        while recent.messages > 2 * RECENT_MESSAGES {
            recent.messages /= 2;
            recent.duplicates /= 2;
        }
    }

    /// The recent messages of each source, for the duplicate alert in the log.
    pub fn recent_outcomes(&self) -> Vec<(String, RecentOutcomes)> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().map(|(source, outcomes)| (source.clone(), *outcomes)).collect()
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail, and the encoder writes UTF-8.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// A type of metric.
trait Metric: Collector + Clone + Sized + 'static {
    fn build(name: &str, labels: &[&str], help: &str) -> Result<Self, prometheus::Error>;
}

fn register<M: Metric>(
    registry: &Registry,
    name: &str,
    labels: &[&str],
    help: &str,
) -> Result<M, prometheus::Error> {
    let metric = M::build(name, labels, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    let buckets = if name.ends_with("_seconds") { SECONDS.to_vec() } else { COUNTS.to_vec() };
    HistogramOpts::new(name, help).buckets(buckets)
}

impl Metric for IntCounter {
    fn build(name: &str, _: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(name, help)
    }
}

impl Metric for IntCounterVec {
    fn build(name: &str, labels: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for IntGauge {
    fn build(name: &str, _: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(name, help)
    }
}

impl Metric for IntGaugeVec {
    fn build(name: &str, labels: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for GaugeVec {
    fn build(name: &str, labels: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(Opts::new(name, help), labels)
    }
}

impl Metric for Histogram {
    fn build(name: &str, _: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::with_opts(histogram_opts(name, help))
    }
}

impl Metric for HistogramVec {
    fn build(name: &str, labels: &[&str], help: &str) -> Result<Self, prometheus::Error> {
        Self::new(histogram_opts(name, help), labels)
    }
}

/// Raises a gauge by one while it exists.
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Raises the gauge.
    pub fn increment(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_recent_outcomes_forget_old_messages() {
        let metrics = Metrics::new().unwrap();
        let source: SourceName = "shop".parse().unwrap();
        let recent = || metrics.recent_outcomes()[0].1;
        metrics.record_outcomes(&source, vec![Outcome::Applied; 3].into_iter());
        metrics.record_outcomes(&source, [Outcome::Duplicate, Outcome::Rejected].into_iter());
        assert_eq!(recent(), RecentOutcomes { messages: 4, duplicates: 1 });
        metrics.record_outcomes(&source, vec![Outcome::Duplicate; 1997].into_iter());
        assert_eq!(recent(), RecentOutcomes { messages: 1000, duplicates: 999 });
        metrics.record_outcomes(&source, vec![Outcome::Applied; 20_000].into_iter());
        assert_eq!(recent(), RecentOutcomes { messages: 1312, duplicates: 62 });
    }

    #[test]
    fn metrics_names_follow_prometheus_rules() {
        let metrics = Metrics::new().unwrap();
        for family in metrics.registry.gather() {
            let name = family.name();
            let is_counter = family.get_field_type() == prometheus::proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        }
        let mut names = MetricSet::NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MetricSet::NAMES.len());
        assert!(names.iter().all(|name| name.starts_with("tallyhook_")));
    }
}
