//! QuickBooks Online: changes of resources, in both formats of its webhooks; invoices and bills
//! from its API.
//!
//! Rules: <https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks> and Intuit's post
//! of November 2025 on the change to CloudEvents. A request may span companies. Events are thin.

mod invoice;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    DEFAULT_REDELIVERY_WINDOW, Event, OutgoingWebhook, Platform, Rejection, WebhookRequest,
    first_text, header_pairs,
    json_fields::{JsonFields, JsonPointers},
    multi_event::{self, SplitError},
    require_tenant,
    signature::{BodyHmac, Secret, Verified},
    thin_event::{EventProperties, composite_id, composite_topic, event_time, past_action},
};
use crate::domain::{Change, Envelope, MappedEvent, PermanentFailure, ResourceChange};

/// Settings of a QuickBooks source; there are none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuickBooks {}

const SIGNATURE: BodyHmac<'static> = BodyHmac::sha256_base64("intuit-signature");

/// Fields of a request, a notification, an entity of it, or a CloudEvent.
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
        // A repeated request may be split differently, and the same bytes are not documented.
        false
    }

    fn redelivery_window(&self) -> Duration {
        // Every six hours at last; the end is not documented.
        DEFAULT_REDELIVERY_WINDOW
    }

    fn verify(&self, request: &WebhookRequest<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(request, secrets)
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
        if fields.has_any(&["/type", "/specversion", "/intuitentityid"]) {
            map_cloud_event(&fields, envelope)
        } else if fields.has_any(&["/name", "/operation", "/lastUpdated"]) {
            map_entity(&fields, envelope)
        } else {
            Err(PermanentFailure::missing("/eventNotifications"))
        }
    }

    fn document_id(&self, change: &ResourceChange) -> Option<String> {
        invoice::document_id(&change.kind, &change.id)
    }

    fn map_resource(
        &self,
        change: &ResourceChange,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, PermanentFailure> {
        invoice::map(change, resource)
    }

    fn business_key(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &PART_POINTERS, &["/intuitentityid", "/id"])
    }

    fn tenant_location(&self) -> &'static str {
        "intuitaccountid or realmId"
    }

    fn signed_headers(
        &self,
        webhook: &OutgoingWebhook<'_>,
        secret: &Secret,
    ) -> Vec<(HeaderName, HeaderValue)> {
        header_pairs([(SIGNATURE.header, SIGNATURE.sign(secret, &[webhook.body]))])
    }
}

/// CloudEvents are sent as a list, the older notifications in an object.
fn is_list(fields: &JsonFields<'_>) -> bool {
    fields.raw_json().trim_start().starts_with('[')
}

fn split(body: &Bytes) -> Result<Vec<Event>, SplitError> {
    let fields = JsonFields::read(body, &BODY_POINTERS)?;
    if is_list(&fields) {
        let elements = multi_event::elements(&fields, "", &PART_POINTERS)?;
        return Ok(elements.iter().map(|element| cloud_event(body, element)).collect());
    }
    // A single CloudEvent may be sent without a list.
    if fields.has("/specversion") {
        return Ok(vec![cloud_event(body, &fields)]);
    }
    if !fields.has("/eventNotifications") {
        return Err(PermanentFailure::missing("/eventNotifications").into());
    }
    let mut events = Vec::new();
    for notification in multi_event::elements(&fields, "/eventNotifications", &PART_POINTERS)? {
        match entity_events(body, &notification) {
            Ok(found) => events.extend(found),
            // The notifications of the other companies are still readable.
            Err(SplitError::Unreadable(_)) => events.push(Event {
                tenant: notification.optional_text("/realmId").unwrap_or_default(),
                ..multi_event::whole_body_event(multi_event::body_slice(body, &notification))
            }),
            Err(SplitError::TooManyEvents) => return Err(SplitError::TooManyEvents),
        }
        multi_event::check_count(&events)?;
    }
    Ok(events)
}

fn cloud_event(body: &Bytes, fields: &JsonFields<'_>) -> Event {
    EventProperties {
        id: fields.optional_text("/id"),
        tenant: fields.optional_text("/intuitaccountid"),
        topic: fields.optional_text("/type"),
        time: fields.optional_text("/time"),
    }
    .into_event(multi_event::body_slice(body, fields))
}

/// The events of one notification. Its entities do not contain the company.
fn entity_events(body: &Bytes, notification: &JsonFields<'_>) -> Result<Vec<Event>, SplitError> {
    let realm = notification.required_text("/realmId")?;
    let entities =
        multi_event::elements(notification, "/dataChangeEvent/entities", &PART_POINTERS)?;
    Ok(entities.iter().map(|entity| entity_event(body, &realm, entity)).collect())
}

fn entity_event(body: &Bytes, realm: &str, fields: &JsonFields<'_>) -> Event {
    let [name, id, operation, time] =
        ["/name", "/id", "/operation", "/lastUpdated"].map(|pointer| fields.optional_text(pointer));
    let [name, id, operation] = [name.as_deref(), id.as_deref(), operation.as_deref()];
    EventProperties {
        id: composite_id([Some(realm), name, id, operation, time.as_deref()]),
        tenant: Some(realm.to_owned()),
        topic: Some(composite_topic(name, operation)),
        time,
    }
    .into_event(multi_event::body_slice(body, fields))
}

/// Maps a CloudEvent, whose type is like `qbo.invoice.created.v1`.
fn map_cloud_event(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<MappedEvent, PermanentFailure> {
    let event_type = fields.required_text("/type")?;
    let mut parts = event_type.split('.');
    let (Some("qbo"), Some(kind), Some(action)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(MappedEvent::Ignored);
    };
    require_tenant(envelope, fields, "/intuitaccountid")?;
    let id = fields.required_text("/intuitentityid")?;
    Ok(MappedEvent::from(ResourceChange {
        platform: "quickbooks",
        kind: kind.to_lowercase(),
        id,
        version: None,
        changed_at: event_time(fields, "/time", envelope)?,
        action: past_action(action),
    }))
}

/// Maps an entity of the older format.
fn map_entity(
    fields: &JsonFields<'_>,
    envelope: &Envelope,
) -> Result<MappedEvent, PermanentFailure> {
    let kind = fields.required_text("/name")?.to_lowercase();
    let id = fields.required_text("/id")?;
    let action = past_action(&fields.required_text("/operation")?);
    require_tenant(envelope, fields, "/realmId")?;
    Ok(MappedEvent::from(ResourceChange {
        platform: "quickbooks",
        kind,
        id,
        version: None,
        changed_at: event_time(fields, "/lastUpdated", envelope)?,
        action,
    }))
}
