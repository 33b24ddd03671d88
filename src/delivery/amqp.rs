//! Deliveries through an exchange of our broker: batches of CloudEvents, each
//! confirmed, and none lost because nobody listens yet.

use std::time::{Duration, Instant};

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{DeliveryContext, attempt, attempt::ClaimedDelivery, backoff, sleep_or_stop};
use crate::{
    broker::{EventPublisher, OutgoingMessage, PublishOutcome},
    destinations::{AttemptResult, DeliveryPayload, Destination, Transport},
    domain::PermanentFailure,
    retry,
    store::deliveries::{AttemptRecord, DueDelivery},
};

/// How long a batch may take, record included, beyond the broker's confirms.
const LEASE_MARGIN: Duration = Duration::from_mins(1);
/// How long what nobody listens for waits at least until it is tried again.
const MIN_UNROUTABLE_DELAY: Duration = Duration::from_secs(5);
/// It waits for this part of its age: what nobody ever binds a queue for is
/// never given up, and must not keep all others waiting, nor the database busy.
const UNROUTABLE_AGE_DIVISOR: u32 = 12;

/// Delivers to one exchange until stopped.
pub(super) async fn run(tools: &DeliveryContext, target: &Destination, stop: &CancellationToken) {
    let Transport::Amqp { exchange, routing_key } = &target.transport else { return };
    let open = tools.metrics.circuit_breaker_open.with_label_values(&["destination", &target.name]);
    open.set(0);
    let mut announcer = EventPublisher::new(&tools.broker_url, exchange, tools.confirm_timeout);
    let lease = tools.confirm_timeout.saturating_add(LEASE_MARGIN);
    let limit = target.policy.max_concurrency;
    let mut pause = retry::reconnect_delays();
    let mut unheard = false;
    while !stop.is_cancelled() {
        // Nothing is claimed before it can be sent.
        if let Err(error) = announcer.ensure_connected().await {
            open.set(1);
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(target = target.name, error, "events wait for RabbitMQ");
            sleep_or_stop(pause(), stop).await;
            continue;
        }
        open.set(0);
        pause = retry::reconnect_delays();
        let write = |about: &DeliveryPayload<'_>, due: &DueDelivery| cloud_event(about, due);
        let errands = match attempt::claim(tools, target, limit, lease, write).await {
            // Nothing that could be written: look for more.
            Ok(Some(errands)) if errands.is_empty() => continue,
            Ok(Some(errands)) => errands,
            Ok(None) => {
                tools.wait_for_work(stop).await;
                continue;
            }
            Err(error) => {
                warn!(target = target.name, %error, "the outbox cannot be read");
                sleep_or_stop(Duration::from_secs(1), stop).await;
                continue;
            }
        };
        let begun = Instant::now();
        let messages = errands.iter().map(|errand| {
            let key = routing_key.as_deref().unwrap_or(&errand.due.event);
            OutgoingMessage::cloud_event(
                exchange,
                key,
                errand.idempotency_key,
                &errand.due.event,
                errand.request.clone(),
            )
        });
        let said = announcer.publish(messages.collect()).await;
        let seconds = tools.metrics.delivery_duration.with_label_values(&[&target.name]);
        seconds.observe(begun.elapsed().as_secs_f64());
        let nobody = said.contains(&PublishOutcome::Unroutable);
        if nobody != unheard {
            unheard = nobody;
            if nobody {
                warn!(
                    target = target.name,
                    exchange, "no queue is bound for these events; they wait"
                );
            } else {
                info!(target = target.name, exchange, "events find a queue again");
            }
        }
        let attempt = |(errand, said): (&ClaimedDelivery, PublishOutcome)| {
            let told = attempt_result(said, exchange, errand.due.created_at);
            let outcome = backoff::attempt_outcome(&target.policy, &errand.due, true, told);
            errand.attempt_record(outcome, None, None)
        };
        let attempts: Vec<AttemptRecord> = errands.iter().zip(said).map(attempt).collect();
        attempt::record_attempts(tools, target, &attempts, stop).await;
    }
}

/// No attempt of these counts: the broker's troubles, and that nobody has
/// bound a queue yet, are no event's fault.
fn attempt_result(
    said: PublishOutcome,
    exchange: &str,
    written_at: OffsetDateTime,
) -> AttemptResult {
    let not_now = |error: String, retry_after| AttemptResult::RetryLater {
        error,
        retry_after,
        counts_as_attempt: false,
    };
    match said {
        PublishOutcome::Confirmed => AttemptResult::Delivered { remote_id: None, warning: None },
        PublishOutcome::Unroutable => {
            let age = OffsetDateTime::now_utc() - written_at;
            let pause = unroutable_delay(Duration::try_from(age).unwrap_or_default());
            not_now(format!("no queue is bound to {exchange} for it"), Some(pause))
        }
        PublishOutcome::Nacked => not_now("a queue refused it: it is full".to_owned(), None),
        // It may be there. Sent again it has the same id.
        PublishOutcome::Unknown(why) => not_now(why, None),
    }
}

/// The pause of what nobody listens for, by its age.
fn unroutable_delay(age: Duration) -> Duration {
    (age / UNROUTABLE_AGE_DIVISOR).max(MIN_UNROUTABLE_DELAY)
}

/// The event in CloudEvents' structured mode (version 1.0.2).
fn cloud_event(about: &DeliveryPayload<'_>, due: &DueDelivery) -> Result<String, PermanentFailure> {
    let mut source = format!("/tallyhook/{}", about.source);
    if !about.tenant.is_empty() {
        source.push('/');
        source.push_str(about.tenant);
    }
    let time = due
        .created_at
        .format(&Rfc3339)
        .map_err(|error| PermanentFailure::invalid("created_at", error.to_string()))?;
    let mut event = json!({
        "specversion": "1.0",
        // The same each time it is sent: whoever hears it twice knows.
        "id": about.idempotency_key,
        "source": source,
        "type": about.event,
        "subject": about.document_number.unwrap_or(about.document_id),
        "time": time,
        "datacontenttype": "application/json",
        "data": about.document,
    });
    if about.issue > 0 {
        event["generation"] = json!(about.issue);
    }
    Ok(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_listens_for_is_tried_ever_more_rarely() {
        for (age, pause) in [(0, 5), (60, 5), (120, 10), (3600, 300)] {
            assert_eq!(
                unroutable_delay(Duration::from_secs(age)),
                Duration::from_secs(pause),
                "{age} s"
            );
        }
        let now = OffsetDateTime::now_utc();
        let pause = |written_at| match attempt_result(PublishOutcome::Unroutable, "x", written_at) {
            AttemptResult::RetryLater { retry_after, counts_as_attempt: false, .. } => {
                retry_after.unwrap()
            }
            told => panic!("{told:?}"),
        };
        // Also where the database's clock is ahead of ours.
        assert_eq!(pause(now + Duration::from_hours(1)), MIN_UNROUTABLE_DELAY);
        assert!(pause(now - Duration::from_hours(1)) >= Duration::from_mins(5));
    }
}
