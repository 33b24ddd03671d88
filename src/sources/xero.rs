//! Xero: what changed in which organisation; invoices and bills, as its API
//! has them.
//!
//! Source of the rules: <https://developer.xero.com/documentation/guides/webhooks/overview/>
//! and Xero's own `OpenAPI` description. One call may span organisations.
//! Events are thin: they name a document, whose state must be fetched.

mod invoice;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, ResponseStyle, WebhookRequest, bounded_topic,
    first_text,
    json_fields::{JsonFields, JsonPointers},
    multi_event,
    multi_event::SplitError,
    require_tenant, sha256_hex,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// A Xero source needs no settings of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xero {}

/// The topic of a call by which Xero tests whether signatures are checked.
const INTENT_TOPIC: &str = "intent_to_receive";

const SIGNATURE: BodyHmac<'static> = BodyHmac {
    header: "x-xero-signature",
    prefix: "",
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Base64,
};

static BODY_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| JsonPointers::new(["/events"]));
static EVENT_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| {
    JsonPointers::new([
        "/events",
        "/resourceId",
        "/tenantId",
        "/eventCategory",
        "/eventType",
        "/eventDateUtc",
    ])
});

impl Platform for Xero {
    fn kind(&self) -> &'static str {
        "xero"
    }

    fn redelivers_identical_body(&self) -> bool {
        // A call that comes again may be cut anew, and nobody promises that
        // an event is written the same then.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // Less and less often for a day: developer.xero.com, webhooks overview.
        Duration::from_hours(24)
    }

    fn response_style(&self) -> ResponseStyle {
        ResponseStyle::StatusOnly
    }

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(call, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.request().body;
        let divided = split(body);
        // Several of these are sent when a webhook is set up, some of them
        // wrongly signed, each with an entropy of its own.
        let intent = divided.as_ref().is_ok_and(Vec::is_empty);
        let mut events = multi_event::split_or_whole(body, divided)?;
        if intent {
            for event in &mut events {
                INTENT_TOPIC.clone_into(&mut event.topic);
            }
        }
        Ok(events)
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        let has = |pointers: &[&str]| pointers.iter().any(|pointer| fields.has(pointer));
        if !has(&["/resourceId", "/eventCategory", "/eventType"]) {
            return multi_event::map_unsplit(split(&envelope.body));
        }
        let category = fields.required_text("/eventCategory")?.to_lowercase();
        let action = fields.required_text("/eventType")?.to_lowercase();
        require_tenant(envelope, &fields, "/tenantId")?;
        Ok(MappedEvent::from(ResourceChange {
            platform: "xero",
            kind: match category.as_str() {
                "creditnote" => "credit_note".to_owned(),
                _ => category,
            },
            id: fields.required_text("/resourceId")?,
            version: None,
            changed_at: fields
                .timestamp("/eventDateUtc")?
                .or(envelope.version)
                .unwrap_or(envelope.received_at),
            action: match action.as_str() {
                "create" => "created".to_owned(),
                "update" => "updated".to_owned(),
                "delete" => "deleted".to_owned(),
                _ => action,
            },
        }))
    }

    fn document_id(&self, reference: &ResourceChange) -> Option<String> {
        (reference.kind == "invoice").then(|| reference.id.clone())
    }

    fn map_resource(
        &self,
        reference: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        match reference.kind.as_str() {
            "invoice" => invoice::map(reference, resource).map(Some),
            _ => Ok(None),
        }
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &EVENT_POINTERS, &["/resourceId"])
    }

    fn tenant_location(&self) -> &'static str {
        "tenantId"
    }

    fn signed_headers(
        &self,
        delivery: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        [(SIGNATURE.header, SIGNATURE.sign(secret, delivery.body))]
            .into_iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
            })
            .collect()
    }
}

fn split(body: &Bytes) -> Result<Vec<Event>, SplitError> {
    let call = JsonFields::read(body, &BODY_POINTERS)?;
    if !call.has("/events") {
        return Err(PermanentFailure::missing("/events").into());
    }
    let elements = multi_event::elements(&call, "/events", &EVENT_POINTERS)?;
    Ok(elements.iter().map(|element| event(body, element)).collect())
}

fn event(body: &Bytes, fields: &JsonFields<'_>) -> Event {
    let body = multi_event::body_slice(body, fields);
    let [tenant, resource, category, kind, date] =
        ["/tenantId", "/resourceId", "/eventCategory", "/eventType", "/eventDateUtc"]
            .map(|pointer| fields.text(pointer).ok().flatten());
    let version = date.as_deref().and_then(parse_timestamp);
    let told = [category.as_deref(), kind.as_deref()].map(Option::unwrap_or_default).join(".");
    let event_id = match [&tenant, &resource, &kind, &date] {
        [Some(tenant), Some(resource), Some(kind), Some(date)] => {
            [tenant.as_str(), resource, kind, date].join(":")
        }
        _ => sha256_hex(&body),
    };
    Event {
        event_id,
        // A UUID, as the allow-list has it.
        tenant: tenant.unwrap_or_default().to_ascii_lowercase(),
        topic: bounded_topic(Some(told.to_lowercase())),
        version,
        body,
    }
}
