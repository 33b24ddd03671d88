//! A circuit breaker: a system that does not answer is left alone for a
//! while, and then asked once.

use std::time::{Duration, Instant};

/// The longest it stays open, whatever the system asks for.
pub(crate) const MAX_OPEN: Duration = Duration::from_mins(5);

/// What came of a call, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It was not asked in the end.
    NotCalled,
    /// It answered, if only to say no.
    Responded,
    /// It is away, or has too much to do; it may ask to wait so long.
    Unavailable(Option<Duration>),
}

/// Whether to ask now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Ask; as the only one, to see whether it answers again, if `probe`.
    Allowed {
        /// Hand this back with the verdict.
        probe: bool,
    },
    /// Another is just asking: wait for what comes of it.
    Wait,
    /// Do not ask for so long.
    Rejected(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, length: Duration },
    HalfOpen { length: Duration },
}

/// One system's breaker. Knows no clock: the time is told.
#[derive(Clone, Debug)]
pub(crate) struct CircuitBreaker {
    failures: u32,
    first: Duration,
    state: State,
}

impl CircuitBreaker {
    /// Opens after so many failures in a row, for `first` the first time and
    /// for twice as long after each probe that fails.
    pub(crate) fn new(failures: u32, first: Duration) -> Self {
        Self { failures, first, state: State::Closed { failures: 0 } }
    }

    /// Whether it is open, or half so.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed { .. })
    }

    /// How long nobody may ask.
    pub(crate) fn open_for(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => {
                until.checked_duration_since(now).filter(|wait| !wait.is_zero())
            }
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Whether to ask. What is granted is followed by [`CircuitBreaker::tell`].
    pub(crate) fn try_admit(&mut self, now: Instant) -> Admission {
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

    /// What came of asking.
    pub(crate) fn record(&mut self, now: Instant, probe: bool, verdict: CallResult) {
        let until = |asked: Option<Duration>, length| now + asked.unwrap_or(length).min(MAX_OPEN);
        self.state = match (self.state, verdict) {
            (State::Closed { .. }, CallResult::Responded) => State::Closed { failures: 0 },
            (State::Closed { failures }, CallResult::Unavailable(asked)) => {
                let failures = failures.saturating_add(1);
                // Who says when to come again is not asked before.
                if asked.is_some() || failures >= self.failures {
                    State::Open { until: until(asked, self.first), length: self.first }
                } else {
                    State::Closed { failures }
                }
            }
            (State::HalfOpen { .. }, CallResult::Responded) if probe => {
                State::Closed { failures: 0 }
            }
            (State::HalfOpen { length }, CallResult::Unavailable(asked)) if probe => {
                let length = (length * 2).min(MAX_OPEN);
                State::Open { until: until(asked, length), length }
            }
            (State::HalfOpen { length }, CallResult::NotCalled) if probe => {
                State::Open { until: now, length }
            }
            // Asked before it opened, answered after.
            (State::Open { until: before, length }, CallResult::Unavailable(Some(asked))) => {
                State::Open { until: before.max(until(Some(asked), length)), length }
            }
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: CallResult = CallResult::Unavailable(None);
    const GO: Admission = Admission::Allowed { probe: false };
    const PROBE: Admission = Admission::Allowed { probe: true };

    enum Step {
        /// At this second, asking gives this.
        Ask(u64, Admission),
        /// At this second, this came of asking.
        Tell(u64, bool, CallResult),
    }
    use Step::{Ask, Tell};

    fn denied(seconds: u64) -> Admission {
        Admission::Rejected(Duration::from_secs(seconds))
    }

    fn away(seconds: u64) -> CallResult {
        CallResult::Unavailable(Some(Duration::from_secs(seconds)))
    }

    /// Three failures, 30 s.
    fn walk(steps: &[Step]) -> CircuitBreaker {
        let begun = Instant::now();
        let at = |second: &u64| begun + Duration::from_secs(*second);
        let mut breaker = CircuitBreaker::new(3, Duration::from_secs(30));
        for (number, step) in steps.iter().enumerate() {
            match step {
                Ask(second, leave) => {
                    assert_eq!(breaker.try_admit(at(second)), *leave, "step {number}")
                }
                Tell(second, probe, verdict) => breaker.record(at(second), *probe, *verdict),
            }
        }
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        let breaker = walk(&[
            Tell(0, false, AWAY),
            Tell(0, false, AWAY),
            Tell(0, false, CallResult::Responded),
            Tell(1, false, AWAY),
            Tell(1, false, CallResult::NotCalled),
            Tell(1, false, AWAY),
            Ask(1, GO),
            Tell(2, false, AWAY),
            Ask(2, denied(30)),
            Ask(31, denied(1)),
        ]);
        assert!(breaker.is_open());
    }

    #[test]
    fn one_probe_decides() {
        let open = [Tell(0, false, AWAY), Tell(0, false, AWAY), Tell(0, false, AWAY)];
        let mut steps: Vec<Step> = open.into();
        steps.extend([
            Ask(30, PROBE),
            Ask(30, Admission::Wait),
            // Asked before it opened.
            Tell(30, false, CallResult::Responded),
            Tell(30, false, AWAY),
            Ask(30, Admission::Wait),
            Tell(31, true, AWAY),
            Ask(31, denied(60)),
            Ask(91, PROBE),
            Tell(91, true, CallResult::NotCalled),
            Ask(91, PROBE),
            Tell(91, true, AWAY),
            Ask(91, denied(120)),
            Ask(211, PROBE),
            Tell(211, true, AWAY),
            Ask(211, denied(240)),
            Ask(451, PROBE),
            Tell(451, true, AWAY),
            Ask(451, denied(300)),
            Ask(751, PROBE),
            Tell(751, true, AWAY),
            Ask(751, denied(300)),
            Ask(1051, PROBE),
            Tell(1051, true, CallResult::Responded),
            Ask(1051, GO),
            // It begins anew.
            Tell(1051, false, AWAY),
            Tell(1051, false, AWAY),
            Ask(1051, GO),
            Tell(1051, false, AWAY),
            Ask(1051, denied(30)),
        ]);
        assert!(walk(&steps).is_open());
    }

    #[test]
    fn what_the_system_asks_for_is_done_within_reason() {
        walk(&[
            Tell(0, false, away(7)),
            Ask(0, denied(7)),
            // Another that was under way is told a longer time, then a shorter one.
            Tell(1, false, away(20)),
            Ask(1, denied(20)),
            Tell(1, false, away(2)),
            Ask(1, denied(20)),
            Ask(21, PROBE),
            Tell(21, true, away(1)),
            Ask(21, denied(1)),
            Ask(22, PROBE),
            Tell(22, true, away(86_400)),
            Ask(22, denied(300)),
            Ask(322, PROBE),
            Tell(322, true, CallResult::Responded),
            Ask(322, GO),
        ]);
    }
}
