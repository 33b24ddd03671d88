//! Deliveries over HTTP: so many at once, so many a second, and none while
//! the target does not answer.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Tools,
    errand::{self, Errand},
    pause, rest,
};
use crate::{
    domain::Reason,
    gate::{Gate, Pass},
    store::deliveries::{Attempt, Due},
    target::{About, Answer, Found, Report, Target, Told, http::HttpTarget},
};

/// A lease covers a look-up, the call and what it looks up, another look-up,
/// and the record of it all.
const CALLS: u32 = 4;
const MARGIN: Duration = Duration::from_secs(30);
/// While the target is left alone, somebody may have something to say.
const GLANCE: Duration = Duration::from_secs(1);

/// Delivers to one target until stopped.
pub(super) async fn run(
    tools: &Tools,
    target: &Target,
    http: &HttpTarget,
    stop: &CancellationToken,
) {
    let effort = &target.effort;
    let open = tools.metrics.delivery_breaker_open.with_label_values(&[&target.name]);
    open.set(0);
    let name = target.name.clone();
    let gate = Gate::new(&effort.limits(), move |is_open| {
        open.set(i64::from(is_open));
        if is_open {
            warn!(target = name, "the target does not answer; deliveries wait");
        } else {
            info!(target = name, "the target answers again");
        }
    });
    let courier = Courier { tools, target, http, gate, turn: Mutex::new(()), stop };
    let seats = (0..effort.concurrency).map(|_| courier.work());
    futures_util::future::join_all(seats).await;
}

struct Courier<'a> {
    tools: &'a Tools,
    target: &'a Target,
    http: &'a HttpTarget,
    gate: Gate,
    /// One seat at a time looks for work; the others wait or carry.
    turn: Mutex<()>,
    stop: &'a CancellationToken,
}

impl Courier<'_> {
    /// One seat: a delivery after the other.
    async fn work(&self) {
        loop {
            let found = {
                let _turn = self.turn.lock().await;
                self.find().await
            };
            let Some((errand, pass)) = found else { return };
            let attempt = self.carry(&errand, pass).await;
            errand::record(self.tools, self.target, &[attempt], self.stop).await;
        }
    }

    /// Waits for a delivery whose turn it is, and for leave to send it; none
    /// once it is time to stop. Leave comes first: while the target is left
    /// alone nothing is claimed, and no attempt can count.
    async fn find(&self) -> Option<(Errand, Pass<'_>)> {
        let lease = self.target.effort.timeout.saturating_mul(CALLS).saturating_add(MARGIN);
        while !self.stop.is_cancelled() {
            if let Some(wait) = self.gate.closed_for() {
                rest(wait.min(GLANCE), self.stop).await;
                continue;
            }
            let pass = tokio::select! {
                pass = self.gate.enter() => pass,
                () = self.stop.cancelled() => return None,
            };
            let Ok(pass) = pass else { continue };
            let write = |about: &About<'_>, _: &Due| self.http.render(about);
            match errand::claim(self.tools, self.target, 1, lease, write).await {
                Ok(errands) => {
                    if let Some(errand) = errands.into_iter().next() {
                        return Some((errand, pass));
                    }
                    drop(pass);
                    self.tools.something_new(self.stop).await;
                }
                Err(error) => {
                    drop(pass);
                    warn!(target = self.target.name, %error, "the outbox cannot be read");
                    rest(GLANCE, self.stop).await;
                }
            }
        }
        None
    }

    /// Sends a delivery, and finds out what came of it as far as it can be.
    async fn carry(&self, errand: &Errand, pass: Pass<'_>) -> Attempt {
        let may_count = !pass.is_probe();
        let begun = Instant::now();
        let report = self.send(errand).await;
        let seconds = self.tools.metrics.delivery_seconds.with_label_values(&[&self.target.name]);
        seconds.observe(begun.elapsed().as_secs_f64());
        pass.tell(report.verdict());
        let Report { told, answer } = report;
        let outcome = pause::outcome(&self.target.effort, &errand.due, may_count, told);
        let (status, response) = match answer {
            Some(Answer { status, body }) => (status, Some(body)),
            None => (None, None),
        };
        errand.attempt(outcome, status, response)
    }

    async fn send(&self, errand: &Errand) -> Report {
        let about = errand.about();
        let asks = self.http.offers_look_up();
        if errand.due.is_doubtful && asks {
            match self.http.look_up(&about).await {
                Ok(Found::There { remote_id }) => {
                    let warning = "found by looking it up: the answer to the call that made it \
                                   never came";
                    return silent(Told::Has { remote_id, warning: Some(warning.to_owned()) });
                }
                Ok(Found::Nowhere) => {}
                Err(error) => {
                    return silent(Told::Unknown(format!("it could not be looked up: {error}")));
                }
            }
        }
        let report = self.http.send(&about, &errand.request).await;
        let Told::Has { remote_id, warning: None } = report.told else { return report };
        // The answer to a key that was used before may be an old one, of what
        // was deleted since.
        if !asks || !errand.due.was_sent {
            return Report { told: Told::Has { remote_id, warning: None }, ..report };
        }
        let told = match self.http.look_up(&about).await {
            Ok(Found::There { remote_id: looked_up }) => {
                Told::Has { remote_id: remote_id.or(looked_up), warning: None }
            }
            Ok(Found::Nowhere) => Told::Refused {
                reason: Reason::DeliveryGone,
                error: "the target answers that it has it, and cannot show it: it was deleted \
                        there after an earlier call; void it and re-issue it"
                    .to_owned(),
            },
            Err(error) => {
                let warning = format!("it could not be looked up afterwards: {error}");
                Told::Has { remote_id, warning: Some(warning) }
            }
        };
        Report { told, ..report }
    }
}

/// What was found out without an answer to the delivery itself.
fn silent(told: Told) -> Report {
    Report { told, answer: None }
}
