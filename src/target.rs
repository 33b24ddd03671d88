//! Targets: the systems that hear of documents, and how each is spoken to.
//!
//! What [`crate::adapter`] is for what comes in, this is for what goes out: a
//! target's settings, what is sent to it, and what its answers mean. When
//! deliveries go out is not its business; see [`crate::deliver`].

use std::{fmt, time::Duration};

use crate::domain::{DocumentEvent, Reason, SourceName};

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
    Http,
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

impl Target {
    /// Whether it hears of a source's documents.
    pub fn hears(&self, source: &SourceName) -> bool {
        self.sources.is_empty() || self.sources.contains(source)
    }

    /// Whether what it makes of an event is the mirror of an invoice, which
    /// ticks the invoice off.
    pub fn mirrors(&self, event: DocumentEvent) -> bool {
        event == DocumentEvent::InvoiceCreated && matches!(self.way, Way::Http)
    }
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
            Self::Http => "http",
            Self::Broker { .. } => "rabbitmq",
        })
    }
}
