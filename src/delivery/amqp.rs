//! Deliveries to an exchange of our broker: batches of CloudEvents with
//! publisher confirms. Events wait while no queue is bound.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DeliveryContext, attempt, attempt::ClaimedDelivery, backoff, sleep_or_stop};
use crate::{
    broker::{self, EventPublisher, OutgoingMessage, PublishOutcome},
    destinations::{AttemptResult, DeliveryPayload, Destination, Transport},
    domain::PermanentFailure,
    store::deliveries::{AttemptRecord, DueDelivery},
};

/// Time for a batch in addition to the broker's confirms.
const LEASE_MARGIN: Duration = Duration::from_mins(1);
/// Shortest delay before an unroutable event is published again.
const MIN_UNROUTABLE_DELAY: Duration = Duration::from_secs(5);
/// An unroutable event waits for its age divided by this. It is never given
/// up, and must not delay other events or load the database.
const UNROUTABLE_AGE_DIVISOR: u32 = 12;

/// Delivers to one exchange until stopped.
pub(super) async fn run(
    context: &DeliveryContext,
    destination: &Destination,
    stop: &CancellationToken,
) {
    let Transport::Amqp { exchange, routing_key } = &destination.transport else { return };
    let name = &destination.name;
    let breaker_open =
        context.metrics.circuit_breaker_open.with_label_values(&["destination", name]);
    let amqp = AmqpDelivery {
        context,
        destination,
        exchange,
        routing_key: routing_key.as_deref(),
        is_unroutable: AtomicBool::new(false),
    };
    breaker_open.set(0);
    // Nothing is claimed before it is connected, so that no lease passes unused.
    let connect =
        || EventPublisher::connect(&context.broker_url, exchange, context.confirm_timeout);
    let serve = |publisher| {
        breaker_open.set(0);
        amqp.deliver(publisher, stop)
    };
    let on_down = |_: &str| breaker_open.set(i64::from(!stop.is_cancelled()));
    broker::supervise(name, stop, connect, serve, on_down).await;
}

/// The deliveries to one exchange.
struct AmqpDelivery<'a> {
    context: &'a DeliveryContext,
    destination: &'a Destination,
    exchange: &'a str,
    /// The routing key of all events, instead of the name of each.
    routing_key: Option<&'a str>,
    /// Whether the last batch had an unroutable event.
    is_unroutable: AtomicBool,
}

impl AmqpDelivery<'_> {
    /// Delivers until the connection fails or `stop` is cancelled. Returns why
    /// it ended.
    async fn deliver(&self, mut publisher: EventPublisher, stop: &CancellationToken) -> String {
        let Self { context, destination, .. } = self;
        let lease = context.confirm_timeout.saturating_add(LEASE_MARGIN);
        let limit = destination.policy.max_concurrency;
        while !stop.is_cancelled() && publisher.is_usable() {
            match attempt::claim(context, destination, limit, lease, cloud_event).await {
                // Empty if none could be rendered: claim more.
                Ok(Some(deliveries)) if deliveries.is_empty() => {}
                Ok(Some(deliveries)) => self.attempt(&mut publisher, &deliveries, stop).await,
                Ok(None) => context.wait_for_work(stop).await,
                Err(error) => {
                    let name = &destination.name;
                    warn!(destination = name, %error, "the outbox cannot be read");
                    sleep_or_stop(Duration::from_secs(1), stop).await;
                }
            }
        }
        publisher.close().await;
        if stop.is_cancelled() { "stopping" } else { "the connection was lost or is blocked" }
            .to_owned()
    }

    /// Publishes claimed deliveries and records their outcomes.
    async fn attempt(
        &self,
        publisher: &mut EventPublisher,
        deliveries: &[ClaimedDelivery],
        stop: &CancellationToken,
    ) {
        let Self { context, destination, exchange, routing_key, .. } = self;
        let started_at = Instant::now();
        let messages = deliveries.iter().map(|delivery| {
            OutgoingMessage::cloud_event(
                exchange,
                routing_key.unwrap_or(&delivery.due.event),
                delivery.idempotency_key,
                &delivery.due.event,
                delivery.request.clone(),
            )
        });
        let outcomes = publisher.publish(messages.collect()).await;
        let duration = context.metrics.delivery_duration.with_label_values(&[&destination.name]);
        duration.observe(started_at.elapsed().as_secs_f64());
        self.log_unroutable(outcomes.contains(&PublishOutcome::Unroutable));
        let now = OffsetDateTime::now_utc();
        let attempt_record = |(delivery, outcome): (&ClaimedDelivery, PublishOutcome)| {
            let age = Duration::try_from(now - delivery.due.created_at).unwrap_or_default();
            let result = attempt_result(outcome, exchange, age);
            let outcome =
                backoff::attempt_outcome(&destination.policy, &delivery.due, true, result);
            delivery.attempt_record(outcome, None, None)
        };
        let attempts: Vec<AttemptRecord> =
            deliveries.iter().zip(outcomes).map(attempt_record).collect();
        attempt::record_attempts(context, destination, &attempts, stop).await;
    }

    /// Logs when events become unroutable, and when they are routed again.
    fn log_unroutable(&self, is_unroutable: bool) {
        let Self { destination, exchange, .. } = self;
        let was_unroutable = self.is_unroutable.swap(is_unroutable, Ordering::Relaxed);
        match (was_unroutable, is_unroutable) {
            (false, true) => {
                warn!(destination = destination.name, exchange, "no queue is bound; events wait");
            }
            (true, false) => {
                info!(destination = destination.name, exchange, "a queue is bound again");
            }
            _ => {}
        }
    }
}

/// None of these counts as an attempt: an outage of the broker or a missing
/// queue is not the event's fault. `age` is the age of the delivery.
fn attempt_result(outcome: PublishOutcome, exchange: &str, age: Duration) -> AttemptResult {
    let retry_later = |error: String, retry_after| AttemptResult::RetryLater {
        error,
        retry_after,
        counts_as_attempt: false,
    };
    match outcome {
        PublishOutcome::Confirmed => AttemptResult::Delivered { remote_id: None, warning: None },
        PublishOutcome::Unroutable => retry_later(
            format!("no queue is bound to {exchange} for it"),
            Some(unroutable_delay(age)),
        ),
        PublishOutcome::Nacked => retry_later("a queue rejected it: it is full".to_owned(), None),
        // The broker may have it. The next publish has the same message id.
        PublishOutcome::Unknown(error) => retry_later(error, None),
    }
}

/// The delay of an unroutable event of this age.
fn unroutable_delay(age: Duration) -> Duration {
    (age / UNROUTABLE_AGE_DIVISOR).max(MIN_UNROUTABLE_DELAY)
}

/// The event in CloudEvents' structured mode (version 1.0.2).
fn cloud_event(
    payload: &DeliveryPayload<'_>,
    due: &DueDelivery,
) -> Result<String, PermanentFailure> {
    let mut source = format!("/tallyhook/{}", payload.source);
    if !payload.tenant.is_empty() {
        source.push('/');
        source.push_str(payload.tenant);
    }
    let time = due
        .created_at
        .format(&Rfc3339)
        .map_err(|error| PermanentFailure::invalid("created_at", error.to_string()))?;
    let mut event = json!({
        "specversion": "1.0",
        // The same in every attempt, so that consumers can deduplicate.
        "id": payload.idempotency_key,
        "source": source,
        "type": payload.event,
        "subject": payload.document_number.unwrap_or(payload.document_id),
        "time": time,
        "datacontenttype": "application/json",
        "data": payload.document,
    });
    if payload.issue > 0 {
        event["issue"] = json!(payload.issue);
    }
    Ok(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unroutable_delay_grows_with_age() {
        for (age, delay) in [(0, 5), (60, 5), (120, 10), (3600, 300)] {
            let (age, delay) = (Duration::from_secs(age), Duration::from_secs(delay));
            assert_eq!(unroutable_delay(age), delay, "{age:?}");
            match attempt_result(PublishOutcome::Unroutable, "x", age) {
                AttemptResult::RetryLater { retry_after, counts_as_attempt: false, .. } => {
                    assert_eq!(retry_after, Some(delay));
                }
                result => panic!("{result:?}"),
            }
        }
    }
}
