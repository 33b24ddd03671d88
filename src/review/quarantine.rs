//! Forged calls that were kept: looked at, released once their secret is
//! mended, or discarded.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    broker::{Confirmed, OutgoingMessage, PublishError, Publisher, Topology},
    domain::{Envelope, SourceName},
    sources::{Received, Rejection, Source, WebhookRequest, stored_headers},
    store::{
        Store, StoreError,
        audit_log::Actor,
        inbox::partitions,
        quarantine,
        quarantine::{QuarantineFilter, QuarantineSummary, QuarantinedRequest},
    },
};

/// Why a call was not released, or not even seen.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The database.
    #[error("the quarantine cannot be read or written")]
    Store(#[from] StoreError),
    /// There is no such call, or there is none any more.
    #[error("there is no quarantined call {0}")]
    NotFound(Uuid),
    /// Its source is not configured any more.
    #[error("call {0} came in at {1}, which is not configured")]
    UnknownSource(Uuid, String),
    /// It is still refused. It stays where it is.
    #[error("call {id} is still refused")]
    StillRejected {
        /// Which.
        id: Uuid,
        /// Why.
        #[source]
        source: Rejection,
    },
    /// Another copy of its events may have been applied, and nobody would know.
    #[error(
        "call {id} came too long ago: its platform may have sent it again, and what was settled \
         before {remembered_since} is forgotten; only discard it"
    )]
    TooOld {
        /// Which.
        id: Uuid,
        /// Since when everything is remembered.
        remembered_since: OffsetDateTime,
    },
    /// The broker did not take it. It stays where it is.
    #[error("call {id} was not sent")]
    PublishFailed {
        /// Which.
        id: Uuid,
        /// Why.
        #[source]
        source: PublishError,
    },
}

/// One call with everything that may be shown of it: no credentials.
#[derive(Clone, Debug, Serialize)]
pub struct QuarantinedRequestDetail {
    /// The receipt that its answer named.
    pub receipt_id: Uuid,
    /// Where it came in.
    pub source: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub received_at: OffsetDateTime,
    /// What was wrong with its signature.
    pub error: String,
    /// Its headers, the values of credentials left out.
    pub headers: Value,
    /// The names of its query's parameters.
    pub parameters: Vec<String>,
    /// The size of its body in bytes.
    pub payload_bytes: usize,
    /// The body as text, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The body in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// Lists calls, the oldest first.
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

/// One call with everything that may be shown of it.
///
/// # Errors
/// [`QuarantineError::NotFound`], [`QuarantineError::Store`].
pub async fn show(store: &Store, id: Uuid) -> Result<QuarantinedRequestDetail, QuarantineError> {
    let QuarantinedRequest { source, received_at, error, headers, query, payload } =
        load(store, id).await?;
    let payload_bytes = payload.len();
    let (payload, payload_base64) = match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(data_encoding::BASE64.encode(error.as_bytes()))),
    };
    Ok(QuarantinedRequestDetail {
        receipt_id: id,
        source,
        received_at,
        error,
        headers: stored_headers::redacted(&headers),
        parameters: stored_headers::query_parameter_names(&query)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        payload_bytes,
        payload,
        payload_base64,
    })
}

/// Throws calls away; gives back how many were still there.
///
/// # Errors
/// [`QuarantineError::Store`].
pub async fn discard(
    store: &Store,
    ids: &[Uuid],
    actor: Actor<'_>,
) -> Result<u64, QuarantineError> {
    let mut connection = store.connection().await?;
    Ok(quarantine::delete(&mut connection, ids, "discard", actor).await?)
}

/// What releasing needs.
pub struct Release<'a> {
    /// Where the calls are.
    pub store: &'a Store,
    /// Who verifies them.
    pub sources: &'a BTreeMap<SourceName, Source>,
    /// Sends their events in.
    pub publisher: &'a Publisher,
    /// Where to.
    pub topology: &'a Topology,
    /// Who does it, and why.
    pub actor: Actor<'a>,
}

impl Release<'_> {
    /// Verifies one call again, as of the time at which it came, and sends its
    /// events in as the receiver would have; gives back how many there were.
    /// It leaves the quarantine once the broker has all of them. Released
    /// twice, it has its receipts again and is applied once.
    ///
    /// # Errors
    /// [`QuarantineError`]; the call stays where it is.
    pub async fn request(&self, id: Uuid) -> Result<usize, QuarantineError> {
        let kept = load(self.store, id).await?;
        let found =
            kept.source.parse().ok().and_then(|name: SourceName| {
                self.sources.get(&name).map(|adapter| (name, adapter))
            });
        let Some((source, adapter)) = found else {
            return Err(QuarantineError::UnknownSource(id, kept.source));
        };
        let since = {
            let mut connection = self.store.connection().await?;
            partitions::remembered_since(&mut connection).await?
        };
        let earliest = kept.received_at - adapter.redelivery_window();
        if let Some(forgotten_until) = since.filter(|since| earliest < *since) {
            return Err(QuarantineError::TooOld { id, remembered_since: forgotten_until });
        }
        let envelopes = envelopes(&source, adapter, id, kept)
            .map_err(|source| QuarantineError::StillRejected { id, source })?;
        let sent = envelopes.iter().map(|envelope| {
            self.publisher.publish(OutgoingMessage::inbound(self.topology, envelope))
        });
        let _durable: Vec<Confirmed> =
            join_all(sent)
                .await
                .into_iter()
                .collect::<Result<_, _>>()
                .map_err(|source| QuarantineError::PublishFailed { id, source })?;
        let mut connection = self.store.connection().await?;
        quarantine::delete(&mut connection, &[id], "release", self.actor).await?;
        Ok(envelopes.len())
    }
}

/// The events of a kept call, if it is authentic by now.
fn envelopes(
    source: &SourceName,
    adapter: &Source,
    id: Uuid,
    kept: QuarantinedRequest,
) -> Result<Vec<Envelope>, Rejection> {
    let (headers, body) = (stored_headers::from_json(&kept.headers), kept.payload.into());
    let received_at = kept.received_at;
    let call = WebhookRequest { headers: &headers, query: &kept.query, body: &body, received_at };
    let (events, secret) = match adapter.receive(&call)? {
        Received::Ping => return Ok(Vec::new()),
        Received::Events { events, secret_label: secret } => (events, secret),
    };
    let envelope = |(index, event): (usize, crate::sources::Event)| {
        // The same ones each time: a second release is our own redelivery.
        let receipt_id = match index {
            0 => id,
            _ => Uuid::new_v5(&id, index.to_string().as_bytes()),
        };
        let envelope = event.envelope(source, receipt_id, received_at, &secret)?;
        // The receiver answered it, but not with the 200 that stands for it.
        Ok(Envelope { received_over_http: false, ..envelope })
    };
    events.into_iter().enumerate().map(envelope).collect()
}

async fn load(store: &Store, id: Uuid) -> Result<QuarantinedRequest, QuarantineError> {
    let mut connection = store.connection().await?;
    quarantine::find(&mut connection, id).await?.ok_or(QuarantineError::NotFound(id))
}
