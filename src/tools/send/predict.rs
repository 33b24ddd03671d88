//! Predicts what the receiver and the worker will do with a webhook, with the
//! source's own code.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use time::OffsetDateTime;
use uuid::Uuid;

use super::generate::Webhook;
use crate::{
    domain::{
        Change, Envelope, MappedEvent, OrderUpdate, PermanentFailure, ReasonCode, SourceName,
    },
    sources::{OutgoingWebhook, Received, Rejection, Source, WebhookRequest},
};

/// The outcome of an event's first webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PredictedOutcome {
    /// It changes the database, if it is new.
    Applied,
    /// Its topic is not mapped.
    Ignored,
    /// It becomes a dead letter.
    Dead(ReasonCode),
    /// The receiver rejects it with 422.
    Rejected,
}

/// What the source's code makes of a webhook.
#[derive(Clone, Debug)]
pub(crate) struct Prediction {
    /// The event as the worker gets it.
    pub(crate) envelope: Envelope,
    pub(crate) mapped: Result<MappedEvent, PermanentFailure>,
}

impl Prediction {
    pub(crate) fn outcome(&self) -> PredictedOutcome {
        match &self.mapped {
            Ok(MappedEvent::Change(_)) => PredictedOutcome::Applied,
            Ok(MappedEvent::Ignored) => PredictedOutcome::Ignored,
            Err(failure) => PredictedOutcome::Dead(failure.reason),
        }
    }

    /// The version of the document.
    pub(crate) fn version(&self) -> Option<OffsetDateTime> {
        match &self.mapped {
            Ok(MappedEvent::Change(Change::Order(update))) => match update.as_ref() {
                OrderUpdate::State { version, .. } => Some(*version),
                OrderUpdate::Deleted { deleted_at, .. } => Some(*deleted_at),
            },
            Ok(MappedEvent::Change(Change::Invoice(invoice))) => Some(invoice.version),
            Ok(MappedEvent::Change(Change::InvoiceDeleted(deleted))) => Some(deleted.deleted_at),
            Ok(MappedEvent::Change(Change::Refund(refund))) => Some(refund.version),
            Ok(MappedEvent::Change(Change::ResourceChanged(reference))) => {
                Some(reference.changed_at)
            }
            Ok(MappedEvent::Ignored) | Err(_) => None,
        }
    }
}

/// The headers that the platform would send at this time.
pub(crate) fn headers(
    source: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
) -> HeaderMap {
    signed_over(source, tenant, webhook, sent_at, &webhook.body)
}

/// The same with the signature of another body, so that it is invalid.
pub(crate) fn headers_with_invalid_signature(
    source: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
) -> HeaderMap {
    let mut other = webhook.body.to_vec();
    other.push(b' ');
    let mut headers = signed_over(source, tenant, webhook, sent_at, &other);
    // A token does not depend on the body; it is replaced instead.
    if let Some(value) = headers.get_mut(header::AUTHORIZATION) {
        *value = HeaderValue::from_static("Bearer forged");
    }
    headers
}

fn signed_over(
    source: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
    body: &[u8],
) -> HeaderMap {
    let Webhook { topic, event_id, triggered_at, .. } = webhook;
    let delivery =
        OutgoingWebhook { topic, tenant, event_id, triggered_at: *triggered_at, sent_at, body };
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let signed: Vec<(HeaderName, HeaderValue)> = source.signed_headers(&delivery);
    std::iter::once(json).chain(signed).collect()
}

/// Verifies and maps a webhook as the receiver and the worker will.
pub(crate) fn predict(
    source: &Source,
    source_name: &SourceName,
    tenant: &str,
    webhook: &Webhook,
) -> Result<Prediction, Rejection> {
    // Sent and received at the same time, so that no signature has expired.
    let received_at = OffsetDateTime::UNIX_EPOCH;
    let headers = headers(source, tenant, webhook, received_at);
    let call = WebhookRequest { headers: &headers, query: "", body: &webhook.body, received_at };
    let Received::Events { events, secret_label: secret } = source.receive(&call)? else {
        return Err(Rejection::Malformed("it is a handshake".to_owned()));
    };
    let event = events
        .into_iter()
        .next()
        .ok_or_else(|| Rejection::Malformed("it has no event".to_owned()))?;
    let envelope = event.envelope(source_name, Uuid::nil(), received_at, &secret)?;
    let mapped = source.map(&envelope);
    Ok(Prediction { envelope, mapped })
}
