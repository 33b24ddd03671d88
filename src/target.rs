//! Targets: the systems that hear of documents, and how each is spoken to.
//!
//! What [`crate::adapter`] is for what comes in, this is for what goes out: a
//! target's settings, what is sent to it, and what its answers mean. When
//! deliveries go out is not its business; see [`crate::deliver`].

mod answer;
pub mod http;
mod lookup;
mod sample;
mod template;

use std::{fmt, time::Duration};

use serde_json::Value;
use uuid::Uuid;

use self::http::HttpTarget;
use crate::{
    domain::{DocumentEvent, Reason, SourceName},
    gate::{Limits, Verdict},
};

/// A configured target.
#[derive(Debug)]
pub struct Target {
    /// Its name in the configuration, in tables and on dashboards.
    pub name: String,
    /// What it hears of.
    pub events: Vec<DocumentEvent>,
    /// Whose documents; empty for every source's.
    pub sources: Vec<SourceName>,
    /// How hard deliveries are tried.
    pub effort: Effort,
    /// How it is spoken to.
    pub way: Way,
}

/// How a target is spoken to.
#[derive(Debug)]
pub enum Way {
    /// Over HTTP, a call for each delivery.
    Http(Box<HttpTarget>),
    /// Through an exchange of our broker, as CloudEvents.
    Broker {
        /// The exchange: a durable topic exchange, made if it is not there.
        exchange: String,
        /// The routing key; the event's name if there is none.
        routing_key: Option<String>,
    },
}

/// How hard deliveries are tried, in each process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effort {
    /// The most deliveries under way at once.
    pub concurrency: usize,
    /// The most deliveries in a second.
    pub per_second: u32,
    /// So many attempts that count, and a person must look at it.
    pub attempts: u32,
    /// The pause behind the first attempt that failed; it doubles.
    pub first_delay: Duration,
    /// The longest pause, also where the target asks for a longer one.
    pub longest_delay: Duration,
    /// So many failures in a row that tell of an outage open the breaker.
    pub breaker_failures: u32,
    /// How long it is open at first.
    pub breaker_open: Duration,
    /// How long one call may take.
    pub timeout: Duration,
}

impl Effort {
    /// What the gate before the target lets through.
    pub fn limits(&self) -> Limits {
        Limits {
            concurrency: self.concurrency,
            per_second: self.per_second,
            breaker_failures: self.breaker_failures,
            breaker_open: self.breaker_open,
        }
    }
}

impl Target {
    /// Whether it hears of a source's documents.
    pub fn hears(&self, source: &SourceName) -> bool {
        self.sources.is_empty() || self.sources.contains(source)
    }

    /// Whether what it makes of an event is the mirror of an invoice, which
    /// ticks the invoice off.
    pub fn mirrors(&self, event: DocumentEvent) -> bool {
        event == DocumentEvent::InvoiceCreated && matches!(self.way, Way::Http(_))
    }
}

/// What a delivery is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The document as it was when the delivery was written.
    pub document: &'a Value,
    /// What happened to it.
    pub event: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The shop or company.
    pub tenant: &'a str,
    /// Our id of it.
    pub document_id: &'a str,
    /// The number that people know it by.
    pub document_number: Option<&'a str>,
    /// Which issue of it.
    pub generation: u32,
    /// The key under which the target is to create it once.
    pub key: Uuid,
}

/// What a target answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status, where there is such a thing.
    pub status: Option<u16>,
    /// The start of its body, cleaned of what PostgreSQL does not store.
    pub body: String,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The target has it.
    Has {
        /// Its own id of what it made, if it told one.
        remote_id: Option<String>,
        /// What a person should know all the same.
        warning: Option<String>,
    },
    /// Nobody knows: the call may have worked, and its answer never came.
    Unknown(String),
    /// It does not have it, and may take it later.
    NotNow {
        /// Why.
        error: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether the attempt counts: not if the delivery never got there.
        counts: bool,
    },
    /// It will not take it as it is: a person must see it.
    Refused {
        /// Why, as a code.
        reason: Reason,
        /// Why, in words.
        error: String,
    },
}

/// An attempt, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What came of it.
    pub told: Told,
    /// The answer, if one came.
    pub answer: Option<Answer>,
}

impl Report {
    /// What the attempt tells the breaker about the target: only what would
    /// befall every other delivery as well is an outage.
    pub fn verdict(&self) -> Verdict {
        let asked = match &self.told {
            Told::NotNow { retry_after, .. } => *retry_after,
            _ => None,
        };
        let is_outage = match self.answer.as_ref().and_then(|answer| answer.status) {
            Some(status) => matches!(status, 401 | 407 | 429 | 500..),
            None => matches!(self.told, Told::Unknown(_) | Told::NotNow { .. }),
        };
        match &self.told {
            _ if is_outage => Verdict::Away(asked),
            // Refused by ourselves: it was not asked.
            Told::Refused { .. } if self.answer.is_none() => Verdict::Nothing,
            _ => Verdict::Answered,
        }
    }
}

/// What a target says when it is asked for a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has it.
    There {
        /// Its own id of it, if it told one.
        remote_id: Option<String>,
    },
    /// It does not have it.
    Nowhere,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "http",
            Self::Broker { .. } => "rabbitmq",
        })
    }
}
