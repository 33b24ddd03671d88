//! Targets: the systems that hear of documents, and how each is spoken to.
//!
//! What [`crate::sources`] is for what comes in, this is for what goes out: a
//! target's settings, what is sent to it, and what its answers mean. When
//! deliveries go out is not its business; see [`crate::delivery`].

mod body_template;
pub mod http;
mod lookup;
mod response;
mod sample_documents;

use std::{fmt, time::Duration};

use serde_json::Value;
use uuid::Uuid;

use self::http::HttpDestination;
use crate::{
    domain::{DocumentEvent, ReasonCode, SourceName},
    net::call_limiter::{CallLimits, CallResult},
};

/// A configured target.
#[derive(Debug)]
pub struct Destination {
    /// Its name in the configuration, in tables and on dashboards.
    pub name: String,
    /// What it hears of.
    pub events: Vec<DocumentEvent>,
    /// Whose documents; empty for every source's.
    pub sources: Vec<SourceName>,
    /// How hard deliveries are tried.
    pub policy: DeliveryPolicy,
    /// How it is spoken to.
    pub transport: Transport,
}

/// How a target is spoken to.
#[derive(Debug)]
pub enum Transport {
    /// Over HTTP, a call for each delivery.
    Http(Box<HttpDestination>),
    /// Through an exchange of our broker, as CloudEvents.
    Amqp {
        /// The exchange: a durable topic exchange, made if it is not there.
        exchange: String,
        /// The routing key; the event's name if there is none.
        routing_key: Option<String>,
    },
}

/// How hard deliveries are tried, in each process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// The most deliveries under way at once.
    pub max_concurrency: usize,
    /// The most deliveries in a second.
    pub rate_limit_per_second: u32,
    /// So many attempts that count, and a person must look at it.
    pub max_attempts: u32,
    /// The pause behind the first attempt that failed; it doubles.
    pub initial_delay: Duration,
    /// The longest pause, also where the target asks for a longer one.
    pub max_delay: Duration,
    /// So many failures in a row that tell of an outage open the breaker.
    pub circuit_breaker_threshold: u32,
    /// How long it is open at first.
    pub circuit_breaker_open: Duration,
    /// How long one call may take.
    pub timeout: Duration,
}

impl DeliveryPolicy {
    /// What the gate before the target lets through.
    pub fn call_limits(&self) -> CallLimits {
        CallLimits {
            max_concurrency: self.max_concurrency,
            rate_limit_per_second: self.rate_limit_per_second,
            circuit_breaker_threshold: self.circuit_breaker_threshold,
            circuit_breaker_open: self.circuit_breaker_open,
        }
    }
}

impl Destination {
    /// Whether it hears of a source's documents.
    pub fn subscribes_to(&self, source: &SourceName) -> bool {
        self.sources.is_empty() || self.sources.contains(source)
    }

    /// Whether what it makes of an event is the mirror of an invoice, which
    /// ticks the invoice off.
    pub fn is_mirror(&self, event: DocumentEvent) -> bool {
        event == DocumentEvent::InvoiceCreated && matches!(self.transport, Transport::Http(_))
    }
}

/// What a delivery is about.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryPayload<'a> {
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
    pub issue: u32,
    /// The key under which the target is to create it once.
    pub idempotency_key: Uuid,
}

/// What a target answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationResponse {
    /// The status, where there is such a thing.
    pub status: Option<u16>,
    /// The start of its body, cleaned of what PostgreSQL does not store.
    pub body: String,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The target has it.
    Delivered {
        /// Its own id of what it made, if it told one.
        remote_id: Option<String>,
        /// What a person should know all the same.
        warning: Option<String>,
    },
    /// Nobody knows: the call may have worked, and its answer never came.
    Unknown(String),
    /// It does not have it, and may take it later.
    RetryLater {
        /// Why.
        error: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether the attempt counts: not if the delivery never got there.
        counts_as_attempt: bool,
    },
    /// It will not take it as it is: a person must see it.
    Rejected {
        /// Why, as a code.
        reason: ReasonCode,
        /// Why, in words.
        error: String,
    },
}

/// An attempt, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// What came of it.
    pub result: AttemptResult,
    /// The answer, if one came.
    pub response: Option<DestinationResponse>,
}

impl AttemptReport {
    /// What the attempt tells the breaker about the target: only what would
    /// befall every other delivery as well is an outage.
    pub fn call_result(&self) -> CallResult {
        let asked = match &self.result {
            AttemptResult::RetryLater { retry_after, .. } => *retry_after,
            _ => None,
        };
        let is_outage = match self.response.as_ref().and_then(|answer| answer.status) {
            Some(status) => matches!(status, 401 | 407 | 429 | 500..),
            None => {
                matches!(self.result, AttemptResult::Unknown(_) | AttemptResult::RetryLater { .. })
            }
        };
        match &self.result {
            _ if is_outage => CallResult::Unavailable(asked),
            // Refused by ourselves: it was not asked.
            AttemptResult::Rejected { .. } if self.response.is_none() => CallResult::NotCalled,
            _ => CallResult::Responded,
        }
    }
}

/// What a target says when it is asked for a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// It has it.
    Found {
        /// Its own id of it, if it told one.
        remote_id: Option<String>,
    },
    /// It does not have it.
    NotFound,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "http",
            Self::Amqp { .. } => "rabbitmq",
        })
    }
}
