//! Deliveries over HTTP: so many at once, so many a second, and none while
//! the target does not answer.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

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
/// the record of it all, and the second that it may wait for the pace.
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
    let (turn, waiting) = (Mutex::default(), AtomicUsize::new(0));
    let courier = Courier { tools, target, http, gate: &gate, turn, waiting, stop };
    let seats = (0..effort.concurrency).map(|_| courier.work());
    futures_util::future::join_all(seats).await;
}

struct Courier<'a> {
    tools: &'a Tools,
    target: &'a Target,
    http: &'a HttpTarget,
    gate: &'a Gate,
    /// One seat at a time looks for work, for all that wait behind it; the
    /// others carry. What was found has been claimed.
    turn: Mutex<VecDeque<Ready<'a>>>,
    /// How many seats look for work or wait for it.
    waiting: AtomicUsize,
    stop: &'a CancellationToken,
}

/// A delivery that was claimed, and leave to send it.
struct Ready<'a> {
    errand: Errand,
    pass: Pass<'a>,
    /// Whether its slot of the pace has come.
    is_paced: bool,
}

impl<'a> Courier<'a> {
    /// One seat: a delivery after the other.
    async fn work(&self) {
        loop {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let ready = {
                let mut ready = self.turn.lock().await;
                if ready.is_empty() {
                    *ready = self.find().await;
                }
                ready.pop_front()
            };
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let Some(Ready { errand, pass, is_paced }) = ready else { return };
            if !is_paced {
                self.gate.pace().await;
            }
            let attempt = self.carry(&errand, pass).await;
            errand::record(self.tools, self.target, &[attempt], self.stop).await;
        }
    }

    /// Waits for deliveries whose turn it is, one for each seat that waits, and
    /// for leave to send them; none once it is time to stop. Leave comes first:
    /// while the target is left alone nothing is claimed, and no attempt can
    /// count.
    async fn find(&self) -> VecDeque<Ready<'a>> {
        let lease = self.target.effort.timeout.saturating_mul(CALLS).saturating_add(MARGIN);
        while !self.stop.is_cancelled() {
            if let Some(wait) = self.gate.closed_for() {
                rest(wait.min(GLANCE), self.stop).await;
                continue;
            }
            let pass = tokio::select! {
                pass = self.gate.enter() => pass,
                () = self.stop.cancelled() => break,
            };
            let Ok(pass) = pass else { continue };
            let mut passes = vec![pass];
            passes.extend(self.leave_for_the_others(&passes[0]));
            let write = |about: &About<'_>, _: &Due| self.http.render(about);
            match errand::claim(self.tools, self.target, passes.len(), lease, write).await {
                // Nothing that could be written: look for more.
                Ok(Some(errands)) if errands.is_empty() => {}
                Ok(Some(errands)) => {
                    let ready = errands.into_iter().zip(passes).enumerate();
                    return ready
                        .map(|(index, (errand, pass))| Ready { errand, pass, is_paced: index == 0 })
                        .collect();
                }
                Ok(None) => {
                    drop(passes);
                    self.tools.something_new(self.stop).await;
                }
                Err(error) => {
                    drop(passes);
                    warn!(target = self.target.name, %error, "the outbox cannot be read");
                    rest(GLANCE, self.stop).await;
                }
            }
        }
        VecDeque::new()
    }

    /// Leave for the seats that wait behind this one: to claim for each of
    /// them by itself would cost a transaction each. None lies claimed for
    /// longer than a second before its slot comes.
    fn leave_for_the_others(&self, mine: &Pass<'a>) -> Vec<Pass<'a>> {
        if mine.is_probe() {
            return Vec::new();
        }
        let others = self.waiting.load(Ordering::Relaxed).saturating_sub(1);
        let per_second = usize::try_from(self.target.effort.per_second).unwrap_or(usize::MAX);
        self.gate.more(others.min(per_second))
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
        // A process may have stood still since it claimed it. Sent now, the
        // call could outlast the lease, and meet that of another worker.
        if errand.asked_at.elapsed() > self.target.effort.timeout.saturating_add(MARGIN / 2) {
            let error = "it was not sent in time after it was claimed".to_owned();
            return silent(Told::NotNow { error, retry_after: None, counts: false });
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
