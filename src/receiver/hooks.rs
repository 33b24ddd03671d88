//! `POST /hooks/{source}`: one webhook call, from the socket to the answer.

use std::time::{Duration, Instant};

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Request, Response, StatusCode},
};
use futures_util::future::join_all;
use time::OffsetDateTime;
use tracing::{Instrument as _, debug, info, info_span, warn};
use uuid::Uuid;

use super::{
    Receiver,
    answer::{Problem, accepted},
    body,
};
use crate::{
    adapter::{Adapter, Call, Event, Received, Rejection},
    broker::{Confirmed, Outgoing, PublishError},
    domain::{Envelope, SourceName},
    metrics::InFlight,
};

/// Stands for the source in metrics where none of that name is configured:
/// a stranger must not choose label values.
const UNKNOWN: &str = "unknown";

pub(super) async fn receive(
    State(receiver): State<Receiver>,
    name: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let begun = Instant::now();
    let receipt_id = Uuid::now_v7();
    let _in_flight = InFlight::begin(&receiver.metrics.requests_in_flight);
    let source = name.ok().and_then(|Path(name)| name.parse::<SourceName>().ok());
    let found = source.as_ref().and_then(|source| receiver.sources.get_key_value(source));
    let label = found.map_or(UNKNOWN, |(source, _)| source.as_str());
    let span = info_span!("receipt", %receipt_id, source = label);

    let answer = async {
        let result = match found {
            Some((source, adapter)) => receiver.accept(source, adapter, receipt_id, request).await,
            None => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "Unknown source",
                "no source of this name is configured",
            )),
        };
        match result {
            Ok(()) => accepted(receipt_id),
            Err(problem) => {
                // Anybody can cause these, as many as they like: one a second
                // is told, all are counted.
                if receiver.loud.speak() {
                    info!(status = problem.status.as_u16(), error = problem.detail, "refused");
                } else {
                    debug!(status = problem.status.as_u16(), error = problem.detail, "refused");
                }
                problem.answer(receipt_id)
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

impl Receiver {
    /// Takes one call in. `Ok` only when every event of it is durable.
    async fn accept(
        &self,
        source: &SourceName,
        adapter: &Adapter,
        receipt_id: Uuid,
        request: Request<Body>,
    ) -> Result<(), Problem> {
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
        let envelopes = match self.take(source, adapter, receipt_id, &call) {
            Ok(envelopes) => envelopes,
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
        Ok(())
    }

    /// Has a call verified and takes its events out; none of a ping.
    fn take(
        &self,
        source: &SourceName,
        adapter: &Adapter,
        receipt_id: Uuid,
        call: &Call<'_>,
    ) -> Result<Vec<Envelope>, Rejection> {
        let (events, secret) = match adapter.receive(call)? {
            Received::Ping => return Ok(Vec::new()),
            Received::Events { events, secret } => (events, secret),
        };
        self.note_secret(source, &secret, call.received_at);
        let envelope = |(index, event): (usize, Event)| {
            // The first event carries the id that the answer names.
            let receipt_id = if index == 0 { receipt_id } else { Uuid::now_v7() };
            event.envelope(source, receipt_id, call.received_at, &secret)
        };
        events.into_iter().enumerate().map(envelope).collect()
    }

    fn not_durable(&self, error: &PublishError) -> Problem {
        if self.loud.speak() {
            warn!(%error, "not durable; the sender is told to come again");
        } else {
            debug!(%error, "not durable");
        }
        // Whoever sends it need not know what is behind us.
        self.not_now("the webhook could not be made durable; send it again")
    }

    fn not_now(&self, detail: impl Into<String>) -> Problem {
        Problem::unavailable(detail, self.settings.retry_after_s)
    }
}

fn refuse(rejection: &Rejection) -> Problem {
    let (status, title) = match rejection {
        Rejection::Signature(_) => (StatusCode::UNAUTHORIZED, "Signature refused"),
        Rejection::Tenant(..) => (StatusCode::UNAUTHORIZED, "Tenant refused"),
        Rejection::Unreadable(_) => (StatusCode::BAD_REQUEST, "Unreadable"),
        Rejection::ContentType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content type refused"),
        Rejection::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
    };
    Problem::new(status, title, rejection.to_string())
}
