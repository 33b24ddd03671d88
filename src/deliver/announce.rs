//! Deliveries through an exchange of our broker: batches of CloudEvents, each
//! confirmed, and none lost because nobody listens yet.

use std::time::{Duration, Instant};

use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Tools,
    errand::{self, Errand},
    pause, rest,
};
use crate::{
    broker::{Announced, Announcer, Outgoing},
    domain::Failure,
    retry,
    store::deliveries::{Attempt, Due},
    target::{About, Target, Told, Way},
};

/// How long a batch may take, record included, beyond the broker's confirms.
const MARGIN: Duration = Duration::from_mins(1);
/// How long what nobody listens for waits at least until it is tried again.
const SILENCE: Duration = Duration::from_secs(5);
/// It waits for this part of its age: what nobody ever binds a queue for is
/// never given up, and must not keep all others waiting, nor the database busy.
const PART_OF_AGE: u32 = 12;

/// Delivers to one exchange until stopped.
pub(super) async fn run(tools: &Tools, target: &Target, stop: &CancellationToken) {
    let Way::Broker { exchange, routing_key } = &target.way else { return };
    let open = tools.metrics.delivery_breaker_open.with_label_values(&[&target.name]);
    open.set(0);
    let mut announcer = Announcer::new(&tools.broker_url, exchange, tools.confirm_timeout);
    let lease = tools.confirm_timeout.saturating_add(MARGIN);
    let limit = target.effort.concurrency;
    let mut pause = retry::reconnect();
    let mut unheard = false;
    while !stop.is_cancelled() {
        // Nothing is claimed before it can be sent.
        if let Err(error) = announcer.connect().await {
            open.set(1);
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(target = target.name, error, "events wait for RabbitMQ");
            rest(pause(), stop).await;
            continue;
        }
        open.set(0);
        pause = retry::reconnect();
        let write = |about: &About<'_>, due: &Due| cloud_event(about, due);
        let errands = match errand::claim(tools, target, limit, lease, write).await {
            // Nothing that could be written: look for more.
            Ok(Some(errands)) if errands.is_empty() => continue,
            Ok(Some(errands)) => errands,
            Ok(None) => {
                tools.something_new(stop).await;
                continue;
            }
            Err(error) => {
                warn!(target = target.name, %error, "the outbox cannot be read");
                rest(Duration::from_secs(1), stop).await;
                continue;
            }
        };
        let begun = Instant::now();
        let messages = errands.iter().map(|errand| {
            let key = routing_key.as_deref().unwrap_or(&errand.due.event);
            Outgoing::event(exchange, key, errand.key, &errand.due.event, errand.request.clone())
        });
        let said = announcer.announce(messages.collect()).await;
        let seconds = tools.metrics.delivery_seconds.with_label_values(&[&target.name]);
        seconds.observe(begun.elapsed().as_secs_f64());
        let nobody = said.contains(&Announced::Unheard);
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
        let attempt = |(errand, said): (&Errand, Announced)| {
            let told = told(said, exchange, errand.due.created_at);
            let outcome = pause::outcome(&target.effort, &errand.due, true, told);
            errand.attempt(outcome, None, None)
        };
        let attempts: Vec<Attempt> = errands.iter().zip(said).map(attempt).collect();
        errand::record(tools, target, &attempts, stop).await;
    }
}

/// No attempt of these counts: the broker's troubles, and that nobody has
/// bound a queue yet, are no event's fault.
fn told(said: Announced, exchange: &str, written_at: OffsetDateTime) -> Told {
    let not_now = |error: String, retry_after| Told::NotNow { error, retry_after, counts: false };
    match said {
        Announced::Taken => Told::Has { remote_id: None, warning: None },
        Announced::Unheard => {
            let age = OffsetDateTime::now_utc() - written_at;
            let pause = silence(Duration::try_from(age).unwrap_or_default());
            not_now(format!("no queue is bound to {exchange} for it"), Some(pause))
        }
        Announced::Refused => not_now("a queue refused it: it is full".to_owned(), None),
        // It may be there. Sent again it has the same id.
        Announced::Lost(why) => not_now(why, None),
    }
}

/// The pause of what nobody listens for, by its age.
fn silence(age: Duration) -> Duration {
    (age / PART_OF_AGE).max(SILENCE)
}

/// The event in CloudEvents' structured mode (version 1.0.2).
fn cloud_event(about: &About<'_>, due: &Due) -> Result<String, Failure> {
    let mut source = format!("/tallyhook/{}", about.source);
    if !about.tenant.is_empty() {
        source.push('/');
        source.push_str(about.tenant);
    }
    let time = due
        .created_at
        .format(&Rfc3339)
        .map_err(|error| Failure::invalid("created_at", error.to_string()))?;
    let mut event = json!({
        "specversion": "1.0",
        // The same each time it is sent: whoever hears it twice knows.
        "id": about.key,
        "source": source,
        "type": about.event,
        "subject": about.document_number.unwrap_or(about.document_id),
        "time": time,
        "datacontenttype": "application/json",
        "data": about.document,
    });
    if about.generation > 0 {
        event["generation"] = json!(about.generation);
    }
    Ok(event.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_listens_for_is_tried_ever_more_rarely() {
        for (age, pause) in [(0, 5), (60, 5), (120, 10), (3600, 300)] {
            assert_eq!(silence(Duration::from_secs(age)), Duration::from_secs(pause), "{age} s");
        }
        let now = OffsetDateTime::now_utc();
        let pause = |written_at| match told(Announced::Unheard, "x", written_at) {
            Told::NotNow { retry_after, counts: false, .. } => retry_after.unwrap(),
            told => panic!("{told:?}"),
        };
        // Also where the database's clock is ahead of ours.
        assert_eq!(pause(now + Duration::from_hours(1)), SILENCE);
        assert!(pause(now - Duration::from_hours(1)) >= Duration::from_mins(5));
    }
}
