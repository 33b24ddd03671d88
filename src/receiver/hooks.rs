//! `/hooks/{source}`: one webhook call, from the socket to the answer.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, Request, Response, StatusCode},
};
use bytes::Bytes;
use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{Instrument as _, debug, info, info_span, warn};
use uuid::Uuid;

use super::{
    Receiver,
    answer::{Problem, accepted, leave},
    body,
};
use crate::{
    adapter::{Adapter, Answers, Call, Event, Received, Rejection},
    broker::{Confirmed, Outgoing, PublishError},
    domain::{Envelope, SourceName},
    metrics::InFlight,
};

/// Stands for the source in metrics where none of that name is configured:
/// a stranger must not choose label values.
pub(super) const UNKNOWN: &str = "unknown";

/// The source's name as it stands in the path.
pub(super) type Name = Result<Path<String>, PathRejection>;

/// `POST`: a webhook.
pub(super) async fn receive(
    State(receiver): State<Receiver>,
    name: Name,
    request: Request<Body>,
) -> Response<Body> {
    let begun = Instant::now();
    let receipt_id = Uuid::now_v7();
    let _in_flight = InFlight::begin(&receiver.metrics.requests_in_flight);
    let found = receiver.find(name);
    let label = found.map_or(UNKNOWN, |(source, _)| source.as_str());
    let span = info_span!("receipt", %receipt_id, source = label);

    let answer = async {
        let result = match found {
            Some((source, adapter)) => receiver.accept(source, adapter, receipt_id, request).await,
            None => Err(unknown_source()),
        };
        match result {
            Ok(acceptance) => accepted(receipt_id, acceptance),
            Err(problem) => {
                // Anybody can cause these, as many as they like: one a second
                // is told, all are counted.
                if receiver.loud.speak() {
                    info!(status = problem.status.as_u16(), error = problem.detail, "refused");
                } else {
                    debug!(status = problem.status.as_u16(), error = problem.detail, "refused");
                }
                problem.answer(style(found), receipt_id)
            }
        }
    }
    .instrument(span)
    .await;

    let metrics = &receiver.metrics;
    metrics.receipts.with_label_values(&[label, answer.status().as_str()]).inc();
    metrics.acknowledge_seconds.with_label_values(&[label]).observe(begun.elapsed().as_secs_f64());
    answer
}

/// `OPTIONS`: a platform that asks for leave to send.
pub(super) async fn handshake(
    State(receiver): State<Receiver>,
    name: Name,
    headers: HeaderMap,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    let found = receiver.find(name);
    match found.map(|(_, adapter)| adapter.handshake(&headers)) {
        Some(Some(given)) => leave(receipt_id, given),
        Some(None) => Problem::wrong_method().answer(style(found), receipt_id),
        None => unknown_source().answer(Answers::Problems, receipt_id),
    }
}

/// Any other method.
pub(super) async fn wrong_method(State(receiver): State<Receiver>, name: Name) -> Response<Body> {
    Problem::wrong_method().answer(style(receiver.find(name)), Uuid::now_v7())
}

/// How a source's callers are answered; strangers get problems.
fn style(found: Option<(&SourceName, &Adapter)>) -> Answers {
    found.map_or(Answers::Problems, |(_, adapter)| adapter.answers())
}

pub(super) fn unknown_source() -> Problem {
    let detail = "no source of this name is configured";
    Problem::new(StatusCode::NOT_FOUND, "Unknown source", detail)
}

/// What an authentic call comes to; nothing at all of a ping.
#[derive(Default)]
struct Taken {
    envelopes: Vec<Envelope>,
    /// The body of the 200, where the caller wants one.
    acceptance: Option<Bytes>,
}

impl Receiver {
    /// The source of this name, if one is configured.
    pub(super) fn find(&self, name: Name) -> Option<(&SourceName, &Adapter)> {
        let source: SourceName = name.ok()?.0.parse().ok()?;
        self.sources.get_key_value(&source)
    }

    /// Takes one call in. `Ok` only when every event of it is durable, with
    /// the body of the answer where the caller wants one.
    async fn accept(
        &self,
        source: &SourceName,
        adapter: &Adapter,
        receipt_id: Uuid,
        request: Request<Body>,
    ) -> Result<Option<Bytes>, Problem> {
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| self.not_now("too many calls are under way; send it again"))?;
        let (parts, body) = request.into_parts();
        let limit = self.settings.body_limit_bytes;
        let patience = Duration::from_millis(self.settings.body_timeout_ms);
        let body = body::read(&parts.headers, body, limit, patience).await.inspect_err(|told| {
            self.record_unread(source, receipt_id, told.status, &told.detail);
        })?;
        let received_at = OffsetDateTime::now_utc();
        let query = parts.uri.query().unwrap_or_default();
        let call = Call { headers: &parts.headers, query, body: &body, received_at };
        let Taken { envelopes, acceptance } = match self.take(source, adapter, receipt_id, &call) {
            Ok(taken) => taken,
            Err(rejection) => {
                let problem = refuse(&rejection);
                let status = problem.status;
                self.record_refused(source, adapter, receipt_id, &call, &rejection, status)
                    .await
                    .map_err(|error| self.not_durable(&error))?;
                return Err(problem);
            }
        };
        // All at once; one that fails fails the call, and the resend finds
        // the others in the inbox.
        let published = envelopes
            .iter()
            .map(|envelope| self.publisher.publish(Outgoing::inbound(&self.topology, envelope)));
        let _durable: Vec<Confirmed> = join_all(published)
            .await
            .into_iter()
            .collect::<Result<_, PublishError>>()
            .map_err(|error| self.not_durable(&error))?;
        Ok(acceptance)
    }

    /// Has a call verified and takes its events out; none of a ping.
    fn take(
        &self,
        source: &SourceName,
        adapter: &Adapter,
        receipt_id: Uuid,
        call: &Call<'_>,
    ) -> Result<Taken, Rejection> {
        let (events, secret) = match adapter.receive(call)? {
            Received::Ping => {
                self.record_ping(source, receipt_id, call);
                return Ok(Taken::default());
            }
            Received::Events { events, secret } => (events, secret),
        };
        self.note_secret(source, &secret, call.received_at);
        let acceptance = events.first().and_then(|event| adapter.acceptance(source, event));
        let envelope = |(index, event): (usize, Event)| {
            // The first event carries the id that the answer names.
            let receipt_id = if index == 0 { receipt_id } else { Uuid::now_v7() };
            event.envelope(source, receipt_id, call.received_at, &secret)
        };
        let envelopes = events.into_iter().enumerate().map(envelope).collect::<Result<_, _>>()?;
        Ok(Taken { envelopes, acceptance })
    }

    pub(super) fn not_durable(&self, error: &PublishError) -> Problem {
        if self.loud.speak() {
            warn!(%error, "not durable; the sender is told to come again");
        } else {
            debug!(%error, "not durable");
        }
        // Whoever sends it need not know what is behind us.
        self.not_now("the webhook could not be made durable; send it again")
    }

    pub(super) fn not_now(&self, detail: impl Into<String>) -> Problem {
        Problem::unavailable(detail, self.settings.retry_after_s)
    }
}

/// What to answer instead of taking a call in.
pub(super) fn refuse(rejection: &Rejection) -> Problem {
    let detail = rejection.to_string();
    let (status, title) = match rejection {
        Rejection::Signature(_) => (StatusCode::UNAUTHORIZED, "Signature refused"),
        Rejection::Tenant(..) => (StatusCode::UNAUTHORIZED, "Tenant refused"),
        Rejection::Unreadable(_) => (StatusCode::BAD_REQUEST, "Unreadable"),
        Rejection::ContentType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content type refused"),
        Rejection::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    };
    let failures = match rejection {
        Rejection::Invalid(failures) => failures.clone(),
        _ => Vec::new(),
    };
    Problem { failures, ..Problem::new(status, title, detail) }
}
