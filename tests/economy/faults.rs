//! What goes wrong, and at which call: counted, so that it is the same every time.

use std::{num::NonZeroU32, time::Duration};

use http::Method;
use serde::Deserialize;
use serde_json::Value;

/// How long nothing is answered unless it is told: longer than anybody waits.
const HANG: Duration = Duration::from_mins(10);

/// What `POST /faults` takes. What is not named stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Change {
    /// Ends every fault first.
    pub(crate) clear: bool,
    /// Every so many creations, the call that created gets no answer.
    pub(crate) timeout_after_create_every: Option<NonZeroU32>,
    /// How long it gets none, before its connection is closed; 0 closes it at
    /// once. A client that gives up sooner ends it too.
    pub(crate) hang_ms: Option<u64>,
    /// Every so many creations, it is created late, even if the client has
    /// given up meanwhile. Its key is under way until then.
    pub(crate) late_create_every: Option<NonZeroU32>,
    /// How late.
    pub(crate) late_ms: Option<u64>,
    /// An answer in place of what would have been done.
    pub(crate) answer: Option<Answer>,
    /// Whether an invoice whose vendor and number are there is created again,
    /// as by a system that does not look.
    pub(crate) duplicates_pass: Option<bool>,
    /// Closes the listener and every connection, after this call is answered.
    pub(crate) vanish: Option<Vanish>,
}

/// An answer in place of what would have been done.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u32>,
    /// The body: JSON, or a text as it is.
    pub(crate) body: Option<Value>,
    /// Only calls whose body contains this text; default any.
    #[serde(default)]
    pub(crate) containing: String,
    /// The method of the calls to `/invoices` that get it; default POST.
    #[serde(default)]
    pub(crate) method: CallMethod,
    /// How often it is given; default always.
    times: Option<NonZeroU32>,
    /// Only every so many of the calls; default each.
    every: Option<NonZeroU32>,
}

/// Which calls are answered so.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum CallMethod {
    /// Those that create something.
    #[default]
    Post,
    /// Those that look something up.
    Get,
    /// Those that delete something.
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

/// For how long it is gone.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Vanish {
    /// `true`: until somebody starts it again.
    ForGood(bool),
    /// `{"ms": 500}`: and back on the same port.
    For {
        /// Milliseconds.
        ms: u64,
    },
}

impl Vanish {
    /// Whether it goes at all.
    pub(crate) fn is_asked(self) -> bool {
        !matches!(self, Self::ForGood(false))
    }

    /// For how long; `None` is for good.
    pub(crate) fn pause(self) -> Option<Duration> {
        match self {
            Self::ForGood(_) => None,
            Self::For { ms } => Some(Duration::from_millis(ms)),
        }
    }
}

/// What happens to one creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fate {
    /// It is created so much later.
    pub(crate) late: Option<Duration>,
    /// Once created, it is not answered, and after this time cut off.
    pub(crate) hang: Option<Duration>,
}

/// The faults that stand.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    timeout: Option<Every>,
    hang: Option<Duration>,
    late: Option<Every>,
    late_by: Duration,
    answer: Option<Answering>,
    duplicates_pass: bool,
}

#[derive(Debug)]
struct Answering {
    answer: Answer,
    every: Every,
    left: Option<u32>,
}

impl Faults {
    /// Takes a change over. Whatever is named is counted from now on.
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
            self.answer = Some(Answering {
                every: Every::new(answer.every.unwrap_or(NonZeroU32::MIN)),
                left: answer.times.map(NonZeroU32::get),
                answer,
            });
        }
        if let Some(pass) = change.duplicates_pass {
            self.duplicates_pass = pass;
        }
    }

    /// What a call to `/invoices` is answered in place of being served.
    pub(crate) fn answer(&mut self, method: &Method, body: &str) -> Option<Answer> {
        let Answering { answer, every, left } = self.answer.as_mut()?;
        if !answer.method.is(method) || !body.contains(&answer.containing) || !every.strikes() {
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

    /// What happens to the next creation.
    pub(crate) fn creation(&mut self) -> Fate {
        let Self { timeout, hang, late, late_by, .. } = self;
        let strikes = |every: &mut Option<Every>| every.as_mut().is_some_and(Every::strikes);
        Fate {
            late: strikes(late).then_some(*late_by),
            hang: strikes(timeout).then_some(hang.unwrap_or(HANG)),
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

    fn strikes(&mut self) -> bool {
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
    fn each_third_creation_gets_no_answer() {
        let mut faults = faults(r#"{"timeout_after_create_every": 3, "hang_ms": 5}"#);
        let struck: Vec<bool> = (0..7).map(|_| faults.creation().hang.is_some()).collect();
        assert_eq!(struck, [false, false, true, false, false, true, false]);
        faults.change(serde_json::from_str(r#"{"clear": true}"#).unwrap());
        assert!((0..7).all(|_| faults.creation() == Fate::default()));
    }

    #[test]
    fn an_answer_is_given_so_often_and_to_its_method_only() {
        let mut faults =
            faults(r#"{"answer": {"status": 429, "retry_after": 1, "times": 2, "every": 2}}"#);
        assert!((0..4).all(|_| faults.answer(&Method::GET, "").is_none()));
        let given: Vec<Option<u16>> =
            (0..6).map(|_| faults.answer(&Method::POST, "").map(|answer| answer.status)).collect();
        assert_eq!(given, [None, Some(429), None, Some(429), None, None]);
    }

    #[test]
    fn an_answer_is_given_to_what_contains_a_text_only() {
        let mut faults = faults(r#"{"answer": {"status": 500, "containing": "INV-5"}}"#);
        let mut given = |body: &str| faults.answer(&Method::POST, body).is_some();
        assert_eq!((given("INV-4"), given("INV-5"), given("INV-5")), (false, true, true));
    }

    #[test]
    fn what_is_not_named_stays() {
        let mut faults = faults(r#"{"duplicates_pass": true, "late_create_every": 1}"#);
        faults.change(serde_json::from_str(r#"{"late_ms": 7}"#).unwrap());
        assert!(faults.duplicates_pass());
        assert_eq!(faults.creation().late, Some(Duration::from_millis(7)));
    }

    #[test]
    fn an_unknown_fault_is_refused() {
        serde_json::from_str::<Change>(r#"{"timeout_every": 3}"#).unwrap_err();
        serde_json::from_str::<Change>(r#"{"timeout_after_create_every": 0}"#).unwrap_err();
    }

    #[test]
    fn it_vanishes_for_good_or_for_a_while() {
        let vanish = |text: &str| serde_json::from_str::<Vanish>(text).unwrap();
        assert!(vanish("true").is_asked() && vanish("true").pause().is_none());
        assert!(!vanish("false").is_asked());
        assert_eq!(vanish(r#"{"ms": 20}"#).pause(), Some(Duration::from_millis(20)));
    }
}
