//! Destinations: outgoing systems that are sent documents.
//!
//! The counterpart of [`crate::sources`]: a destination's settings, the
//! requests it gets and the meaning of its responses. [`crate::delivery`]
//! decides when deliveries are sent.

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

/// A configured destination.
#[derive(Debug)]
pub struct Destination {
    /// Its name in the configuration, in tables and as a metric label.
    pub name: String,
    /// The events it subscribes to.
    pub events: Vec<DocumentEvent>,
    /// The sources whose documents it gets; empty for all.
    pub sources: Vec<SourceName>,
    /// Limits and retries.
    pub policy: DeliveryPolicy,
    /// HTTP or AMQP, with its settings.
    pub transport: Transport,
}

/// How a destination is reached.
#[derive(Debug)]
pub enum Transport {
    /// Over HTTP, one request per delivery.
    Http(Box<HttpDestination>),
    /// Through an exchange of our broker, as CloudEvents.
    Amqp {
        /// A durable topic exchange, which is declared if it is missing.
        exchange: String,
        /// The routing key; by default the event's name.
        routing_key: Option<String>,
    },
}

/// Limits and retries of a destination, per process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// Largest number of concurrent deliveries.
    pub max_concurrency: usize,
    /// Largest number of deliveries per second.
    pub rate_limit_per_second: u32,
    /// Failed attempts after which the delivery is dead-lettered.
    pub max_attempts: u32,
    /// Delay after the first failed attempt; it doubles with each further one.
    pub initial_delay: Duration,
    /// Longest delay; it also caps the destination's `Retry-After`.
    pub max_delay: Duration,
    /// Consecutive failures that open the circuit breaker.
    pub circuit_breaker_threshold: u32,
    /// How long the circuit breaker stays open at first.
    pub circuit_breaker_open: Duration,
    /// Timeout of one request.
    pub timeout: Duration,
}

impl DeliveryPolicy {
    /// The part of the policy that the call limiter enforces.
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
    /// Whether it gets documents of this source.
    pub fn subscribes_to(&self, source: &SourceName) -> bool {
        self.sources.is_empty() || self.sources.contains(source)
    }

    /// Whether a delivery of this event mirrors an invoice. Once every mirror
    /// is delivered, the invoice is marked as mirrored.
    pub fn is_mirror(&self, event: DocumentEvent) -> bool {
        event == DocumentEvent::InvoiceCreated && matches!(self.transport, Transport::Http(_))
    }
}

/// The data of one delivery.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryPayload<'a> {
    /// The document when the delivery was created.
    pub document: &'a Value,
    /// The event, for example `invoice.created`.
    pub event: &'a str,
    /// The source of the document.
    pub source: &'a str,
    /// The shop or company.
    pub tenant: &'a str,
    /// Our id of the document.
    pub document_id: &'a str,
    /// The order or invoice number.
    pub document_number: Option<&'a str>,
    /// The issue number: 0, and one more with each re-issue.
    pub issue: u32,
    /// The key under which the destination creates the document once.
    pub idempotency_key: Uuid,
}

/// A destination's response, as far as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationResponse {
    /// The HTTP status.
    pub status: Option<u16>,
    /// The start of the body, without characters that PostgreSQL cannot store.
    pub body: String,
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// The destination has the document.
    Delivered {
        /// The destination's id of the document, if the response has one.
        remote_id: Option<String>,
        /// A note for the operator.
        warning: Option<String>,
    },
    /// The request may have succeeded, but there is no usable response.
    Unknown(String),
    /// The destination does not have the document and may accept it later.
    RetryLater {
        /// The cause.
        error: String,
        /// The delay that the destination asks for.
        retry_after: Option<Duration>,
        /// False if the delivery never reached the destination.
        counts_as_attempt: bool,
    },
    /// The destination rejects the document; an operator must decide.
    Rejected {
        /// The dead letter's reason.
        reason: ReasonCode,
        /// The cause.
        error: String,
    },
}

/// An attempt: its result and the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptReport {
    /// What the attempt means for the delivery.
    pub result: AttemptResult,
    /// The response, if there was one.
    pub response: Option<DestinationResponse>,
}

impl AttemptReport {
    /// What the attempt means for the circuit breaker. Only a failure that
    /// would also affect other deliveries counts as an outage.
    pub fn call_result(&self) -> CallResult {
        let retry_after = match &self.result {
            AttemptResult::RetryLater { retry_after, .. } => *retry_after,
            _ => None,
        };
        let is_outage = match self.response.as_ref().and_then(|response| response.status) {
            Some(status) => matches!(status, 401 | 407 | 429 | 500..),
            None => {
                matches!(self.result, AttemptResult::Unknown(_) | AttemptResult::RetryLater { .. })
            }
        };
        match &self.result {
            _ if is_outage => CallResult::Unavailable(retry_after),
            // Rejected before a request was sent.
            AttemptResult::Rejected { .. } if self.response.is_none() => CallResult::NotCalled,
            _ => CallResult::Responded,
        }
    }
}

/// The result of looking up a document at its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupResult {
    /// The destination has the document.
    Found {
        /// The destination's id of it, if the response has one.
        remote_id: Option<String>,
    },
    /// The destination does not have the document.
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
