//! QuickBooks Online: what changed in which company, in both formats of its
//! webhooks; invoices and bills, as its API has them.
//!
//! Source of the rules: <https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks>
//! and Intuit's post of November 2025 on the change to CloudEvents. One call
//! may span companies. Events are thin: they name a document, whose state
//! must be fetched.

mod invoice;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    bounded_topic, first_text,
    json_fields::{JsonFields, JsonPointers},
    multi_event,
    multi_event::SplitError,
    require_tenant, sha256_hex,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
    timestamp::parse_timestamp,
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// A QuickBooks source needs no settings of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuickBooks {}

const SIGNATURE: BodyHmac<'static> = BodyHmac {
    header: "intuit-signature",
    prefix: "",
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Base64,
};

/// What a call, a notification, an entity of one or a CloudEvent may hold.
const FIELDS: [&str; 13] = [
    "/eventNotifications",
    "/realmId",
    "/dataChangeEvent",
    "/dataChangeEvent/entities",
    "/name",
    "/id",
    "/operation",
    "/lastUpdated",
    "/specversion",
    "/type",
    "/time",
    "/intuitentityid",
    "/intuitaccountid",
];

static PART_POINTERS: LazyLock<JsonPointers> = LazyLock::new(|| JsonPointers::new(FIELDS));
static BODY_POINTERS: LazyLock<JsonPointers> =
    LazyLock::new(|| JsonPointers::new(FIELDS.into_iter().chain([""])));

impl Platform for QuickBooks {
    fn kind(&self) -> &'static str {
        "quickbooks"
    }

    fn redelivers_identical_body(&self) -> bool {
        // A call that comes again may be cut anew, and nobody promises that
        // an event is written the same then.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // Every six hours in the end, and nobody says until when.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn verify(&self, call: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(call, secrets)
    }

    fn extract_events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.request().body;
        multi_event::split_or_whole(body, split(body))
    }

    fn map(&self, envelope: &Envelope) -> Result<MappedEvent, PermanentFailure> {
        let fields = JsonFields::read(&envelope.body, &PART_POINTERS)?;
        if is_list(&fields) || fields.has("/eventNotifications") {
            return multi_event::map_unsplit(split(&envelope.body));
        }
        if fields.has("/dataChangeEvent") {
            fields.required_text("/realmId")?;
            fields.count("/dataChangeEvent/entities")?;
            return Err(multi_event::unsplit_failure());
        }
        let has = |pointers: &[&str]| pointers.iter().any(|pointer| fields.has(pointer));
        if has(&["/type", "/specversion", "/intuitentityid"]) {
            cloud_event_change(&fields, envelope)
        } else if has(&["/name", "/operation", "/lastUpdated"]) {
            entity_change(&fields, envelope)
        } else {
            Err(PermanentFailure::missing("/eventNotifications"))
        }
    }

    fn document_id(&self, reference: &ResourceChange) -> Option<String> {
        invoice::document_id(&reference.kind, &reference.id)
    }

    fn map_resource(
        &self,
        reference: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        invoice::map(reference, resource)
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &PART_POINTERS, &["/intuitentityid", "/id"])
    }

    fn tenant_location(&self) -> &'static str {
        "intuitaccountid or realmId"
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

/// CloudEvents come as a list, the older notifications within an object.
fn is_list(fields: &JsonFields<'_>) -> bool {
    fields.raw_json().trim_start().starts_with('[')
}

fn split(body: &Bytes) -> Result<Vec<Event>, SplitError> {
    let call = JsonFields::read(body, &BODY_POINTERS)?;
    if is_list(&call) {
        let elements = multi_event::elements(&call, "", &PART_POINTERS)?;
        return Ok(elements.iter().map(|element| cloud_event(body, element)).collect());
    }
    // Whoever signs CloudEvents may send one without a list around it.
    if call.has("/specversion") {
        return Ok(vec![cloud_event(body, &call)]);
    }
    if !call.has("/eventNotifications") {
        return Err(PermanentFailure::missing("/eventNotifications").into());
    }
    let mut events = Vec::new();
    for notification in multi_event::elements(&call, "/eventNotifications", &PART_POINTERS)? {
        match entity_events(body, &notification) {
            Ok(found) => events.extend(found),
            // The other companies' notifications are not at fault.
            Err(SplitError::Unreadable(_)) => events.push(Event {
                tenant: optional_text(&notification, "/realmId").unwrap_or_default(),
                ..multi_event::whole_body_event(multi_event::body_slice(body, &notification))
            }),
            Err(SplitError::TooManyEvents) => return Err(SplitError::TooManyEvents),
        }
        multi_event::check_count(&events)?;
    }
    Ok(events)
}

/// A text that may be missing; one that cannot be used is the worker's to tell.
fn optional_text(fields: &JsonFields<'_>, pointer: &str) -> Option<String> {
    fields.text(pointer).ok().flatten()
}

fn cloud_event(body: &Bytes, fields: &JsonFields<'_>) -> Event {
    let body = multi_event::body_slice(body, fields);
    Event {
        event_id: optional_text(fields, "/id").unwrap_or_else(|| sha256_hex(&body)),
        tenant: optional_text(fields, "/intuitaccountid").unwrap_or_default(),
        topic: bounded_topic(optional_text(fields, "/type")),
        version: optional_text(fields, "/time").as_deref().and_then(parse_timestamp),
        body,
    }
}

/// The events of one company's notification. An entity does not name its
/// company: that goes beside it.
fn entity_events(body: &Bytes, notification: &JsonFields<'_>) -> Result<Vec<Event>, SplitError> {
    let realm = notification.required_text("/realmId")?;
    let entities =
        multi_event::elements(notification, "/dataChangeEvent/entities", &PART_POINTERS)?;
    Ok(entities.iter().map(|entity| entity_event(body, &realm, entity)).collect())
}

fn entity_event(body: &Bytes, realm: &str, fields: &JsonFields<'_>) -> Event {
    let body = multi_event::body_slice(body, fields);
    let [name, id, operation, last_updated] = ["/name", "/id", "/operation", "/lastUpdated"]
        .map(|pointer| optional_text(fields, pointer));
    let version = last_updated.as_deref().and_then(parse_timestamp);
    let told = [name.as_deref(), operation.as_deref()].map(Option::unwrap_or_default).join(".");
    let event_id = match [name, id, operation, last_updated] {
        [Some(name), Some(id), Some(operation), Some(last_updated)] => {
            [realm, &name, &id, &operation, &last_updated].join(":")
        }
        _ => sha256_hex(&body),
    };
    Event {
        event_id,
        tenant: realm.to_owned(),
        topic: bounded_topic(Some(told.to_lowercase())),
        version,
        body,
    }
}

/// A type reads `qbo.invoice.created.v1`.
fn cloud_event_change(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<MappedEvent, PermanentFailure> {
    let told = fields.required_text("/type")?;
    let mut parts = told.split('.');
    let (Some("qbo"), Some(kind), Some(action)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(MappedEvent::Ignored);
    };
    require_tenant(envelope, fields, "/intuitaccountid")?;
    let id = fields.required_text("/intuitentityid")?;
    Ok(MappedEvent::from(resource_change(kind, id, action, fields, "/time", envelope)?))
}

fn entity_change(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<MappedEvent, PermanentFailure> {
    let kind = fields.required_text("/name")?;
    let id = fields.required_text("/id")?;
    let action = fields.required_text("/operation")?;
    require_tenant(envelope, fields, "/realmId")?;
    Ok(MappedEvent::from(resource_change(&kind, id, &action, fields, "/lastUpdated", envelope)?))
}

fn resource_change(
    kind: &str,
    id: String,
    action: &str,
    fields: &JsonFields<'_>,
    changed_at: &str,
    envelope: &Envelope,
) -> Result<ResourceChange, PermanentFailure> {
    let changed_at = fields.timestamp(changed_at)?.or(envelope.version);
    let action = action.to_lowercase();
    let action = match action.as_str() {
        // The older format's words.
        "create" => "created",
        "update" => "updated",
        "delete" => "deleted",
        "merge" => "merged",
        "void" => "voided",
        word => word,
    };
    Ok(ResourceChange {
        platform: "quickbooks",
        kind: kind.to_lowercase(),
        id,
        version: None,
        changed_at: changed_at.unwrap_or(envelope.received_at),
        action: action.to_owned(),
    })
}
