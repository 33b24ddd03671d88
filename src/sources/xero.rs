//! Xero: changes of resources of organisations; invoices and bills from its API.
//!
//! Rules: <https://developer.xero.com/documentation/guides/webhooks/overview/> and Xero's `OpenAPI`
//! description. A request may span organisations. Events are thin.

mod invoice;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Event, OutgoingWebhook, Platform, Rejection, ResponseStyle, WebhookRequest, first_text,
    header_pairs,
    json_fields::{JsonFields, JsonPointers},
    multi_event::{self, SplitError},
    require_tenant,
    signature::{BodyHmac, Secret, Verified},
    thin_event::{EventProperties, composite_id, composite_topic, event_time, past_action},
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// Settings of a Xero source; there are none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xero {}

/// The topic of a request with which Xero tests whether signatures are verified.
const INTENT_TOPIC: &str = "intent_to_receive";

const SIGNATURE: BodyHmac<'static> = BodyHmac::sha256_base64("x-xero-signature");

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
        // A repeated request may be split differently, and the same bytes are not documented.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // With decreasing frequency for a day: developer.xero.com, webhooks overview.
        Duration::from_hours(24)
    }

    fn response_style(&self) -> ResponseStyle {
        ResponseStyle::StatusOnly
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(request, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.request().body;
        let split = split(body);
        // When a webhook is set up, Xero sends several requests without events, some of them with
        // an invalid signature, each with another entropy.
        let is_intent = split.as_ref().is_ok_and(Vec::is_empty);
        let mut events = multi_event::split_or_whole(body, split)?;
        if is_intent {
            for event in &mut events {
                INTENT_TOPIC.clone_into(&mut event.topic);
            }
        }
        Ok(events)
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let fields = JsonFields::read(&envelope.body, &EVENT_POINTERS)?;
        if !fields.has_any(&["/resourceId", "/eventCategory", "/eventType"]) {
            return multi_event::map_unsplit(split(&envelope.body));
        }
        let category = fields.required_text("/eventCategory")?.to_lowercase();
        let action = past_action(&fields.required_text("/eventType")?);
        require_tenant(envelope, &fields, "/tenantId")?;
        Ok(MappedEvent::from(ResourceChange {
            platform: "xero",
            kind: match category.as_str() {
                "creditnote" => "credit_note".to_owned(),
                _ => category,
            },
            id: fields.required_text("/resourceId")?,
            version: None,
            changed_at: event_time(&fields, "/eventDateUtc", envelope)?,
            action,
        }))
    }

    fn document_id(&self, change: &ResourceChange) -> Option<String> {
        (change.kind == "invoice").then(|| change.id.clone())
    }

    fn map_resource(
        &self,
        change: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        match change.kind.as_str() {
            "invoice" => invoice::map(change, resource).map(Some),
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
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        header_pairs([(SIGNATURE.header, SIGNATURE.sign(secret, &[webhook.body]))])
    }
}

fn split(body: &Bytes) -> Result<Vec<Event>, SplitError> {
    let fields = JsonFields::read(body, &BODY_POINTERS)?;
    if !fields.has("/events") {
        return Err(PermanentFailure::missing("/events").into());
    }
    let elements = multi_event::elements(&fields, "/events", &EVENT_POINTERS)?;
    Ok(elements.iter().map(|element| event(body, element)).collect())
}

fn event(body: &Bytes, fields: &JsonFields<'_>) -> Event {
    let [tenant, resource, category, action, time] =
        ["/tenantId", "/resourceId", "/eventCategory", "/eventType", "/eventDateUtc"]
            .map(|pointer| fields.optional_text(pointer));
    let action = action.as_deref();
    EventProperties {
        id: composite_id([tenant.as_deref(), resource.as_deref(), action, time.as_deref()]),
        // A UUID, which the allow-list has in lower case.
        tenant: tenant.map(|tenant| tenant.to_ascii_lowercase()),
        topic: Some(composite_topic(category.as_deref(), action)),
        time,
    }
    .into_event(multi_event::body_slice(body, fields))
}
