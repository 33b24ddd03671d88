//! Simulated faults. They are counted, never random, so runs are repeatable.

use std::{num::NonZeroU32, time::Duration};

use http::Method;
use serde::Deserialize;
use serde_json::Value;

/// Default time without a response; longer than any client timeout.
const HANG: Duration = Duration::from_mins(10);

/// The body of `POST /faults`. Absent fields keep their value.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Change {
    /// Removes all faults first.
    pub(crate) clear: bool,
    /// Every Nth creation gets no response.
    pub(crate) timeout_after_create_every: Option<NonZeroU32>,
    /// Time until that connection is closed, in milliseconds; 0 closes at once.
    pub(crate) hang_ms: Option<u64>,
    /// Every Nth creation is delayed and happens even if the client gives up.
    /// Its key is in progress until then.
    pub(crate) late_create_every: Option<NonZeroU32>,
    /// The delay, in milliseconds.
    pub(crate) late_ms: Option<u64>,
    /// A fixed response instead of the real one.
    pub(crate) answer: Option<CannedResponse>,
    /// Whether a vendor's invoice number may be created twice.
    pub(crate) duplicates_pass: Option<bool>,
    /// Closes the listener and every connection after this response.
    pub(crate) vanish: Option<Vanish>,
}

/// A fixed response instead of the real one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CannedResponse {
    /// The status.
    pub(crate) status: u16,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
    /// JSON, or a string that is sent as it is.
    pub(crate) body: Option<Value>,
    /// Only requests whose body contains this text; default any.
    #[serde(default)]
    pub(crate) containing: String,
    /// Only requests to `/invoices` with this method; default POST.
    #[serde(default)]
    pub(crate) method: CallMethod,
    /// How many times; default always.
    times: Option<NonZeroU32>,
    /// Only every Nth matching request; default each.
    every: Option<NonZeroU32>,
}

/// The methods of `/invoices`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum CallMethod {
    #[default]
    Post,
    Get,
    Delete,
}

impl CallMethod {
    fn is(self, method: &Method) -> bool {
        *method
            == match self {
                Self::Post => Method::POST,
                Self::Get => Method::GET,
                Self::Delete => Method::DELETE,
            }
    }
}

/// Length of an outage.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Vanish {
    /// `true`: until restart.
    ForGood(bool),
    /// `{"ms": 500}`: then it listens on the same port again.
    For {
        /// Milliseconds.
        ms: u64,
    },
}

impl Vanish {
    pub(crate) fn is_requested(self) -> bool {
        !matches!(self, Self::ForGood(false))
    }

    /// `None` means until restart.
    pub(crate) fn pause(self) -> Option<Duration> {
        match self {
            Self::ForGood(_) => None,
            Self::For { ms } => Some(Duration::from_millis(ms)),
        }
    }
}

/// The faults of one creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CreationFault {
    /// Delay before the invoice is created.
    pub(crate) late: Option<Duration>,
    /// Time without a response before the connection is closed.
    pub(crate) hang: Option<Duration>,
}

/// The active faults.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    timeout: Option<Every>,
    hang: Option<Duration>,
    late: Option<Every>,
    late_by: Duration,
    answer: Option<ActiveResponse>,
    duplicates_pass: bool,
}

#[derive(Debug)]
struct ActiveResponse {
    answer: CannedResponse,
    every: Every,
    left: Option<u32>,
}

impl Faults {
    /// Applies a change; counters of changed faults start again.
    pub(crate) fn change(&mut self, change: Change) {
        if change.clear {
            *self = Self::default();
        }
        if let Some(every) = change.timeout_after_create_every {
            self.timeout = Some(Every::new(every));
        }
        if let Some(ms) = change.hang_ms {
            self.hang = Some(Duration::from_millis(ms));
        }
        if let Some(every) = change.late_create_every {
            self.late = Some(Every::new(every));
        }
        if let Some(ms) = change.late_ms {
            self.late_by = Duration::from_millis(ms);
        }
        if let Some(answer) = change.answer {
            self.answer = Some(ActiveResponse {
                every: Every::new(answer.every.unwrap_or(NonZeroU32::MIN)),
                left: answer.times.map(NonZeroU32::get),
                answer,
            });
        }
        if let Some(pass) = change.duplicates_pass {
            self.duplicates_pass = pass;
        }
    }

    /// The fixed response to a request to `/invoices`, if one applies.
    pub(crate) fn answer(&mut self, method: &Method, body: &str) -> Option<CannedResponse> {
        let ActiveResponse { answer, every, left } = self.answer.as_mut()?;
        if !answer.method.is(method) || !body.contains(&answer.containing) || !every.is_due() {
            return None;
        }
        let answer = answer.clone();
        if let Some(left) = left {
            *left -= 1;
            if *left == 0 {
                self.answer = None;
            }
        }
        Some(answer)
    }

    /// The faults of the next creation.
    pub(crate) fn creation(&mut self) -> CreationFault {
        let Self { timeout, hang, late, late_by, .. } = self;
        let is_due = |every: &mut Option<Every>| every.as_mut().is_some_and(Every::is_due);
        CreationFault {
            late: is_due(late).then_some(*late_by),
            hang: is_due(timeout).then_some(hang.unwrap_or(HANG)),
        }
    }

    /// Whether a vendor's number may be there twice.
    pub(crate) fn duplicates_pass(&self) -> bool {
        self.duplicates_pass
    }
}

/// Every so many times.
#[derive(Debug)]
struct Every {
    every: NonZeroU32,
    seen: u32,
}

impl Every {
    fn new(every: NonZeroU32) -> Self {
        Self { every, seen: 0 }
    }

    fn is_due(&mut self) -> bool {
        self.seen += 1;
        if self.seen < self.every.get() {
            return false;
        }
        self.seen = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::*;

    fn faults(change: &str) -> Faults {
        let mut faults = Faults::default();
        faults.change(serde_json::from_str(change).unwrap());
        faults
    }

    #[test]
    fn timeout_every_third_creation() {
        let mut faults = faults(r#"{"timeout_after_create_every": 3, "hang_ms": 5}"#);
        let struck: Vec<bool> = (0..7).map(|_| faults.creation().hang.is_some()).collect();
        assert_eq!(struck, [false, false, true, false, false, true, false]);
        faults.change(serde_json::from_str(r#"{"clear": true}"#).unwrap());
        assert!((0..7).all(|_| faults.creation() == CreationFault::default()));
    }

    #[test]
    fn fixed_response_is_limited_by_count_and_method() {
        let mut faults =
            faults(r#"{"answer": {"status": 429, "retry_after": 1, "times": 2, "every": 2}}"#);
        assert!((0..4).all(|_| faults.answer(&Method::GET, "").is_none()));
        let given: Vec<Option<u16>> =
            (0..6).map(|_| faults.answer(&Method::POST, "").map(|answer| answer.status)).collect();
        assert_eq!(given, [None, Some(429), None, Some(429), None, None]);
    }

    #[test]
    fn fixed_response_is_limited_by_body_text() {
        let mut faults = faults(r#"{"answer": {"status": 500, "containing": "INV-5"}}"#);
        let mut given = |body: &str| faults.answer(&Method::POST, body).is_some();
        assert_eq!((given("INV-4"), given("INV-5"), given("INV-5")), (false, true, true));
    }

    #[test]
    fn faults_absent_fields_keep_their_value() {
        let mut faults = faults(r#"{"duplicates_pass": true, "late_create_every": 1}"#);
        faults.change(serde_json::from_str(r#"{"late_ms": 7}"#).unwrap());
        assert!(faults.duplicates_pass());
        assert_eq!(faults.creation().late, Some(Duration::from_millis(7)));
    }

    #[test]
    fn faults_unknown_name_is_rejected() {
        serde_json::from_str::<Change>(r#"{"timeout_every": 3}"#).unwrap_err();
        serde_json::from_str::<Change>(r#"{"timeout_after_create_every": 0}"#).unwrap_err();
    }

    #[test]
    fn vanish_lasts_until_restart_or_for_a_time() {
        let vanish = |text: &str| serde_json::from_str::<Vanish>(text).unwrap();
        assert!(vanish("true").is_requested() && vanish("true").pause().is_none());
        assert!(!vanish("false").is_requested());
        assert_eq!(vanish(r#"{"ms": 20}"#).pause(), Some(Duration::from_millis(20)));
    }
}
