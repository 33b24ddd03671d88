//! Stripe: invoices, checkout sessions as orders, and refunds.
//!
//! Rules: <https://docs.stripe.com/webhooks>, and the API objects of invoices, checkout
//! sessions and refunds, which events carry under `/data/object`.

mod objects;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, WebhookRequest, header_pairs,
    json_fields::{JsonFields, JsonPointers},
    mapping::InvalidSettings,
    sha256_hex,
    signature::{
        Algorithm, Encoding, MAX_SIGNATURES, Secret, Verified, check_timestamp, parse_tolerance,
    },
    thin_event::event_time,
};
use crate::domain::{Envelope, MappedEvent, PermanentFailure, ResourceChange, TENANT_HEADER};
use objects::{charge_refund, invoice, order, refund};

/// Settings of a Stripe source.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StripeSettings {
    /// Maximum difference of the signed timestamp from now, in seconds: 0 to 86400, default
    /// 300.
    pub tolerance_s: Option<u64>,
}

/// A source of kind `stripe`.
#[derive(Clone, Debug)]
pub struct Stripe {
    tolerance: Duration,
}

impl Stripe {
    /// Validates the settings.
    ///
    /// # Errors
    /// [`InvalidSettings`] with the invalid key.
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

/// The header `Stripe-Signature`: `t=<seconds>,v1=<hex>[,v1=<hex>...]`. Only `v1` counts;
/// another scheme, `v0`, is for tests.
struct SignatureHeader<'a> {
    /// The timestamp as text, which is signed.
    timestamp: &'a str,
    unix: i64,
    signatures: Vec<Vec<u8>>,
}

impl<'a> SignatureHeader<'a> {
    fn read(request: &WebhookRequest<'a>) -> Result<Self, Rejection> {
        let invalid = |detail: &str| {
            Rejection::InvalidSignature(format!("the header {SIGNATURE_HEADER} {detail}"))
        };
        let header =
            request.header(SIGNATURE_HEADER).ok_or_else(|| invalid("is missing or empty"))?;
        let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
        let mut timestamps = parts().filter(|(scheme, _)| *scheme == "t").map(|(_, text)| text);
        // With two timestamps it would be unclear which one is signed.
        let (Some(timestamp), None) = (timestamps.next(), timestamps.next()) else {
            return Err(invalid("must contain one timestamp (t=)"));
        };
        let unix = timestamp
            .parse()
            .map_err(|_| invalid("contains a timestamp (t=) that is not a number"))?;
        let signatures: Vec<_> = parts()
            .filter(|(scheme, _)| *scheme == "v1")
            .filter_map(|(_, text)| Encoding::Hex.decode(text))
            .take(MAX_SIGNATURES)
            .collect();
        if signatures.is_empty() {
            return Err(invalid("contains no signature (v1=)"));
        }
        Ok(Self { timestamp, unix, signatures })
    }
}

impl Platform for Stripe {
    fn kind(&self) -> &'static str {
        "stripe"
    }

    fn redelivers_identical_body(&self) -> bool {
        // `pending_webhooks` counts the endpoints that have not answered yet, so it may
        // differ between attempts.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // Automatically for three days; manually, with the command line tool, for 30:
        // docs.stripe.com/webhooks.
        Duration::from_hours(30 * 24)
    }

    // The key is the whole text including `whsec_`: unlike Standard Webhooks, Stripe does
    // not decode it.

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        let signed = SignatureHeader::read(request)?;
        let parts = [signed.timestamp.as_bytes(), b".", request.body];
        let index = secrets
            .iter()
            .position(|secret| secret.verifies_any(Algorithm::Sha256, &parts, &signed.signatures))
            .ok_or_else(Rejection::invalid_signature)?;
        // After the signature, so that only an authentic sender learns about our clock.
        check_timestamp(request, signed.unix, self.tolerance)?;
        Ok(index)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let request = verified.request();
        let fields = JsonFields::read(request.body, &EVENT_POINTERS).ok();
        let text = |pointer| fields.as_ref()?.text(pointer).ok().flatten();
        Ok(vec![Event {
            event_id: text("/id").unwrap_or_else(|| sha256_hex(request.body)),
            // Only Connect sends it; without Connect there is one account.
            tenant: text("/account").unwrap_or_default(),
            topic: text("/type").unwrap_or_default(),
            version: None,
            body: request.body.clone(),
        }])
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        // Read first, so that an unreadable body is never treated as an unmapped topic.
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        let topic = match envelope.topic.as_str() {
            "" => fields.required_text("/type")?,
            topic => topic.to_owned(),
        };
        // Stripe does not guarantee an order by time, so it only orders states of the same rank.
        let version = event_time(&fields, "/created", envelope);
        if fields.text("/object")?.as_deref() == Some("v2.core.event") {
            let change = resource_change(&topic, &fields, version?)?;
            require_tenant(&fields, envelope)?;
            return Ok(change.map_or(MappedEvent::Ignored, MappedEvent::from));
        }
        let object = fields.text("/data/object/object")?.unwrap_or_default();
        let mapped = match (object.as_str(), topic.as_str()) {
            // A preview of an invoice that does not exist yet and has no id.
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
            // Since API version 2022-11-15 it contains the refunded total, not the refunds.
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
        let text = |pointer| fields.optional_text(pointer);
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
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let timestamp = webhook.sent_at.unix_timestamp().to_string();
        let parts = [timestamp.as_bytes(), b".", webhook.body];
        let signature = Encoding::Hex.encode(&secret.hmac(Algorithm::Sha256, &parts));
        header_pairs([(SIGNATURE_HEADER, format!("t={timestamp},v1={signature}"))])
    }
}

/// Fails if the body names an account and the envelope has no tenant: it is unreadable, or
/// another AMQP producer omitted it. Such an event must not be applied to the account of a
/// source without Connect.
fn require_tenant(fields: &JsonFields<'_>, envelope: &Envelope) -> Result<(), PermanentFailure> {
    match fields.text("/account")? {
        Some(_) if envelope.tenant.is_empty() => Err(PermanentFailure::missing(TENANT_HEADER)),
        _ => Ok(()),
    }
}

/// The resource of a thin event (`v2.core.event`), if it names one.
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
