//! Xero: what changed in which organisation; invoices and bills, as its API
//! has them.
//!
//! Source of the rules: <https://developer.xero.com/documentation/guides/webhooks/overview/>
//! and Xero's own `OpenAPI` description. One call may span organisations.
//! Events are thin: they name a document, whose state must be fetched.

mod document;
#[cfg(test)]
mod tests;

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::{
    Answers, Call, Delivery, Event, Platform, Rejection,
    batch::{self, Undivided},
    check_tenant, digest_of,
    fields::{Fields, Pointers},
    first_text,
    moment::parse_moment,
    signature::{Algorithm, BodyHmac, Encoding, Secret, Verified},
    topic,
};
use crate::domain::{Change, Envelope, Failure, Mapped, Reference};

/// A Xero source needs no settings of its own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xero {}

/// The topic of a call by which Xero tests whether signatures are checked.
const INTENT: &str = "intent_to_receive";

const SIGNATURE: BodyHmac<'static> = BodyHmac {
    header: "x-xero-signature",
    prefix: "",
    algorithm: Algorithm::Sha256,
    encoding: Encoding::Base64,
};

static CALL: LazyLock<Pointers> = LazyLock::new(|| Pointers::new(["/events"]));
static EVENT: LazyLock<Pointers> = LazyLock::new(|| {
    Pointers::new([
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

    fn repeats_same_bytes(&self) -> bool {
        // A call that comes again may be cut anew, and nobody promises that
        // an event is written the same then.
        false
    }

    fn resends_for(&self) -> Duration {
        // Less and less often for a day: developer.xero.com, webhooks overview.
        Duration::from_hours(24)
    }

    fn answers(&self) -> Answers {
        Answers::Bare
    }

    fn verify(&self, call: &Call<'_>, secrets: &[Secret]) -> Result<usize, Rejection> {
        SIGNATURE.verify(call, secrets)
    }

    fn events(&self, verified: &Verified<'_>) -> Result<Vec<Event>, Rejection> {
        let body = verified.call().body;
        let divided = divide(body);
        // Several of these are sent when a webhook is set up, some of them
        // wrongly signed, each with an entropy of its own.
        let intent = divided.as_ref().is_ok_and(Vec::is_empty);
        let mut events = batch::taken(body, divided)?;
        if intent {
            for event in &mut events {
                INTENT.clone_into(&mut event.topic);
            }
        }
        Ok(events)
    }

    fn map(&self, envelope: &Envelope) -> Result<Mapped, Failure> {
        let fields = Fields::read(&envelope.body, &EVENT)?;
        let has = |pointers: &[&str]| pointers.iter().any(|pointer| fields.has(pointer));
        if !has(&["/resourceId", "/eventCategory", "/eventType"]) {
            return batch::settled(divide(&envelope.body));
        }
        let category = fields.required_text("/eventCategory")?.to_lowercase();
        let action = fields.required_text("/eventType")?.to_lowercase();
        check_tenant(envelope, &fields, "/tenantId")?;
        Ok(Mapped::from(Reference {
            platform: "xero",
            kind: match category.as_str() {
                "creditnote" => "credit_note".to_owned(),
                _ => category,
            },
            id: fields.required_text("/resourceId")?,
            version: None,
            changed_at: fields
                .moment("/eventDateUtc")?
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

    fn document_id(&self, reference: &Reference) -> Option<String> {
        (reference.kind == "invoice").then(|| reference.id.clone())
    }

    fn map_resource(
        &self,
        reference: &Reference,
        _envelope: &Envelope,
        resource: &[u8],
    ) -> Result<Option<Change>, Failure> {
        match reference.kind.as_str() {
            "invoice" => document::map(reference, resource).map(Some),
            _ => Ok(None),
        }
    }

    fn number(&self, envelope: &Envelope) -> Option<String> {
        first_text(&envelope.body, &EVENT, &["/resourceId"])
    }

    fn tenant_header(&self) -> &'static str {
        "tenantId"
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

fn divide(body: &Bytes) -> Result<Vec<Event>, Undivided> {
    let call = Fields::read(body, &CALL)?;
    if !call.has("/events") {
        return Err(Failure::missing("/events").into());
    }
    let elements = batch::elements(&call, "/events", &EVENT)?;
    Ok(elements.iter().map(|element| event(body, element)).collect())
}

fn event(body: &Bytes, fields: &Fields<'_>) -> Event {
    let body = batch::part(body, fields);
    let [tenant, resource, category, kind, date] =
        ["/tenantId", "/resourceId", "/eventCategory", "/eventType", "/eventDateUtc"]
            .map(|pointer| fields.text(pointer).ok().flatten());
    let version = date.as_deref().and_then(parse_moment);
    let told = [category.as_deref(), kind.as_deref()].map(Option::unwrap_or_default).join(".");
    let event_id = match [&tenant, &resource, &kind, &date] {
        [Some(tenant), Some(resource), Some(kind), Some(date)] => {
            [tenant.as_str(), resource, kind, date].join(":")
        }
        _ => digest_of(&body),
    };
    Event {
        event_id,
        // A UUID, as the allow-list has it.
        tenant: tenant.unwrap_or_default().to_ascii_lowercase(),
        topic: topic(Some(told.to_lowercase())),
        version,
        body,
    }
}
