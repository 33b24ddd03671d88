//! Records rejected requests and pings. As with events, the records go through the broker: the
//! receiver never waits for the database.
//!
//! An authentic request is recorded before it is answered. Unauthenticated requests (an invalid
//! signature, an incomplete body) are sampled: one a second for each source and kind is recorded,
//! the rest is only counted, so that a flood stays cheap. Unsigned pings are sampled too, one a
//! minute.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::debug;
use uuid::Uuid;

use super::{Receiver, rate_gate::RateGate};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{Envelope, RejectedRequest, RequestHead, SourceName},
    sources::{Event, Rejection, Source, WebhookRequest, stored_headers},
};

/// The most records of unauthenticated requests that may be in progress at once.
const MAX_PENDING_RECORDS: usize = 64;
/// The largest body that is quarantined, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest headers and query that are quarantined, in bytes. They travel as AMQP headers,
/// which must fit into one frame of 128 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long the record of an unauthenticated request may wait in its queue. It bounds the queue
/// while no worker runs.
const RECORD_TTL: Duration = Duration::from_mins(10);

/// Decides which unauthenticated requests are recorded.
#[derive(Debug)]
pub(super) struct CallLogSampler {
    sources: BTreeMap<SourceName, SourceSampler>,
    record_permits: Arc<Semaphore>,
}

/// One gate for each kind of record.
#[derive(Debug)]
struct SourceSampler {
    invalid_signatures: RateGate,
    incomplete: RateGate,
    pings: RateGate,
}

impl CallLogSampler {
    pub(super) fn new<'a>(sources: impl Iterator<Item = &'a SourceName>) -> Self {
        let sampler = || SourceSampler {
            invalid_signatures: RateGate::new(Duration::from_secs(1)),
            incomplete: RateGate::new(Duration::from_secs(1)),
            pings: RateGate::new(Duration::from_mins(1)),
        };
        Self {
            sources: sources.map(|name| (name.clone(), sampler())).collect(),
            record_permits: Arc::new(Semaphore::new(MAX_PENDING_RECORDS)),
        }
    }

    /// Whether the gate of a source lets a record pass now.
    fn allow(&self, name: &SourceName, gate: impl Fn(&SourceSampler) -> &RateGate) -> bool {
        let sampler = self.sources.get(name);
        sampler.is_some_and(|sampler| gate(sampler).allow(Instant::now()))
    }
}

impl Receiver {
    /// Records a request that is rejected with this status. Afterwards it may be answered.
    ///
    /// # Errors
    /// The record of an authentic request is not confirmed. The request must not be answered as
    /// rejected.
    pub(super) async fn record_rejected(
        &self,
        name: &SourceName,
        source: &Source,
        receipt_id: Uuid,
        request: &WebhookRequest<'_>,
        rejection: &Rejection,
        status: StatusCode,
    ) -> Result<(), PublishError> {
        let tenant = match rejection {
            Rejection::UnknownTenant(_, tenant) => tenant.clone(),
            _ => String::new(),
        };
        let rejected = RejectedRequest {
            receipt_id,
            source: name.clone(),
            tenant,
            received_at: request.received_at,
            status: Some(status.as_u16()),
            error: rejection.to_string(),
            body: request.body.clone(),
            import: None,
            request_head: None,
        };
        if rejection.is_authentic() {
            let message = OutgoingMessage::rejected_request(&self.topology, &rejected);
            let _confirmed: Confirmed = self.publisher.publish(message).await?;
        } else {
            self.metrics.invalid_signatures.with_label_values(&[name.as_str()]).inc();
            if source.quarantine_limit() > 0 {
                self.quarantine_request(request, rejected);
            }
        }
        Ok(())
    }

    /// Quarantines at most one request with an invalid signature a second.
    fn quarantine_request(&self, request: &WebhookRequest<'_>, rejected: RejectedRequest) {
        // The cheap checks first: most of a flood ends here.
        if request.body.len() > MAX_BODY_BYTES
            || !self.sampler.allow(&rejected.source, |sampler| &sampler.invalid_signatures)
        {
            return self.count_unlogged(&rejected.source);
        }
        let headers = stored_headers::to_json(request.headers);
        if headers.to_string().len() + request.query.len() > MAX_HEAD_BYTES {
            return self.count_unlogged(&rejected.source);
        }
        let head = RequestHead { headers, query: request.query.to_owned() };
        self.record_in_background(RejectedRequest { request_head: Some(head), ..rejected });
    }

    /// Records at most one request with an incomplete body a second.
    pub(super) fn record_incomplete(
        &self,
        name: &SourceName,
        receipt_id: Uuid,
        status: StatusCode,
        error: &str,
    ) {
        if !self.sampler.allow(name, |sampler| &sampler.incomplete) {
            return self.count_unlogged(name);
        }
        self.record_in_background(RejectedRequest {
            receipt_id,
            source: name.clone(),
            tenant: String::new(),
            received_at: OffsetDateTime::now_utc(),
            status: Some(status.as_u16()),
            error: error.to_owned(),
            body: Bytes::new(),
            import: None,
            request_head: None,
        });
    }

    /// Records at most one unsigned ping a minute, as an ignored event. It shows the operator who
    /// sets up a source that requests arrive.
    pub(super) fn record_ping(
        &self,
        name: &SourceName,
        receipt_id: Uuid,
        request: &WebhookRequest<'_>,
    ) {
        if !self.sampler.allow(name, |sampler| &sampler.pings) {
            return;
        }
        let event = Event {
            event_id: format!("ping:{receipt_id}"),
            tenant: String::new(),
            topic: "ping".to_owned(),
            version: None,
            body: request.body.clone(),
        };
        let Ok(envelope) = event.envelope(name, receipt_id, request.received_at, "") else {
            return;
        };
        let envelope = Envelope { secret_label: None, ..envelope };
        let message = OutgoingMessage::inbound(&self.topology, &envelope);
        let receiver = self.clone();
        tokio::spawn(async move {
            if let Err(error) = receiver.publisher.publish(message).await {
                debug!(%receipt_id, %error, "the ping is not recorded");
            }
        });
    }

    /// Publishes a record without delaying the response, unless too many are in progress.
    fn record_in_background(&self, rejected: RejectedRequest) {
        let Ok(permit) = Arc::clone(&self.sampler.record_permits).try_acquire_owned() else {
            return self.count_unlogged(&rejected.source);
        };
        let receiver = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let message = OutgoingMessage::rejected_request(&receiver.topology, &rejected)
                .expiring(RECORD_TTL);
            if let Err(error) = receiver.publisher.publish(message).await {
                let receipt_id = rejected.receipt_id;
                debug!(%receipt_id, %error, "the rejected request is not recorded");
                receiver.count_unlogged(&rejected.source);
            }
        });
    }

    fn count_unlogged(&self, name: &SourceName) {
        self.metrics.rejected_requests_unlogged.with_label_values(&[name.as_str()]).inc();
    }

    /// Creates every series at start, so that alerts see a 0 before the first event.
    pub(super) fn register_series(&self) {
        for (name, source) in self.sources.iter() {
            let name = name.as_str();
            self.metrics.invalid_signatures.with_label_values(&[name]);
            self.metrics.rejected_requests_unlogged.with_label_values(&[name]);
            for label in source.secret_labels() {
                self.metrics.secret_last_used.with_label_values(&[name, label]);
            }
        }
    }

    /// Records that a secret verified a request.
    pub(super) fn record_secret_use(
        &self,
        name: &SourceName,
        secret_label: &str,
        at: OffsetDateTime,
    ) {
        let labels = [name.as_str(), secret_label];
        self.metrics.secret_last_used.with_label_values(&labels).set(at.unix_timestamp());
    }
}
