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
    Receiver, body,
    response::{Problem, accepted_response, handshake_response},
};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{Envelope, SourceName},
    observability::metrics::GaugeGuard,
    sources::{Event, Received, Rejection, ResponseStyle, Source, WebhookRequest},
};

/// Stands for the source in metrics where none of that name is configured:
/// a stranger must not choose label values.
pub(super) const UNKNOWN_SOURCE_LABEL: &str = "unknown";

/// The source's name as it stands in the path.
pub(super) type SourcePath = Result<Path<String>, PathRejection>;

/// `POST`: a webhook.
pub(super) async fn receive_webhook(
    State(receiver): State<Receiver>,
    name: SourcePath,
    request: Request<Body>,
) -> Response<Body> {
    let begun = Instant::now();
    let receipt_id = Uuid::now_v7();
    let _in_flight = GaugeGuard::increment(&receiver.metrics.http_requests_in_flight);
    let found = receiver.find_source(name);
    let label = found.map_or(UNKNOWN_SOURCE_LABEL, |(source, _)| source.as_str());
    let span = info_span!("receipt", %receipt_id, source = label);

    let answer = async {
        let result = match found {
            Some((source, adapter)) => {
                receiver.accept_webhook(source, adapter, receipt_id, request).await
            }
            None => Err(unknown_source()),
        };
        match result {
            Ok(acceptance) => accepted_response(receipt_id, acceptance),
            Err(problem) => {
                // Anybody can cause these, as many as they like: one a second
                // is told, all are counted.
                if receiver.log_limiter.allow() {
                    info!(status = problem.status.as_u16(), error = problem.detail, "refused");
                } else {
                    debug!(status = problem.status.as_u16(), error = problem.detail, "refused");
                }
                problem.to_response(response_style(found), receipt_id)
            }
        }
    }
    .instrument(span)
    .await;

    let metrics = &receiver.metrics;
    metrics.http_requests.with_label_values(&[label, answer.status().as_str()]).inc();
    metrics
        .http_request_duration
        .with_label_values(&[label])
        .observe(begun.elapsed().as_secs_f64());
    answer
}

/// `OPTIONS`: a platform that asks for leave to send.
pub(super) async fn handshake(
    State(receiver): State<Receiver>,
    name: SourcePath,
    headers: HeaderMap,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    let found = receiver.find_source(name);
    match found.map(|(_, adapter)| adapter.handshake(&headers)) {
        Some(Some(given)) => handshake_response(receipt_id, given),
        Some(None) => Problem::method_not_allowed().to_response(response_style(found), receipt_id),
        None => unknown_source().to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

/// Any other method.
pub(super) async fn method_not_allowed(
    State(receiver): State<Receiver>,
    name: SourcePath,
) -> Response<Body> {
    Problem::method_not_allowed()
        .to_response(response_style(receiver.find_source(name)), Uuid::now_v7())
}

/// How a source's callers are answered; strangers get problems.
fn response_style(found: Option<(&SourceName, &Source)>) -> ResponseStyle {
    found.map_or(ResponseStyle::ProblemJson, |(_, adapter)| adapter.response_style())
}

pub(super) fn unknown_source() -> Problem {
    let detail = "no source of this name is configured";
    Problem::new(StatusCode::NOT_FOUND, "Unknown source", detail)
}

/// What an authentic call comes to; nothing at all of a ping.
#[derive(Default)]
struct AcceptedEvents {
    envelopes: Vec<Envelope>,
    /// The body of the 200, where the caller wants one.
    success_body: Option<Bytes>,
}

impl Receiver {
    /// The source of this name, if one is configured.
    pub(super) fn find_source(&self, name: SourcePath) -> Option<(&SourceName, &Source)> {
        let source: SourceName = name.ok()?.0.parse().ok()?;
        self.sources.get_key_value(&source)
    }

    /// Takes one call in. `Ok` only when every event of it is durable, with
    /// the body of the answer where the caller wants one.
    async fn accept_webhook(
        &self,
        source: &SourceName,
        adapter: &Source,
        receipt_id: Uuid,
        request: Request<Body>,
    ) -> Result<Option<Bytes>, Problem> {
        let _place = self
            .request_permits
            .try_acquire()
            .map_err(|_| self.unavailable("too many calls are under way; send it again"))?;
        let (parts, body) = request.into_parts();
        let limit = self.settings.body_limit_bytes;
        let patience = Duration::from_millis(self.settings.body_timeout_ms);
        let body =
            body::read_body(&parts.headers, body, limit, patience).await.inspect_err(|told| {
                self.record_incomplete(source, receipt_id, told.status, &told.detail);
            })?;
        let received_at = OffsetDateTime::now_utc();
        let query = parts.uri.query().unwrap_or_default();
        let call = WebhookRequest { headers: &parts.headers, query, body: &body, received_at };
        let AcceptedEvents { envelopes, success_body: acceptance } =
            match self.verify_and_extract(source, adapter, receipt_id, &call) {
                Ok(taken) => taken,
                Err(rejection) => {
                    let problem = rejection_problem(&rejection);
                    let status = problem.status;
                    self.record_rejected(source, adapter, receipt_id, &call, &rejection, status)
                        .await
                        .map_err(|error| self.publish_failed(&error))?;
                    return Err(problem);
                }
            };
        // All at once; one that fails fails the call, and the resend finds
        // the others in the inbox.
        let published = envelopes.iter().map(|envelope| {
            self.publisher.publish(OutgoingMessage::inbound(&self.topology, envelope))
        });
        let _durable: Vec<Confirmed> = join_all(published)
            .await
            .into_iter()
            .collect::<Result<_, PublishError>>()
            .map_err(|error| self.publish_failed(&error))?;
        Ok(acceptance)
    }

    /// Has a call verified and takes its events out; none of a ping.
    fn verify_and_extract(
        &self,
        source: &SourceName,
        adapter: &Source,
        receipt_id: Uuid,
        call: &WebhookRequest<'_>,
    ) -> Result<AcceptedEvents, Rejection> {
        let (events, secret) = match adapter.receive(call)? {
            Received::Ping => {
                self.record_ping(source, receipt_id, call);
                return Ok(AcceptedEvents::default());
            }
            Received::Events { events, secret_label: secret } => (events, secret),
        };
        self.record_secret_use(source, &secret, call.received_at);
        let acceptance = events.first().and_then(|event| adapter.success_body(source, event));
        let envelope = |(index, event): (usize, Event)| {
            // The first event carries the id that the answer names.
            let receipt_id = if index == 0 { receipt_id } else { Uuid::now_v7() };
            event.envelope(source, receipt_id, call.received_at, &secret)
        };
        let envelopes = events.into_iter().enumerate().map(envelope).collect::<Result<_, _>>()?;
        Ok(AcceptedEvents { envelopes, success_body: acceptance })
    }

    pub(super) fn publish_failed(&self, error: &PublishError) -> Problem {
        if self.log_limiter.allow() {
            warn!(%error, "not durable; the sender is told to come again");
        } else {
            debug!(%error, "not durable");
        }
        // Whoever sends it need not know what is behind us.
        self.unavailable("the webhook could not be made durable; send it again")
    }

    pub(super) fn unavailable(&self, detail: impl Into<String>) -> Problem {
        Problem::unavailable(detail, self.settings.retry_after_s)
    }
}

/// What to answer instead of taking a call in.
pub(super) fn rejection_problem(rejection: &Rejection) -> Problem {
    let detail = rejection.to_string();
    let (status, title) = match rejection {
        Rejection::InvalidSignature(_) => (StatusCode::UNAUTHORIZED, "Signature refused"),
        Rejection::UnknownTenant(..) => (StatusCode::UNAUTHORIZED, "Tenant refused"),
        Rejection::Malformed(_) => (StatusCode::BAD_REQUEST, "Unreadable"),
        Rejection::UnsupportedMediaType(_) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content type refused")
        }
        Rejection::InvalidFields(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    };
    let failures = match rejection {
        Rejection::InvalidFields(failures) => failures.clone(),
        _ => Vec::new(),
    };
    Problem { failures, ..Problem::new(status, title, detail) }
}
