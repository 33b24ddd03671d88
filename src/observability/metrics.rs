//! Every metric: its name, its help and its labels, in one place.
//!
//! Label values come from closed sets only (configured sources, outcomes,
//! reasons), never from requests: a stranger must not be able to fill memory.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::domain::{Outcome, SourceName};

/// Seconds: from a tenth of a millisecond to a minute.
const SECONDS: [f64; 16] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
    60.0,
];

/// The process's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<MetricSet>);

impl Deref for Metrics {
    type Target = MetricSet;

    fn deref(&self) -> &MetricSet {
        &self.0
    }
}

/// The metrics themselves.
pub struct MetricSet {
    registry: Registry,
    /// HTTP calls by source and the status that answered them.
    pub http_requests: IntCounterVec,
    /// Calls that no configured secret had signed, by source.
    pub invalid_signatures: IntCounterVec,
    /// Refused calls that were only counted, by source: beyond the one a
    /// second that is kept, or with the broker away.
    pub rejected_requests_unlogged: IntCounterVec,
    /// When a secret last verified a call, in seconds since 1970, by source
    /// and label; 0 if it has not since this process started.
    pub secret_last_used: IntGaugeVec,
    /// Seconds from a call's first byte to its answer, by source.
    pub http_request_duration: HistogramVec,
    /// Calls under way.
    pub http_requests_in_flight: IntGauge,
    /// Seconds from publishing to the broker's confirm.
    pub publish_confirm_duration: Histogram,
    /// Messages by source and outcome, each counted when it is recorded.
    pub messages: IntCounterVec,
    /// Share of duplicates among the last thousand or so messages, by source.
    pub duplicate_ratio: GaugeVec,
    /// Messages in a committed batch.
    pub batch_messages: Histogram,
    /// Seconds a batch took from its first message to its commit.
    pub batch_duration: Histogram,
    /// Seconds from received to committed, by source.
    pub end_to_end_lag: HistogramVec,
    /// Failed attempts by source.
    pub failed_attempts: IntCounterVec,
    /// Thin events by source and what came of fetching what they name.
    pub enrichments: IntCounterVec,
    /// Seconds a fetch took, by source.
    pub enrichment_duration: HistogramVec,
    /// 1 if a source's platform is left alone because it did not answer.
    pub enrichment_breaker_open: IntGaugeVec,
    /// Imports by source and how they ended.
    pub imports: IntCounterVec,
    /// Share of duplicates among the items of the newest import that was
    /// settled, by source.
    pub import_duplicate_ratio: GaugeVec,
    /// Items of imports that were read and are not confirmed yet.
    pub import_items_in_flight: IntGauge,
    /// Deliveries that are not finished, by target and state.
    pub deliveries: IntGaugeVec,
    /// Age in seconds of the oldest delivery, by target and state.
    pub oldest_delivery_age: GaugeVec,
    /// Attempts to deliver, by target and what came of them.
    pub delivery_attempts: IntCounterVec,
    /// Seconds that an attempt took, by target.
    pub delivery_duration: HistogramVec,
    /// 1 if a target is left alone because it did not answer.
    pub delivery_breaker_open: IntGaugeVec,
    /// Dead letters by reason and state.
    pub dead_letters: IntGaugeVec,
    /// Age in seconds of the oldest dead letter, by reason and state.
    pub oldest_dead_letter_age: GaugeVec,
    /// Ready messages by queue.
    pub queue_messages_ready: IntGaugeVec,
    /// 1 if a broker connection (`publish`, `consume`) is up.
    pub broker_up: IntGaugeVec,
    /// Generations of the inbox, by whether they are past the horizon and held
    /// for a dead letter's sake.
    pub inbox_partitions: IntGaugeVec,
    /// Bytes that the inbox takes, with its indexes.
    pub inbox_bytes: IntGauge,
    /// How many seconds back every key is remembered.
    pub inbox_dedupe_window: IntGauge,
    /// Generations of the inbox that this process dropped.
    pub inbox_partitions_dropped: IntCounter,
    /// Receipts that this process dropped for being past retention.
    pub receipts_dropped: IntCounter,
    /// Partitions of the call log that are past retention and held.
    pub receipts_partitions_retained: IntGauge,
    /// When all that is past was last put away, in seconds since 1970; until
    /// then, when this process started.
    pub maintenance_last_success: IntGauge,
    /// Rounds of housekeeping that failed or left something undone.
    pub maintenance_failures: IntCounter,
    /// 1 if the database answered when it was last asked.
    pub database_up: IntGauge,
    /// Database connections by state (`idle`, `used`).
    pub database_connections: IntGaugeVec,
    recent: Mutex<HashMap<String, RecentOutcomes>>,
}

/// What was seen lately of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentOutcomes {
    /// Messages, without those that never had a key.
    pub messages: u32,
    /// Of these, duplicates.
    pub duplicates: u32,
}

/// Beyond so many messages, what was seen before counts half.
const RECENT_MESSAGES: u32 = 1000;

impl Metrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in this file.
    #[expect(clippy::too_many_lines, reason = "a table: every name and help in one place")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let made = Registrar { registry: &registry };
        let inner = MetricSet {
            http_requests: made.counters(
                "tallyhook_http_requests_total",
                "HTTP calls by source and answer.",
                &["source", "answer"],
            )?,
            invalid_signatures: made.counters(
                "tallyhook_invalid_signatures_total",
                "Calls that no configured secret had signed.",
                &["source"],
            )?,
            rejected_requests_unlogged: made.counters(
                "tallyhook_rejected_requests_unlogged_total",
                "Forged and unread calls that were counted and are not on record.",
                &["source"],
            )?,
            secret_last_used: made.gauges(
                "tallyhook_secret_last_used_timestamp_seconds",
                "When a secret last verified a call; 0: not since the start of this process.",
                &["source", "secret"],
            )?,
            http_request_duration: made.histograms(
                "tallyhook_http_request_duration_seconds",
                "Seconds from a call's arrival to its answer.",
                &["source"],
            )?,
            http_requests_in_flight: made
                .gauge("tallyhook_http_requests_in_flight", "Calls under way.")?,
            publish_confirm_duration: made.histogram(
                "tallyhook_publish_confirm_duration_seconds",
                "Seconds from publishing to the broker's confirm.",
                &SECONDS,
            )?,
            messages: made.counters(
                "tallyhook_messages_total",
                "Messages by source and outcome.",
                &["source", "outcome"],
            )?,
            duplicate_ratio: made.float_gauges(
                "tallyhook_duplicate_ratio",
                "Share of duplicates among the last thousand or so messages.",
                &["source"],
            )?,
            batch_messages: made.histogram(
                "tallyhook_batch_messages",
                "Messages in a committed batch.",
                &[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0],
            )?,
            batch_duration: made.histogram(
                "tallyhook_batch_duration_seconds",
                "Seconds a batch took from being collected to its commit.",
                &SECONDS,
            )?,
            end_to_end_lag: made.histograms(
                "tallyhook_end_to_end_lag_seconds",
                "Seconds from received to committed.",
                &["source"],
            )?,
            failed_attempts: made.counters(
                "tallyhook_failed_attempts_total",
                "Attempts that failed and were followed by a retry or a dead letter.",
                &["source"],
            )?,
            enrichments: made.counters(
                "tallyhook_enrichments_total",
                "Thin events by what came of fetching what they name.",
                &["source", "result"],
            )?,
            enrichment_duration: made.histograms(
                "tallyhook_enrichment_duration_seconds",
                "Seconds from asking a platform to the end of its answer.",
                &["source"],
            )?,
            enrichment_breaker_open: made.gauges(
                "tallyhook_enrichment_circuit_breaker_open",
                "1 if a platform is left alone because it did not answer.",
                &["source"],
            )?,
            imports: made.counters(
                "tallyhook_imports_total",
                "Imports by how their file ended: received or interrupted.",
                &["source", "state"],
            )?,
            import_duplicate_ratio: made.float_gauges(
                "tallyhook_import_duplicate_ratio",
                "Share of duplicates among the items of the newest import that was settled.",
                &["source"],
            )?,
            import_items_in_flight: made.gauge(
                "tallyhook_import_items_in_flight",
                "Items of imports that were read and are not confirmed yet.",
            )?,
            deliveries: made.gauges(
                "tallyhook_deliveries",
                "Deliveries that are not finished.",
                &["target", "state"],
            )?,
            oldest_delivery_age: made.float_gauges(
                "tallyhook_delivery_oldest_age_seconds",
                "Seconds since the oldest delivery in this state was written.",
                &["target", "state"],
            )?,
            delivery_attempts: made.counters(
                "tallyhook_delivery_attempts_total",
                "Attempts to deliver: delivered, uncertain, not_now, refused.",
                &["target", "result"],
            )?,
            delivery_duration: made.histograms(
                "tallyhook_delivery_duration_seconds",
                "Seconds from calling a target to the end of its answer.",
                &["target"],
            )?,
            delivery_breaker_open: made.gauges(
                "tallyhook_delivery_circuit_breaker_open",
                "1 if a target is left alone because it did not answer.",
                &["target"],
            )?,
            dead_letters: made.gauges(
                "tallyhook_dead_letters",
                "Dead letters by reason and state.",
                &["reason", "state"],
            )?,
            oldest_dead_letter_age: made.float_gauges(
                "tallyhook_dead_letter_oldest_age_seconds",
                "Seconds since the oldest dead letter failed first.",
                &["reason", "state"],
            )?,
            queue_messages_ready: made.gauges(
                "tallyhook_queue_messages_ready",
                "Ready messages in a queue; -1 if it is missing.",
                &["queue", "role", "source"],
            )?,
            broker_up: made.gauges(
                "tallyhook_broker_up",
                "1 if the connection to RabbitMQ is up.",
                &["link"],
            )?,
            inbox_partitions: made.gauges(
                "tallyhook_inbox_partitions",
                "Generations of the inbox; held: past the horizon, for a dead letter's sake.",
                &["state"],
            )?,
            inbox_bytes: made
                .gauge("tallyhook_inbox_bytes", "Bytes that the inbox takes, with its indexes.")?,
            inbox_dedupe_window: made.gauge(
                "tallyhook_inbox_dedupe_window_seconds",
                "How many seconds back every key is remembered.",
            )?,
            inbox_partitions_dropped: made.counter(
                "tallyhook_inbox_partitions_dropped_total",
                "Generations of the inbox that this process dropped.",
            )?,
            receipts_dropped: made.counter(
                "tallyhook_receipts_dropped_total",
                "Receipts that this process dropped for being past retention.",
            )?,
            receipts_partitions_retained: made.gauge(
                "tallyhook_receipts_partitions_retained",
                "Partitions of the call log that are past retention and held.",
            )?,
            maintenance_last_success: made.gauge(
                "tallyhook_maintenance_last_success_timestamp_seconds",
                "When all that is past was last put away; until then the start of this process.",
            )?,
            maintenance_failures: made.counter(
                "tallyhook_maintenance_failures_total",
                "Rounds of housekeeping that failed or left something undone.",
            )?,
            database_up: made.gauge(
                "tallyhook_database_up",
                "1 if PostgreSQL answered when it was last asked.",
            )?,
            database_connections: made.gauges(
                "tallyhook_database_connections",
                "Connections to PostgreSQL.",
                &["state"],
            )?,
            recent: Mutex::default(),
            registry,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Counts recorded outcomes of a source and refreshes its share of
    /// duplicates.
    pub fn record_outcomes(&self, source: &SourceName, outcomes: impl Iterator<Item = Outcome>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = recent.entry(source.to_string()).or_default();
        for outcome in outcomes {
            self.messages.with_label_values(&[source.as_str(), outcome.as_str()]).inc();
            if outcome == Outcome::Rejected {
                // Never had a key to be a duplicate of.
                continue;
            }
            seen.messages += 1;
            seen.duplicates += u32::from(outcome == Outcome::Duplicate);
        }
        while seen.messages > 2 * RECENT_MESSAGES {
            seen.messages /= 2;
            seen.duplicates /= 2;
        }
        if seen.messages > 0 {
            #[expect(clippy::float_arithmetic, reason = "a ratio for people, not money")]
            let ratio = f64::from(seen.duplicates) / f64::from(seen.messages);
            self.duplicate_ratio.with_label_values(&[source.as_str()]).set(ratio);
        }
    }

    /// What was seen lately of each source.
    pub fn recent_outcomes(&self) -> Vec<(String, RecentOutcomes)> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().map(|(source, seen)| (source.clone(), *seen)).collect()
    }

    /// Everything in the text format that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory cannot fail, and the encoder writes UTF-8.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Makes metrics and registers them.
struct Registrar<'a> {
    registry: &'a Registry,
}

impl Registrar<'_> {
    fn register<C>(&self, collector: C) -> Result<C, prometheus::Error>
    where
        C: prometheus::core::Collector + Clone + 'static,
    {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::new(name, help)?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn float_gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

/// Sets a gauge as long as it lives: for work under way.
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// Counts one more until it is dropped.
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
    fn the_duplicate_ratio_follows_what_was_seen_lately() {
        let metrics = Metrics::new().unwrap();
        let source: SourceName = "shop".parse().unwrap();
        let ratio = || metrics.duplicate_ratio.with_label_values(&["shop"]).get();
        metrics.record_outcomes(&source, vec![Outcome::Applied; 3].into_iter());
        metrics.record_outcomes(&source, std::iter::once(Outcome::Duplicate));
        assert!((ratio() - 0.25).abs() < 1e-9);
        metrics.record_outcomes(&source, vec![Outcome::Applied; 20_000].into_iter());
        assert!(ratio() < 0.001);
    }
}
