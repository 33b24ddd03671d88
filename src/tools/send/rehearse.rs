//! What a webhook will do, asked of the source's own adapter beforehand.

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

/// What becomes of an event on its first delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It changes the books, if they do not know it yet.
    Applied,
    /// Nobody maps its topic.
    Ignored,
    /// It cannot be applied.
    Dead(ReasonCode),
    /// The receiver refuses it with 422: whoever sent it can mend it.
    Refused,
}

/// What the source's adapter makes of a webhook.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// The event as the worker will see it.
    pub envelope: Envelope,
    /// What it changes.
    pub mapped: Result<MappedEvent, PermanentFailure>,
}

impl Rehearsal {
    /// What becomes of it on its first delivery.
    pub fn fate(&self) -> Fate {
        match &self.mapped {
            Ok(MappedEvent::Change(_)) => Fate::Applied,
            Ok(MappedEvent::Ignored) => Fate::Ignored,
            Err(failure) => Fate::Dead(failure.reason),
        }
    }

    /// The version of the document that it tells.
    pub fn version(&self) -> Option<OffsetDateTime> {
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

/// The headers with which the platform would send a webhook at this time.
pub fn headers(
    adapter: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
) -> HeaderMap {
    signed_over(adapter, tenant, webhook, sent_at, &webhook.body)
}

/// The same, but with the signature of another body: no secret made it for
/// this one.
pub fn forged_headers(
    adapter: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
) -> HeaderMap {
    let mut other = webhook.body.to_vec();
    other.push(b' ');
    let mut headers = signed_over(adapter, tenant, webhook, sent_at, &other);
    // A token is the same for every body: it is spoiled instead.
    if let Some(value) = headers.get_mut(header::AUTHORIZATION) {
        *value = HeaderValue::from_static("Bearer forged");
    }
    headers
}

fn signed_over(
    adapter: &Source,
    tenant: &str,
    webhook: &Webhook,
    sent_at: OffsetDateTime,
    body: &[u8],
) -> HeaderMap {
    let Webhook { topic, event_id, triggered_at, .. } = webhook;
    let delivery =
        OutgoingWebhook { topic, tenant, event_id, triggered_at: *triggered_at, sent_at, body };
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let dress: Vec<(HeaderName, HeaderValue)> = adapter.signed_headers(&delivery);
    std::iter::once(json).chain(dress).collect()
}

/// Has the adapter receive and map a webhook, as the receiver and the worker will.
///
/// # Errors
/// [`RejectedField`] if the receiver will refuse it.
pub fn rehearse(
    adapter: &Source,
    source: &SourceName,
    tenant: &str,
    webhook: &Webhook,
) -> Result<Rehearsal, Rejection> {
    // Sent and received at the same time: nothing is stale, whenever it is asked.
    let received_at = OffsetDateTime::UNIX_EPOCH;
    let headers = headers(adapter, tenant, webhook, received_at);
    let call = WebhookRequest { headers: &headers, query: "", body: &webhook.body, received_at };
    let Received::Events { events, secret_label: secret } = adapter.receive(&call)? else {
        return Err(Rejection::Malformed("it is a ping".to_owned()));
    };
    let event = events
        .into_iter()
        .next()
        .ok_or_else(|| Rejection::Malformed("it tells no event".to_owned()))?;
    let envelope = event.envelope(source, Uuid::nil(), received_at, &secret)?;
    let mapped = adapter.map(&envelope);
    Ok(Rehearsal { envelope, mapped })
}
