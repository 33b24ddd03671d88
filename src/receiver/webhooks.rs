//! `/hooks/{source}`: one webhook request, from the socket to the response.

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
    body::read_body,
    response::{Problem, accepted_response, handshake_response},
};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{Envelope, SourceName},
    observability::metrics::GaugeGuard,
    sources::{Event, Received, Rejection, ResponseStyle, Source, WebhookRequest},
};

/// The source label of requests to an unknown source. The path must not become a label: anyone
/// can choose it.
pub(super) const UNKNOWN_SOURCE_LABEL: &str = "unknown";

/// The source's name in the path.
pub(super) type SourcePath = Result<Path<String>, PathRejection>;

/// `POST`: a webhook.
pub(super) async fn receive_webhook(
    State(receiver): State<Receiver>,
    path: SourcePath,
    request: Request<Body>,
) -> Response<Body> {
    let started_at = Instant::now();
    let receipt_id = Uuid::now_v7();
    let _in_flight = GaugeGuard::increment(&receiver.metrics.http_requests_in_flight);
    let found = receiver.find_source(path);
    let label = found.map_or(UNKNOWN_SOURCE_LABEL, |(name, _)| name.as_str());
    let span = info_span!("receipt", %receipt_id, source = label);

    let response = async {
        let result = match found {
            Some((name, source)) => {
                receiver.accept_webhook(name, source, receipt_id, request).await
            }
            None => Err(unknown_source()),
        };
        match result {
            Ok(success_body) => accepted_response(receipt_id, success_body),
            Err(problem) => {
                receiver.log_rejection(&problem);
                problem.to_response(response_style(found), receipt_id)
            }
        }
    }
    .instrument(span)
    .await;

    let metrics = &receiver.metrics;
    metrics.http_requests.with_label_values(&[label, response.status().as_str()]).inc();
    let duration = metrics.http_request_duration.with_label_values(&[label]);
    duration.observe(started_at.elapsed().as_secs_f64());
    response
}

/// `OPTIONS`: a platform asks for permission to send.
pub(super) async fn handshake(
    State(receiver): State<Receiver>,
    path: SourcePath,
    headers: HeaderMap,
) -> Response<Body> {
    let receipt_id = Uuid::now_v7();
    let found = receiver.find_source(path);
    match found.map(|(_, source)| source.handshake(&headers)) {
        Some(Some(granted)) => handshake_response(receipt_id, granted),
        Some(None) => Problem::method_not_allowed().to_response(response_style(found), receipt_id),
        None => unknown_source().to_response(ResponseStyle::ProblemJson, receipt_id),
    }
}

/// Any other method.
pub(super) async fn method_not_allowed(
    State(receiver): State<Receiver>,
    path: SourcePath,
) -> Response<Body> {
    let style = response_style(receiver.find_source(path));
    Problem::method_not_allowed().to_response(style, Uuid::now_v7())
}

fn response_style(found: Option<(&SourceName, &Source)>) -> ResponseStyle {
    found.map_or(ResponseStyle::ProblemJson, |(_, source)| source.response_style())
}

pub(super) fn unknown_source() -> Problem {
    let detail = "no source of this name is configured";
    Problem::new(StatusCode::NOT_FOUND, "Unknown source", detail)
}

/// The events of an authentic request; none for a ping.
#[derive(Default)]
struct AcceptedEvents {
    envelopes: Vec<Envelope>,
    /// The body of the 200, for sources that define one.
    success_body: Option<Bytes>,
}

impl Receiver {
    /// The configured source of this name.
    pub(super) fn find_source(&self, path: SourcePath) -> Option<(&SourceName, &Source)> {
        let name: SourceName = path.ok()?.0.parse().ok()?;
        self.sources.get_key_value(&name)
    }

    /// Accepts a request once all its events are confirmed. Returns the body of the response, for
    /// sources that define one.
    async fn accept_webhook(
        &self,
        name: &SourceName,
        source: &Source,
        receipt_id: Uuid,
        request: Request<Body>,
    ) -> Result<Option<Bytes>, Problem> {
        let _permit = self
            .request_permits
            .try_acquire()
            .map_err(|_| self.unavailable("too many requests are in progress; send it again"))?;
        let (parts, body) = request.into_parts();
        let limit = self.settings.body_limit_bytes;
        let time_limit = Duration::from_millis(self.settings.body_timeout_ms);
        let body =
            read_body(&parts.headers, body, limit, time_limit).await.inspect_err(|problem| {
                self.record_incomplete(name, receipt_id, problem.status, &problem.detail);
            })?;
        let received_at = OffsetDateTime::now_utc();
        let query = parts.uri.query().unwrap_or_default();
        let request = WebhookRequest { headers: &parts.headers, query, body: &body, received_at };
        let events = match self.verify_and_extract(name, source, receipt_id, &request) {
            Ok(events) => events,
            Err(rejection) => {
                let problem = rejection_problem(&rejection);
                let status = problem.status;
                self.record_rejected(name, source, receipt_id, &request, &rejection, status)
                    .await
                    .map_err(|error| self.publish_failed(&error))?;
                return Err(problem);
            }
        };
        let AcceptedEvents { envelopes, success_body } = events;
        // All in parallel. If one fails, the request fails; when it is sent again, the inbox
        // finds the others to be duplicates.
        let published = envelopes.iter().map(|envelope| {
            self.publisher.publish(OutgoingMessage::inbound(&self.topology, envelope))
        });
        let _confirmed: Vec<Confirmed> = join_all(published)
            .await
            .into_iter()
            .collect::<Result<_, PublishError>>()
            .map_err(|error| self.publish_failed(&error))?;
        Ok(success_body)
    }

    /// Verifies a request and extracts its events.
    fn verify_and_extract(
        &self,
        name: &SourceName,
        source: &Source,
        receipt_id: Uuid,
        request: &WebhookRequest<'_>,
    ) -> Result<AcceptedEvents, Rejection> {
        let (events, secret_label) = match source.receive(request)? {
            Received::Ping => {
                self.record_ping(name, receipt_id, request);
                return Ok(AcceptedEvents::default());
            }
            Received::Events { events, secret_label } => (events, secret_label),
        };
        self.record_secret_use(name, &secret_label, request.received_at);
        let success_body = events.first().and_then(|event| source.success_body(name, event));
        let build_envelope = |(index, event): (usize, Event)| {
            // The first event has the receipt id of the response.
            let receipt_id = if index == 0 { receipt_id } else { Uuid::now_v7() };
            event.envelope(name, receipt_id, request.received_at, &secret_label)
        };
        let envelopes =
            events.into_iter().enumerate().map(build_envelope).collect::<Result<_, _>>()?;
        Ok(AcceptedEvents { envelopes, success_body })
    }

    /// Logs a rejected request. Anyone can cause these, so at most one a second is logged at the
    /// default level; the metrics count all.
    pub(super) fn log_rejection(&self, problem: &Problem) {
        let (status, error) = (problem.status.as_u16(), &problem.detail);
        if self.log_limiter.allow(Instant::now()) {
            info!(status, error, "request rejected");
        } else {
            debug!(status, error, "request rejected");
        }
    }

    /// The response to a request whose events are not confirmed.
    pub(super) fn publish_failed(&self, error: &PublishError) -> Problem {
        if self.log_limiter.allow(Instant::now()) {
            warn!(%error, "publish not confirmed; the sender should retry");
        } else {
            debug!(%error, "publish not confirmed");
        }
        // The sender need not know which broker is behind the receiver.
        self.unavailable("the webhook could not be stored; send it again")
    }

    pub(super) fn unavailable(&self, detail: impl Into<String>) -> Problem {
        Problem::unavailable(detail, self.settings.retry_after_s)
    }
}

/// The response to a rejected request.
pub(super) fn rejection_problem(rejection: &Rejection) -> Problem {
    let (status, title) = match rejection {
        Rejection::InvalidSignature(_) => (StatusCode::UNAUTHORIZED, "Invalid signature"),
        Rejection::UnknownTenant(..) => (StatusCode::UNAUTHORIZED, "Unknown tenant"),
        Rejection::Malformed(_) => (StatusCode::BAD_REQUEST, "Bad request"),
        Rejection::UnsupportedMediaType(_) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type")
        }
        Rejection::InvalidFields(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid fields"),
    };
    let failures = match rejection {
        Rejection::InvalidFields(failures) => failures.clone(),
        _ => Vec::new(),
    };
    Problem { failures, ..Problem::new(status, title, rejection.to_string()) }
}
