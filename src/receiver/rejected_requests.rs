//! What gets on record besides events: refused calls, and pings. Like all else
//! it goes over the broker: the receiver never waits for the database.
//!
//! An authentic call is on record before it is answered. What cannot be told
//! from a stranger's noise, because its signature is wrong or its body was not
//! read whole, is nobody's loss: of each source one a second is kept and the
//! rest is counted, so that a flood costs nothing but the flood. A ping that
//! nobody signs is such a call, though it is answered with 200: one a minute.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::http::StatusCode;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tracing::debug;
use uuid::Uuid;

use super::{OncePerMinute, OncePerSecond, Receiver};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{Envelope, RejectedRequest, RequestHead, SourceName},
    sources::{Event, Rejection, Source, WebhookRequest, stored_headers},
};

/// Records that may be under way without anybody waiting for them.
const MAX_PENDING_RECORDS: usize = 64;
/// The largest body that is quarantined, in bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest headers and query that are quarantined, in bytes: they travel
/// as AMQP headers, which must fit into one frame of 128 KiB.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long the record of a stranger's call may wait for a worker. With none
/// at work, a flood takes no more of the broker than so many minutes of it.
const RECORD_TTL: Duration = Duration::from_mins(10);

/// What keeps the record of strangers' calls small.
#[derive(Debug)]
pub(super) struct CallLogSampler {
    sources: BTreeMap<SourceName, SourceSampler>,
    record_permits: Arc<Semaphore>,
}

/// When a source's calls are kept.
#[derive(Debug, Default)]
struct SourceSampler {
    invalid_signatures: OncePerSecond,
    incomplete: OncePerSecond,
    pings: OncePerMinute,
}

impl CallLogSampler {
    pub(super) fn new<'a>(sources: impl Iterator<Item = &'a SourceName>) -> Self {
        Self {
            sources: sources.map(|source| (source.clone(), SourceSampler::default())).collect(),
            record_permits: Arc::new(Semaphore::new(MAX_PENDING_RECORDS)),
        }
    }
}

impl Receiver {
    /// Sees to the record of a call that is refused with this status. When
    /// this comes back, it may be answered.
    ///
    /// # Errors
    /// An authentic call is not on record: it must not be answered off it.
    pub(super) async fn record_rejected(
        &self,
        source: &SourceName,
        adapter: &Source,
        receipt_id: Uuid,
        call: &WebhookRequest<'_>,
        rejection: &Rejection,
        status: StatusCode,
    ) -> Result<(), PublishError> {
        let tenant = match rejection {
            Rejection::UnknownTenant(_, tenant) => tenant.clone(),
            _ => String::new(),
        };
        let refused = RejectedRequest {
            receipt_id,
            source: source.clone(),
            tenant,
            received_at: call.received_at,
            status: Some(status.as_u16()),
            error: rejection.to_string(),
            body: call.body.clone(),
            import: None,
            request_head: None,
        };
        if rejection.is_authentic() {
            let message = OutgoingMessage::rejected_request(&self.topology, &refused);
            let _durable: Confirmed = self.publisher.publish(message).await?;
        } else {
            self.metrics.invalid_signatures.with_label_values(&[source.as_str()]).inc();
            if adapter.quarantine_limit() > 0 {
                self.quarantine_request(call, refused);
            }
        }
        Ok(())
    }

    /// Keeps one forged call a second.
    fn quarantine_request(&self, call: &WebhookRequest<'_>, refused: RejectedRequest) {
        let samples = self.sampler.sources.get(&refused.source);
        // The cheap questions first: most of a flood ends here.
        if call.body.len() > MAX_BODY_BYTES
            || !samples.is_some_and(|samples| samples.invalid_signatures.allow())
        {
            return self.count_unlogged(&refused.source);
        }
        let headers = stored_headers::to_json(call.headers);
        if headers.to_string().len() + call.query.len() > MAX_HEAD_BYTES {
            return self.count_unlogged(&refused.source);
        }
        let head = RequestHead { headers, query: call.query.to_owned() };
        self.record_in_background(RejectedRequest { request_head: Some(head), ..refused });
    }

    /// Keeps one call a second whose body was not read whole.
    pub(super) fn record_incomplete(
        &self,
        source: &SourceName,
        receipt_id: Uuid,
        status: StatusCode,
        error: &str,
    ) {
        let samples = self.sampler.sources.get(source);
        if !samples.is_some_and(|samples| samples.incomplete.allow()) {
            return self.count_unlogged(source);
        }
        self.record_in_background(RejectedRequest {
            receipt_id,
            source: source.clone(),
            tenant: String::new(),
            received_at: OffsetDateTime::now_utc(),
            status: Some(status.as_u16()),
            error: error.to_owned(),
            body: Bytes::new(),
            import: None,
            request_head: None,
        });
    }

    /// Keeps one of a platform's unsigned pings a minute, for whoever sets a
    /// source up and asks whether anything arrives: an event that is ignored.
    pub(super) fn record_ping(
        &self,
        source: &SourceName,
        receipt_id: Uuid,
        call: &WebhookRequest<'_>,
    ) {
        let samples = self.sampler.sources.get(source);
        if !samples.is_some_and(|samples| samples.pings.allow()) {
            return;
        }
        let event = Event {
            event_id: format!("ping:{receipt_id}"),
            tenant: String::new(),
            topic: "ping".to_owned(),
            version: None,
            body: call.body.clone(),
        };
        let Ok(envelope) = event.envelope(source, receipt_id, call.received_at, "") else { return };
        let envelope = Envelope { secret_label: None, ..envelope };
        let message = OutgoingMessage::inbound(&self.topology, &envelope);
        let receiver = self.clone();
        tokio::spawn(async move {
            if let Err(error) = receiver.publisher.publish(message).await {
                debug!(%receipt_id, %error, "the ping is not on record");
            }
        });
    }

    /// Has a call recorded beside the answer, if not too many are already.
    fn record_in_background(&self, refused: RejectedRequest) {
        let Ok(place) = Arc::clone(&self.sampler.record_permits).try_acquire_owned() else {
            return self.count_unlogged(&refused.source);
        };
        let receiver = self.clone();
        tokio::spawn(async move {
            let _place = place;
            let message = OutgoingMessage::rejected_request(&receiver.topology, &refused)
                .expiring(RECORD_TTL);
            if let Err(error) = receiver.publisher.publish(message).await {
                debug!(receipt_id = %refused.receipt_id, %error, "the refusal is not on record");
                receiver.count_unlogged(&refused.source);
            }
        });
    }

    fn count_unlogged(&self, source: &SourceName) {
        self.metrics.rejected_requests_unlogged.with_label_values(&[source.as_str()]).inc();
    }

    /// Shows every series from the start: what has not happened yet is 0.
    pub(super) fn register_series(&self) {
        for (source, adapter) in self.sources.iter() {
            let name = source.as_str();
            self.metrics.invalid_signatures.with_label_values(&[name]);
            self.metrics.rejected_requests_unlogged.with_label_values(&[name]);
            for label in adapter.secret_labels() {
                self.metrics.secret_last_used.with_label_values(&[name, label]);
            }
        }
    }

    /// Tells that a secret verified a call.
    pub(super) fn record_secret_use(&self, source: &SourceName, secret: &str, at: OffsetDateTime) {
        let used = self.metrics.secret_last_used.with_label_values(&[source.as_str(), secret]);
        used.set(at.unix_timestamp());
    }
}
