//! Quarantined requests: list, show, release after their secret was corrected, discard.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Actor, OperatorBroker, Selected, Selection, text_or_base64};
use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError},
    domain::{AuditAction, Envelope, SourceName},
    sources::{Received, Rejection, Source, WebhookRequest, stored_headers},
    store::{
        Store, StoreError,
        inbox::partitions,
        quarantine::{self, QuarantineFilter, QuarantineSummary, QuarantinedRequest},
    },
};

/// The quarantined requests that an action is applied to.
pub type SelectedRequests = Selected<QuarantineFilter, QuarantineSummary>;

/// Why an action on a quarantined request failed. The request stays in quarantine.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// A database error.
    #[error("the quarantine cannot be read or written")]
    Store(#[from] StoreError),
    /// No quarantined request has this id.
    #[error("there is no quarantined request {0}")]
    NotFound(Uuid),
    /// Its source is not configured any more.
    #[error("request {0} came in at {1}, which is not configured")]
    UnknownSource(Uuid, String),
    /// The source still rejects it.
    #[error("request {id} is still rejected")]
    StillRejected {
        /// The request.
        id: Uuid,
        /// The cause.
        #[source]
        source: Rejection,
    },
    /// The platform may have sent its events again, and their keys may be gone from the inbox. Then
    /// they would be applied twice.
    #[error(
        "request {id} is too old: its platform may have sent it again, and the inbox remembers \
         nothing from before {remembered_since}; discard it instead"
    )]
    TooOld {
        /// The request.
        id: Uuid,
        /// The inbox has all keys that were processed since then.
        remembered_since: OffsetDateTime,
    },
    /// The broker did not confirm its events.
    #[error("request {id} was not published")]
    PublishFailed {
        /// The request.
        id: Uuid,
        /// The cause.
        #[source]
        source: PublishError,
    },
}

/// A quarantined request, without the values of credentials.
#[derive(Clone, Debug, Serialize)]
pub struct QuarantinedRequestDetail {
    /// The receipt id in the response.
    pub receipt_id: Uuid,
    /// The source that received it.
    pub source: String,
    /// When it was received.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// Its headers, with credentials redacted.
    pub headers: Value,
    /// The names of its query parameters.
    pub parameters: Vec<String>,
    /// The size of its body in bytes.
    pub payload_bytes: usize,
    /// The body as text, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The body in base64, if it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// Lists at most `limit` requests, oldest first.
///
/// # Errors
/// [`QuarantineError::Store`].
pub async fn list(
    store: &Store,
    filter: &QuarantineFilter,
    limit: u32,
) -> Result<Vec<QuarantineSummary>, QuarantineError> {
    let mut connection = store.connection().await?;
    Ok(quarantine::list(&mut connection, filter, limit).await?)
}

/// Reads the requests of a selection. What arrives later is not part of them.
///
/// # Errors
/// [`QuarantineError::Store`].
pub async fn select(
    store: &Store,
    selection: Selection<QuarantineFilter>,
) -> Result<SelectedRequests, QuarantineError> {
    let rows = list(store, selection.filter(), u32::MAX).await?;
    Ok(Selected::new(selection, rows))
}

/// Reads a request, without the values of credentials.
///
/// # Errors
/// [`QuarantineError::NotFound`], [`QuarantineError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<QuarantinedRequestDetail, QuarantineError> {
    let QuarantinedRequest { source, received_at, error, headers, query, payload } =
        load(store, id).await?;
    let payload_bytes = payload.len();
    let (payload, payload_base64) = text_or_base64(payload);
    let parameters = stored_headers::query_parameter_names(&query);
    Ok(QuarantinedRequestDetail {
        receipt_id: id,
        source,
        received_at,
        error,
        headers: stored_headers::redacted(&headers),
        parameters: parameters.into_iter().map(str::to_owned).collect(),
        payload_bytes,
        payload,
        payload_base64,
    })
}

/// Deletes the selected requests, and returns how many were still there.
///
/// # Errors
/// [`QuarantineError::Store`].
pub async fn discard(
    store: &Store,
    selected: &SelectedRequests,
    actor: Actor<'_>,
) -> Result<u64, QuarantineError> {
    let ids: Vec<Uuid> = selected.rows().iter().map(|row| row.receipt_id).collect();
    Ok(delete(store, &ids, AuditAction::Discard, actor).await?)
}

async fn delete(
    store: &Store,
    ids: &[Uuid],
    action: AuditAction,
    actor: Actor<'_>,
) -> Result<u64, StoreError> {
    store.transaction(async |tx| quarantine::delete(tx, ids, action, actor).await).await
}

/// What the release of requests needs.
pub struct Release<'a> {
    /// Where the requests are stored.
    pub store: &'a Store,
    /// The configured sources, which verify the requests.
    pub sources: &'a BTreeMap<SourceName, Source>,
    /// Publishes their events.
    pub broker: &'a OperatorBroker,
    /// The operator.
    pub actor: Actor<'a>,
}

/// The result of a release.
#[derive(Debug, Default)]
pub struct ReleaseReport {
    /// How many requests were released.
    pub released: usize,
    /// How many events they contained.
    pub events: usize,
    /// Why others were not released.
    pub failures: Vec<QuarantineError>,
}

impl Release<'_> {
    /// Releases the selected requests. An id that the operator named and that is not in quarantine
    /// is a failure.
    pub async fn selected(&self, selected: &SelectedRequests) -> ReleaseReport {
        let mut report = ReleaseReport::default();
        let found = selected.rows().iter().map(|row| row.receipt_id);
        for id in found.chain(selected.missing_ids()) {
            match self.request(id).await {
                Ok(events) => {
                    report.released += 1;
                    report.events += events;
                }
                Err(error) => report.failures.push(error),
            }
        }
        report
    }

    /// Verifies a request again, as of the time at which it was received, and publishes its events
    /// as the receiver would have. Returns how many events it contained. The request leaves the
    /// quarantine after the broker's confirms. If it is released twice, its events have the same
    /// receipts again and are applied once.
    ///
    /// # Errors
    /// [`QuarantineError`]; the request stays in quarantine.
    pub async fn request(&self, id: Uuid) -> Result<usize, QuarantineError> {
        let request = load(self.store, id).await?;
        let configured = request
            .source
            .parse()
            .ok()
            .and_then(|name: SourceName| self.sources.get(&name).map(|source| (name, source)));
        let Some((name, source)) = configured else {
            return Err(QuarantineError::UnknownSource(id, request.source));
        };
        let remembered_since = {
            let mut connection = self.store.connection().await?;
            partitions::remembered_since(&mut connection).await?
        };
        let earliest_copy = request.received_at - source.redelivery_window();
        if let Some(remembered_since) = remembered_since.filter(|since| earliest_copy < *since) {
            return Err(QuarantineError::TooOld { id, remembered_since });
        }
        let envelopes = envelopes(&name, source, id, request)
            .map_err(|source| QuarantineError::StillRejected { id, source })?;
        let publishes = envelopes.iter().map(|envelope| {
            let message = OutgoingMessage::inbound(&self.broker.topology, envelope);
            self.broker.publisher.publish(message)
        });
        let _durable: Vec<Confirmed> = join_all(publishes)
            .await
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|source| QuarantineError::PublishFailed { id, source })?;
        delete(self.store, &[id], AuditAction::Release, self.actor).await?;
        Ok(envelopes.len())
    }
}

/// The events of a quarantined request, if its signature is valid now.
fn envelopes(
    name: &SourceName,
    source: &Source,
    id: Uuid,
    stored: QuarantinedRequest,
) -> Result<Vec<Envelope>, Rejection> {
    let (headers, body) = (stored_headers::from_json(&stored.headers), stored.payload.into());
    let received_at = stored.received_at;
    let request =
        WebhookRequest { headers: &headers, query: &stored.query, body: &body, received_at };
    let (events, secret_label) = match source.receive(&request)? {
        Received::Ping => return Ok(Vec::new()),
        Received::Events { events, secret_label } => (events, secret_label),
    };
    let envelopes = events.into_iter().enumerate().map(|(index, event)| {
        // The same receipts in every release: a second release is a redelivery.
        let receipt_id = match index {
            0 => id,
            _ => Uuid::new_v5(&id, index.to_string().as_bytes()),
        };
        let envelope = event.envelope(name, receipt_id, received_at, &secret_label)?;
        // The receiver answered with an error, not with the 200 that this flag stands for.
        Ok(Envelope { received_over_http: false, ..envelope })
    });
    envelopes.collect()
}

async fn load(store: &Store, id: Uuid) -> Result<QuarantinedRequest, QuarantineError> {
    let mut connection = store.connection().await?;
    quarantine::find(&mut connection, id).await?.ok_or(QuarantineError::NotFound(id))
}
