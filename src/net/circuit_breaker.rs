//! A circuit breaker: calls to a system that does not respond stop for a while, then one probe
//! finds out whether it responds again.

use std::time::{Duration, Instant};

/// The longest time that a circuit stays open, even if the system asks for more.
pub(super) const MAX_OPEN: Duration = Duration::from_mins(5);

/// The result of a call, as far as the circuit breaker cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// The call was not made.
    NotCalled,
    /// The system responded, with success or not.
    Responded,
    /// The system is down or overloaded. It may have requested a delay.
    Unavailable(Option<Duration>),
}

/// Whether a call may be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The call may be made.
    Allowed {
        /// The call is the probe of an open circuit. Pass this to [`CircuitBreaker::record`].
        probe: bool,
    },
    /// A probe is in progress: wait for its result.
    Wait,
    /// The circuit stays open for this long.
    Rejected(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, length: Duration },
    HalfOpen { length: Duration },
}

/// The circuit breaker of one system. The caller passes the time.
#[derive(Clone, Debug)]
pub(super) struct CircuitBreaker {
    threshold: u32,
    initial_open: Duration,
    state: State,
}

impl CircuitBreaker {
    /// Opens after `threshold` consecutive failures, for `initial_open` at first and twice as long
    /// after each failed probe.
    pub(super) fn new(threshold: u32, initial_open: Duration) -> Self {
        Self { threshold, initial_open, state: State::Closed { failures: 0 } }
    }

    /// Whether the circuit is open or half-open.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// How long the circuit stays open. `None` while it is closed or half-open.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => {
                until.checked_duration_since(now).filter(|wait| !wait.is_zero())
            }
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Asks to make a call. [`CircuitBreaker::record`] must follow an [`Admission::Allowed`].
    pub(super) fn try_admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Allowed { probe: false },
            State::Open { until, length } if now >= until => {
                self.state = State::HalfOpen { length };
                Admission::Allowed { probe: true }
            }
            State::Open { until, .. } => Admission::Rejected(until - now),
            State::HalfOpen { .. } => Admission::Wait,
        }
    }

    /// Records the result of a call.
    pub(super) fn record(&mut self, now: Instant, probe: bool, result: CallResult) {
        let until =
            |requested: Option<Duration>, length| now + requested.unwrap_or(length).min(MAX_OPEN);
        self.state = match (self.state, result) {
            (State::Closed { .. }, CallResult::Responded) => State::Closed { failures: 0 },
            (State::Closed { failures }, CallResult::Unavailable(requested)) => {
                let failures = failures.saturating_add(1);
                // A system that says when to call again is not called before.
                if requested.is_some() || failures >= self.threshold {
                    let length = self.initial_open;
                    State::Open { until: until(requested, length), length }
                } else {
                    State::Closed { failures }
                }
            }
            (State::HalfOpen { .. }, CallResult::Responded) if probe => {
                State::Closed { failures: 0 }
            }
            (State::HalfOpen { length }, CallResult::Unavailable(requested)) if probe => {
                let length = (length * 2).min(MAX_OPEN);
                State::Open { until: until(requested, length), length }
            }
            (State::HalfOpen { length }, CallResult::NotCalled) if probe => {
                State::Open { until: now, length }
            }
            // The call began before the circuit opened.
            (State::Open { until: before, length }, CallResult::Unavailable(Some(requested))) => {
                State::Open { until: before.max(until(Some(requested), length)), length }
            }
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNAVAILABLE: CallResult = CallResult::Unavailable(None);
    const ALLOWED: Admission = Admission::Allowed { probe: false };
    const PROBE: Admission = Admission::Allowed { probe: true };

    enum Step {
        /// At this second, a call is admitted like this.
        Admit(u64, Admission),
        /// At this second, a call (a probe?) has this result.
        Record(u64, bool, CallResult),
    }
    use Step::{Admit, Record};

    fn rejected(seconds: u64) -> Admission {
        Admission::Rejected(Duration::from_secs(seconds))
    }

    fn unavailable_for(seconds: u64) -> CallResult {
        CallResult::Unavailable(Some(Duration::from_secs(seconds)))
    }

    /// With a threshold of three failures, and open for 30 s.
    fn run(steps: &[Step]) -> CircuitBreaker {
        let start = Instant::now();
        let at = |second: &u64| start + Duration::from_secs(*second);
        let mut breaker = CircuitBreaker::new(3, Duration::from_secs(30));
        for (number, step) in steps.iter().enumerate() {
            match step {
                Admit(second, admission) => {
                    assert_eq!(breaker.try_admit(at(second)), *admission, "step {number}");
                }
                Record(second, probe, result) => breaker.record(at(second), *probe, *result),
            }
        }
        breaker
    }

    #[test]
    fn circuit_breaker_consecutive_failures_open_circuit() {
        let breaker = run(&[
            Record(0, false, UNAVAILABLE),
            Record(0, false, UNAVAILABLE),
            Record(0, false, CallResult::Responded),
            Record(1, false, UNAVAILABLE),
            Record(1, false, CallResult::NotCalled),
            Record(1, false, UNAVAILABLE),
            Admit(1, ALLOWED),
            Record(2, false, UNAVAILABLE),
            Admit(2, rejected(30)),
            Admit(31, rejected(1)),
        ]);
        assert!(breaker.is_open());
        assert_eq!(run(&[Record(0, false, UNAVAILABLE)]).open_for(Instant::now()), None);
    }

    #[test]
    fn circuit_breaker_probe_result_closes_or_reopens_circuit() {
        let mut steps: Vec<Step> = vec![
            Record(0, false, UNAVAILABLE),
            Record(0, false, UNAVAILABLE),
            Record(0, false, UNAVAILABLE),
        ];
        steps.extend([
            Admit(30, PROBE),
            Admit(30, Admission::Wait),
            // These calls began before the circuit opened.
            Record(30, false, CallResult::Responded),
            Record(30, false, UNAVAILABLE),
            Record(30, false, CallResult::NotCalled),
            Admit(30, Admission::Wait),
            Record(31, true, UNAVAILABLE),
            Admit(31, rejected(60)),
            Admit(91, PROBE),
            Record(91, true, CallResult::NotCalled),
            Admit(91, PROBE),
            Record(91, true, UNAVAILABLE),
            Admit(91, rejected(120)),
            Admit(211, PROBE),
            Record(211, true, UNAVAILABLE),
            Admit(211, rejected(240)),
            Admit(451, PROBE),
            Record(451, true, UNAVAILABLE),
            Admit(451, rejected(300)),
            Admit(751, PROBE),
            Record(751, true, UNAVAILABLE),
            Admit(751, rejected(300)),
            Admit(1051, PROBE),
            Record(1051, true, CallResult::Responded),
            Admit(1051, ALLOWED),
            // Failures count from zero again.
            Record(1051, false, UNAVAILABLE),
            Record(1051, false, UNAVAILABLE),
            Admit(1051, ALLOWED),
            Record(1051, false, UNAVAILABLE),
            Admit(1051, rejected(30)),
        ]);
        assert!(run(&steps).is_open());
    }

    #[test]
    fn circuit_breaker_requested_wait_is_honoured_up_to_maximum() {
        let breaker = run(&[
            Record(0, false, unavailable_for(7)),
            Admit(0, rejected(7)),
            // Other calls in progress get a longer wait, then a shorter one.
            Record(1, false, unavailable_for(20)),
            Admit(1, rejected(20)),
            Record(1, false, unavailable_for(2)),
            Admit(1, rejected(20)),
            Admit(21, PROBE),
            Record(21, true, unavailable_for(1)),
            Admit(21, rejected(1)),
            Admit(22, PROBE),
            Record(22, true, unavailable_for(86_400)),
            Admit(22, rejected(300)),
            Admit(322, PROBE),
            Record(322, true, CallResult::Responded),
            Admit(322, ALLOWED),
        ]);
        assert!(!breaker.is_open());
    }

    #[test]
    fn circuit_breaker_open_for_counts_down_to_zero() {
        let mut breaker = CircuitBreaker::new(1, Duration::from_secs(30));
        let start = Instant::now();
        breaker.record(start, false, UNAVAILABLE);
        let open_for = |second| breaker.open_for(start + Duration::from_secs(second));
        assert_eq!(open_for(0), Some(Duration::from_secs(30)));
        assert_eq!(open_for(29), Some(Duration::from_secs(1)));
        assert_eq!(open_for(30), None);
    }
}
