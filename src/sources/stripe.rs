//! Stripe: invoices, checkout sessions as orders, and refunds, by the events
//! that it sends.
//!
//! Source of the rules: <https://docs.stripe.com/webhooks>, and the API
//! objects of invoices, checkout sessions and refunds, which events carry
//! whole under `/data/object`.

mod objects;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    json_fields::{JsonFields, JsonPointers},
    mapping::InvalidSettings,
    sha256_hex,
    signature::{
        Algorithm, Encoding, MAX_SIGNATURES, Secret, Verified, check_timestamp, parse_tolerance,
    },
};
use crate::domain::{Envelope, MappedEvent, PermanentFailure, ResourceChange};
use objects::{charge_refund, invoice, order, refund};

/// The settings of a Stripe source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeSettings {
    /// How far the signed time may be from now, in s: 0 to 86400, default 300.
    pub tolerance_s: Option<u64>,
}

/// A source of kind `stripe`.
#[derive(Clone, Debug)]
pub struct Stripe {
    tolerance: Duration,
}

impl Stripe {
    /// Checks settings.
    ///
    /// # Errors
    /// [`InvalidSettings`] that names the key.
    pub fn new(settings: &StripeSettings) -> Result<Self, InvalidSettings> {
        Ok(Self { tolerance: parse_tolerance(settings.tolerance_s)? })
    }
}

const SIGNATURE_HEADER: &str = "stripe-signature";

static EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    let event = ["/id", "/object", "/type", "/account", "/created"];
    let related = ["/related_object/id", "/related_object/type"];
    JsonPointers::new(event.into_iter().chain(related).chain(objects::POINTERS))
});

/// What `Stripe-Signature` says: `t=<seconds>,v1=<hex>[,v1=<hex>...]`. Other
/// schemes stand beside `v1`, and one of them (`v0`) is made for tests: only
/// `v1` counts.
struct SignatureHeader<'a> {
    /// The time as it is written, which is how it is signed.
    timestamp: &'a str,
    unix: i64,
    signatures: Vec<Vec<u8>>,
}

impl<'a> SignatureHeader<'a> {
    fn read(call: &WebhookRequest<'a>) -> Result<Self, Rejection> {
        let refused = |detail: &str| {
            Rejection::InvalidSignature(format!("the header {SIGNATURE_HEADER} {detail}"))
        };
        let header = call.header(SIGNATURE_HEADER).ok_or_else(|| refused("is missing or empty"))?;
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let mut times = parts().filter(|(scheme, _)| *scheme == "t").map(|(_, time)| time);
        // Two times would leave open which one was signed.
        let (Some(time), None) = (times.next(), times.next()) else {
            return Err(refused("does not carry one time (t=)"));
        };
        let unix = time.parse().map_err(|_| refused("carries a time (t=) that is no number"))?;
        let signatures: Vec<_> = parts()
            .filter(|(scheme, _)| *scheme == "v1")
            .filter_map(|(_, text)| Encoding::Hex.decode(text))
            .take(MAX_SIGNATURES)
            .collect();
        if signatures.is_empty() {
            return Err(refused("carries no signature (v1=)"));
        }
        Ok(Self { timestamp: time, unix, signatures })
    }
}

impl Platform for Stripe {
    fn kind(&self) -> &'static str {
        "stripe"
    }

    fn redelivers_identical_body(&self) -> bool {
        // `pending_webhooks` counts the addresses that have not answered yet,
        // and so may differ from one attempt to the next.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // By itself for three days; by a person, with its command line, for
        // 30: docs.stripe.com/webhooks.
        Duration::from_hours(30 * 24)
    }

    // The key is the whole text, `whsec_` and all: unlike Standard Webhooks,
    // Stripe does not decode what stands behind it.

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let signed = SignatureHeader::read(call)?;
        let parts = [signed.timestamp.as_bytes(), b".", call.body];
        let index = secrets
            .iter()
            .position(|secret| secret.verifies_any(Algorithm::Sha256, &parts, &signed.signatures))
            .ok_or_else(Rejection::invalid_signature)?;
        // Behind the signature, so that only the sender is told of its clock.
        check_timestamp(call, signed.unix, self.tolerance)?;
        Ok(index)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let call = verified.request();
        let fields = JsonFields::read(call.body, &EVENT_POINTERS).ok();
        let text = |pointer| fields.as_ref()?.text(pointer).ok().flatten();
        Ok(vec![Event {
            event_id: text("/id").unwrap_or_else(|| sha256_hex(call.body)),
            // Told by Connect only; without it, there is one account.
            tenant: text("/account").unwrap_or_default(),
            topic: text("/type").unwrap_or_default(),
            version: None,
            body: call.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        // Read first, so that a body that cannot be read is never taken for a
        // topic that nobody maps.
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        let topic = match envelope.topic.as_str() {
            "" => fields.required_text("/type")?,
            topic => topic.to_owned(),
        };
        let version = happened_at(&fields, envelope);
        if fields.text("/object")?.as_deref() == Some("v2.core.event") {
            let reference = resource_change(&topic, &fields, version?)?;
            require_tenant(&fields, envelope)?;
            return Ok(reference.map_or(MappedEvent::Ignored, MappedEvent::from));
        }
        let object = fields.text("/data/object/object")?.unwrap_or_default();
        let mapped = match (object.as_str(), topic.as_str()) {
            // A preview of an invoice that does not exist yet; it has no id.
            ("invoice", "invoice.upcoming") => MappedEvent::Ignored,
            ("invoice", topic) if topic.starts_with("invoice.") => {
                MappedEvent::from(invoice(topic, &fields, version?)?)
            }
            ("checkout.session", topic) if topic.starts_with("checkout.session.") => {
                order(topic, &fields, version?)?.map_or(MappedEvent::Ignored, MappedEvent::from)
            }
            ("refund", topic)
                if topic.starts_with("refund.") || topic.starts_with("charge.refund.") =>
            {
                MappedEvent::from(refund(&fields, version?)?)
            }
            // Since API version 2022-11-15 it tells how much went back so far,
            // and not by which refunds.
            ("charge", "charge.refunded") => {
                charge_refund(&fields, version?)?.map_or(MappedEvent::Ignored, MappedEvent::from)
            }
            _ => MappedEvent::Ignored,
        };
        if mapped != MappedEvent::Ignored {
            require_tenant(&fields, envelope)?;
        }
        Ok(mapped)
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS).ok()?;
        let text = |pointer| fields.text(pointer).ok().flatten();
        let places: &[&str] = match text("/data/object/object").unwrap_or_default().as_str() {
            "invoice" => &["/data/object/number"],
            "checkout.session" => &["/data/object/client_reference_id"],
            "refund" | "charge" => &["/data/object/payment_intent", "/data/object/charge"],
            _ => &["/related_object/id"],
        };
        places.iter().chain(&["/data/object/id"]).find_map(|pointer| text(pointer))
    }

    fn tenant_location(&self) -> &'static str {
        "/account"
    }

    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let time = delivery.sent_at.unix_timestamp().to_string();
        let parts = [time.as_bytes(), b".", delivery.body];
        let signature = Encoding::Hex.encode(&secret.hmac(Algorithm::Sha256, &parts));
        HeaderValue::from_str(&format!("t={time},v1={signature}"))
            .map(|value| (HeaderName::from_static(SIGNATURE_HEADER), value))
            .into_iter()
            .collect()
    }
}

/// When the event happened. Stripe promises no order by it, so it only tells
/// states of the same rank apart.
fn happened_at(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<OffsetDateTime, PermanentFailure> {
    Ok(fields.timestamp("/created")?.or(envelope.version).unwrap_or(envelope.received_at))
}

/// An account that cannot be read, or that another AMQP producer left out, is
/// not the one account of a source without Connect.
fn require_tenant(fields: &JsonFields<'_>, envelope: &Envelope) -> Result<(), PermanentFailure> {
    match fields.text("/account")? {
        Some(_) if envelope.tenant.is_empty() => {
            Err(PermanentFailure::missing("x-tallyhook-tenant"))
        }
        _ => Ok(()),
    }
}

/// What a thin event (`v2.core.event`) names, if it names anything.
fn resource_change(
    topic: &str,
    fields: &JsonFields<'_>,
    changed_at: OffsetDateTime,
) -> Result<Option<ResourceChange>, PermanentFailure> {
    let [id, kind] = ["/related_object/id", "/related_object/type"];
    if fields.text(id)?.is_none() && fields.text(kind)?.is_none() {
        return Ok(None);
    }
    let action = topic.rsplit('.').next().unwrap_or_default();
    Ok(Some(ResourceChange {
        platform: "stripe",
        kind: fields.required_text(kind)?.to_ascii_lowercase(),
        id: fields.required_text(id)?,
        version: None,
        changed_at,
        action: action.to_ascii_lowercase(),
    }))
}
