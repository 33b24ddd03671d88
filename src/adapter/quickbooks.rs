//! QuickBooks Online: what changed in which company, in both formats of its
//! webhooks; invoices and bills, as its API has them.
//!
//! Source of the rules: <https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks>
//! and Intuit's post of November 2025 on the change to CloudEvents. One call
//! may span companies. Events are thin: they name a document, whose state
//! must be fetched.

mod document;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Call, Delivery, Event, Platform, Rejection, UNTOLD_RESENDS,
    batch::{self, Undivided},
    check_tenant, digest_of,
    fields::{Fields, Pointers},
    first_text,
    moment::parse_moment,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
    topic,
};
use crate::domain::{Change, Envelope, Failure, Mapped, Reference};

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
const NAMES: [&str; 13] = [
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

static PART: LazyLock<Pointers> = LazyLock::new(|| Pointers::new(NAMES));
static CALL: LazyLock<Pointers> = LazyLock::new(|| Pointers::new(NAMES.into_iter().chain([""])));

impl Platform for QuickBooks {
    fn kind(&self) -> &'static str {
        "quickbooks"
    }

    fn repeats_same_bytes(&self) -> bool {
        // A call that comes again may be cut anew, and nobody promises that
        // an event is written the same then.
        false
    }

    fn resends_for(&self) -> Duration {
        // Every six hours in the end, and nobody says until when.
        UNTOLD_RESENDS
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.call().body;
        batch::taken(body, divide(body))
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let fields = Fields::read(&envelope.body, &PART)?;
        if is_list(&fields) || fields.has("/eventNotifications") {
            return batch::settled(divide(&envelope.body));
        }
        if fields.has("/dataChangeEvent") {
            fields.required_text("/realmId")?;
            fields.count("/dataChangeEvent/entities")?;
            return Err(batch::several());
        }
        let has = |pointers: &[&str]| pointers.iter().any(|pointer| fields.has(pointer));
        if has(&["/type", "/specversion", "/intuitentityid"]) {
            cloud_reference(&fields, envelope)
        } else if has(&["/name", "/operation", "/lastUpdated"]) {
            entity_reference(&fields, envelope)
        } else {
            Err(Failure::missing("/eventNotifications"))
        }
    }

    fn document_id(&self, reference: &Reference) -> Option<String> {
        document::id(&reference.kind, &reference.id)
    }

    fn map_resource(
        &self,
        reference: &Reference,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, Failure> {
        document::map(reference, resource)
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &PART, &["/intuitentityid", "/id"])
    }

    fn tenant_header(&self) -> &'static str {
        "intuitaccountid or realmId"
    }

    fn dress(&self, delivery: &Delivery<'_>, secret: &Secret) -> Vec<(HeaderName, HeaderValue)> {
        [(SIGNATURE.header, SIGNATURE.sign(secret, delivery.body))]
            .into_iter()
            .filter_map(|(name, value)| {
                Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
            })
            .collect()
    }
}

/// CloudEvents come as a list, the older notifications within an object.
fn is_list(fields: &Fields<'_>) -> bool {
    fields.literal().trim_start().starts_with('[')
}

fn divide(body: &Bytes) -> Result<Vec<Event>, Undivided> {
    let call = Fields::read(body, &CALL)?;
    if is_list(&call) {
        let elements = batch::elements(&call, "", &PART)?;
        return Ok(elements.iter().map(|element| cloud_event(body, element)).collect());
    }
    // Whoever signs CloudEvents may send one without a list around it.
    if call.has("/specversion") {
        return Ok(vec![cloud_event(body, &call)]);
    }
    if !call.has("/eventNotifications") {
        return Err(Failure::missing("/eventNotifications").into());
    }
    let mut events = Vec::new();
    for notification in batch::elements(&call, "/eventNotifications", &PART)? {
        match entities(body, &notification) {
            Ok(found) => events.extend(found),
            // The other companies' notifications are not at fault.
            Err(Undivided::Unclear(_)) => events.push(Event {
                tenant: text(&notification, "/realmId").unwrap_or_default(),
                ..batch::undivided(batch::part(body, &notification))
            }),
            Err(Undivided::TooMany) => return Err(Undivided::TooMany),
        }
        batch::check_count(&events)?;
    }
    Ok(events)
}

/// A text that may be missing; one that cannot be used is the worker's to tell.
fn text(fields: &Fields<'_>, pointer: &str) -> Option<String> {
    fields.text(pointer).ok().flatten()
}

fn cloud_event(body: &Bytes, fields: &Fields<'_>) -> Event {
    let body = batch::part(body, fields);
    Event {
        event_id: text(fields, "/id").unwrap_or_else(|| digest_of(&body)),
        tenant: text(fields, "/intuitaccountid").unwrap_or_default(),
        topic: topic(text(fields, "/type")),
        version: text(fields, "/time").as_deref().and_then(parse_moment),
        body,
    }
}

/// The events of one company's notification. An entity does not name its
/// company: that goes beside it.
fn entities(body: &Bytes, notification: &Fields<'_>) -> Result<Vec<Event>, Undivided> {
    let realm = notification.required_text("/realmId")?;
    let entities = batch::elements(notification, "/dataChangeEvent/entities", &PART)?;
    Ok(entities.iter().map(|entity| entity_event(body, &realm, entity)).collect())
}

fn entity_event(body: &Bytes, realm: &str, fields: &Fields<'_>) -> Event {
    let body = batch::part(body, fields);
    let [name, id, operation, last_updated] =
        ["/name", "/id", "/operation", "/lastUpdated"].map(|pointer| text(fields, pointer));
    let version = last_updated.as_deref().and_then(parse_moment);
    let told = [name.as_deref(), operation.as_deref()].map(Option::unwrap_or_default).join(".");
    let event_id = match [name, id, operation, last_updated] {
        [Some(name), Some(id), Some(operation), Some(last_updated)] => {
            [realm, &name, &id, &operation, &last_updated].join(":")
        }
        _ => digest_of(&body),
    };
    Event {
        event_id,
        tenant: realm.to_owned(),
        topic: topic(Some(told.to_lowercase())),
        version,
        body,
    }
}

/// A type reads `qbo.invoice.created.v1`.
fn cloud_reference(fields: &Fields<'_>, envelope: &Envelope) -> Result<Mapped, Failure> {
    let told = fields.required_text("/type")?;
    let mut parts = told.split('.');
    let (Some("qbo"), Some(kind), Some(action)) = (parts.next(), parts.next(), parts.next()) else {
        return Ok(Mapped::Ignored);
    };
    check_tenant(envelope, fields, "/intuitaccountid")?;
    let id = fields.required_text("/intuitentityid")?;
    Ok(Mapped::from(reference(kind, id, action, fields, "/time", envelope)?))
}

fn entity_reference(fields: &Fields<'_>, envelope: &Envelope) -> Result<Mapped, Failure> {
    let kind = fields.required_text("/name")?;
    let id = fields.required_text("/id")?;
    let action = fields.required_text("/operation")?;
    check_tenant(envelope, fields, "/realmId")?;
    Ok(Mapped::from(reference(&kind, id, &action, fields, "/lastUpdated", envelope)?))
}

fn reference(
    kind: &str,
    id: String,
    action: &str,
    fields: &Fields<'_>,
    changed_at: &str,
    envelope: &Envelope,
) -> Result<Reference, Failure> {
    let changed_at = fields.moment(changed_at)?.or(envelope.version);
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
    Ok(Reference {
        platform: "quickbooks",
        kind: kind.to_lowercase(),
        id,
        version: None,
        changed_at: changed_at.unwrap_or(envelope.received_at),
        action: action.to_owned(),
    })
}
